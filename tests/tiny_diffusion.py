"""How do tests get a pipeline that paints: random, tiny, and as it lies in a folder of the Hub?

Pictures are noise, and different noise for every prompt, seed and number of steps.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any, Final

_LETTERS: Final = string.ascii_lowercase
_CLIP_TOKENS: Final = 77


def sdxl(folder: Path) -> Path:
    """Write an SDXL: two CLIPs and a U-Net. Sides of 32 pixels and more look like it."""
    library = _seeded()
    unet = library.UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=16,
        in_channels=4,
        out_channels=4,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=64,
    )
    tokenizer = clip_tokenizer()
    scheduler = library.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading"
    )
    return _written(
        library.StableDiffusionXLPipeline(
            vae=_vae(),
            text_encoder=_clip(),
            text_encoder_2=_clip(projected=True),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=unet,
            scheduler=scheduler,
        ),
        folder,
    )


def flux(folder: Path, *, distilled: bool = False) -> Path:
    """Write a Flux: CLIP, T5 and a transformer that matches flows."""
    library = _seeded()
    transformer = library.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=not distilled,
    )
    vae = _vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5)
    return _written(
        library.FluxPipeline(
            scheduler=library.FlowMatchEulerDiscreteScheduler(),
            vae=vae,
            text_encoder=_clip(),
            tokenizer=clip_tokenizer(),
            text_encoder_2=_t5(),
            tokenizer_2=t5_tokenizer(),
            transformer=transformer,
        ),
        folder,
    )


def hunyuan(folder: Path) -> Path:
    """Write a HunyuanDiT: BERT, T5 and a transformer."""
    from transformers import BertConfig, BertModel

    library = _seeded()
    transformer = library.HunyuanDiT2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        in_channels=4,
        cross_attention_dim=32,
        cross_attention_dim_t5=32,
        pooled_projection_dim=16,
        hidden_size=24,
        activation_fn="gelu-approximate",
    )
    tokenizer = bert_tokenizer()
    bert = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=37,
        max_position_embeddings=80,
    )
    return _written(
        library.HunyuanDiTPipeline(
            vae=_vae(),
            text_encoder=BertModel(bert).eval(),  # type: ignore[no-untyped-call]
            tokenizer=tokenizer,
            text_encoder_2=_t5(),
            tokenizer_2=t5_tokenizer(),
            transformer=transformer,
            scheduler=library.DDPMScheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ),
        folder,
    )


def lora(base: Path, folder: Path, *, rank: int, seed: int) -> Path:
    """Write a LoRA adapter of the denoiser of a pipeline, as a trainer saves it."""
    import torch
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipe = _seeded().DiffusionPipeline.from_pretrained(str(base), local_files_only=True)
    part = "unet" if hasattr(pipe, "unet") else "transformer"
    denoiser = getattr(pipe, part)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["to_q", "to_v"])
    denoiser.add_adapter(config, adapter_name="made")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in denoiser.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    pipe.save_lora_weights(
        str(folder),
        **{
            f"{part}_lora_layers": get_peft_model_state_dict(denoiser, adapter_name="made"),
            f"{part}_lora_adapter_metadata": denoiser.peft_config["made"].to_dict(),
        },
    )
    return folder


def _seeded() -> Any:
    """The library, with chance as it always is."""
    import diffusers
    import torch

    torch.manual_seed(0)
    return diffusers


def clip_tokenizer() -> Any:
    """CLIP's, whose words are letters."""
    from transformers import CLIPTokenizer

    words = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=_CLIP_TOKENS)


def bert_tokenizer() -> Any:
    """BERT's, whose words are letters."""
    from transformers import BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=_CLIP_TOKENS)


def t5_tokenizer() -> Any:
    """T5's, whose words are letters."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in _LETTERS]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def _clip(*, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=54,
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=_CLIP_TOKENS,
        projection_dim=32,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )
    return _loud((CLIPTextModelWithProjection if projected else CLIPTextModel)(config))


def _t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=32, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    return _loud(T5EncoderModel(config))


def _loud(model: Any) -> Any:
    """With embeddings so large that one other word shows."""
    import torch

    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(20)
    return model.eval()


def _vae(**more: Any) -> Any:
    """Eight pixels of the image at a side are one of the latent image, as in the real ones."""
    import diffusers

    library: Any = diffusers
    return library.AutoencoderKL(
        block_out_channels=(4, 4, 4, 4),
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=2,
        layers_per_block=1,
        sample_size=128,
        **more,
    )


def _written(pipe: Any, folder: Path) -> Path:
    pipe.save_pretrained(str(folder))
    return folder
