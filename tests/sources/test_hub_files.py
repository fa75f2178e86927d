from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compose.errors import SourceNotFound
from model_compose.sources.hub_files import choose

TOKENIZER = ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "chat_template.jinja", "tokenizer.model"]


def files(names: list[str], filename: str | None = None) -> list[str]:
    return list(choose(names, filename, "org/model").files)


def test_safetensors_are_preferred_and_come_with_their_configuration() -> None:
    wanted = ["config.json", "model.safetensors", *TOKENIZER]
    others = [
        "pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack",
        "model.onnx", "onnx/model.onnx", "onnx/config.json", "openvino/openvino_model.bin", "model.gguf",
        "README.md", ".gitattributes", "modeling_custom.py", "coreml/model.mlpackage", "training_args.bin",
        "original/consolidated.00.pth", "original/params.json", "checkpoint-500/model.safetensors",
    ]  # fmt: skip
    chosen = choose([*wanted, *others], None, "org/model")
    assert sorted(chosen.files) == sorted(wanted)
    assert (chosen.main, chosen.format) == (None, "safetensors")


def test_pytorch_weights_are_taken_where_there_are_no_others() -> None:
    names = [
        "config.json",
        "pytorch_model.bin",
        "optimizer.pt",
        "training_args.bin",
        "rng_state_0.pth",
        "x.onnx",
    ]
    chosen = choose(names, None, "org/model")
    assert chosen.files == ("config.json", "pytorch_model.bin")
    assert chosen.format == "pytorch"


def test_all_parts_of_split_weights_are_taken() -> None:
    parts = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    index = "model.safetensors.index.json"
    assert files([*parts, index, "pytorch_model-00001-of-00001.bin"]) == sorted([*parts, index])


def test_split_weights_with_a_part_missing_are_an_error() -> None:
    with pytest.raises(SourceNotFound, match=r"lacks `model-00002-of-00002.safetensors`"):
        files(["model-00001-of-00002.safetensors"])


def test_whole_weights_are_preferred_to_the_same_in_parts() -> None:
    parts = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    assert files([*parts, "model.safetensors"]) == ["model.safetensors"]


@pytest.mark.parametrize(
    "copy", ["model.fp16.safetensors", "consolidated.safetensors", "my-merge.safetensors"]
)
def test_copies_beside_weights_with_the_standard_name_are_left_out(copy: str) -> None:
    assert files(["model.safetensors", copy]) == ["model.safetensors"]
    assert files([copy]) == [copy]


def test_the_folders_of_a_pipeline_are_taken_but_not_the_same_in_one_file() -> None:
    wanted = [
        "model_index.json", "scheduler/scheduler_config.json", "text_encoder/model.safetensors",
        "tokenizer/merges.txt", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip
    others = ["sd_xl_base_1.0.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors", "vae/model.bin"]
    assert files([*wanted, *others]) == sorted(wanted)


def test_the_modules_of_a_sentence_embedder_are_taken() -> None:
    wanted = ["1_Pooling/config.json", "model.safetensors", "modules.json", "2_Dense/model.safetensors"]
    assert files([*wanted, "pytorch_model.bin", "2_Dense/pytorch_model.bin"]) == sorted(wanted)


def test_a_module_whose_weights_are_in_another_format_is_taken_too() -> None:
    wanted = ["config.json", "model.safetensors", "modules.json", "2_Dense/config.json"]
    others = [
        "pytorch_model.bin",
        "3_Dense/pytorch_model.bin",
        "3_Dense/model.safetensors",
        "other/pytorch_model.bin",
    ]
    chosen = files([*wanted, "2_Dense/pytorch_model.bin", *others])
    assert sorted(chosen) == sorted([*wanted, "2_Dense/pytorch_model.bin", "3_Dense/model.safetensors"])


@pytest.mark.parametrize(
    "names", [["a.gguf"], ["a.gguf", "b.gguf", "README.md"], ["onnx/model.onnx", "config.json"]]
)
def test_a_repository_without_weights_to_load_whole_lists_what_can_be_named(names: list[str]) -> None:
    with pytest.raises(SourceNotFound, match="no safetensors or PyTorch weights") as caught:
        files(names)
    hint = caught.value.hint or ""
    assert hint.startswith("choose one with `filename`: ")
    assert all(f"`{name}`" in hint for name in names if name.endswith((".gguf", ".onnx")))
    assert "README" not in hint


def test_a_repository_without_any_weights_lists_its_files() -> None:
    with pytest.raises(SourceNotFound) as caught:
        files(["README.md"])
    assert caught.value.hint == "valid: `README.md`"


def test_a_named_gguf_file_is_taken_alone() -> None:
    chosen = choose(["config.json", "q4/a.gguf", "q8/a.gguf", "model.safetensors"], "q4/a.gguf", "org/model")
    assert (chosen.files, chosen.main, chosen.format) == (("q4/a.gguf",), "q4/a.gguf", "gguf")


def test_a_named_gguf_file_in_parts_comes_whole_and_is_loaded_by_its_first() -> None:
    parts = [f"big/x-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    chosen = choose(parts, parts[1], "org/model")
    assert (list(chosen.files), chosen.main) == (parts, parts[0])


def test_a_named_file_of_weights_comes_with_configuration_beside_and_above_it() -> None:
    names = ["config.json", "sub/config.json", "sub/a.safetensors", "sub/b.safetensors", "other/config.json"]
    assert files(names, "sub/a.safetensors") == ["config.json", "sub/a.safetensors", "sub/config.json"]


def test_a_named_onnx_file_comes_with_its_data() -> None:
    names = ["onnx/model.onnx", "onnx/model.onnx_data", "onnx/other.onnx", "config.json"]
    assert files(names, "onnx/model.onnx") == ["config.json", "onnx/model.onnx", "onnx/model.onnx_data"]


def test_a_named_file_of_a_sentence_embedder_comes_with_its_modules() -> None:
    beside = ["1_Pooling/config.json", "2_Dense/config.json", "config.json", "modules.json"]
    dense = ["2_Dense/model.safetensors", "3_Dense/pytorch_model.bin"]
    others = ["2_Dense/pytorch_model.bin", "1_Pooling/deep/config.json", "runs/config.json", "x_1/a.json"]
    names = ["model.safetensors", "onnx/model.onnx", *beside, *dense, *others]
    assert files(names, "onnx/model.onnx") == sorted([*beside, "onnx/model.onnx"])
    assert files(names, "model.safetensors") == sorted([*beside, *dense, "model.safetensors"])


def test_a_file_that_is_not_there_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(SourceNotFound, match=r"no file `modle.gguf` in `org/model`") as caught:
        files(["model.gguf", "config.json"], "modle.gguf")
    assert (caught.value.hint or "").startswith("did you mean `model.gguf`?")


def test_a_file_that_is_no_weights_cannot_be_the_model() -> None:
    with pytest.raises(SourceNotFound, match="no file of weights that we know") as caught:
        files(["config.json", "a.gguf"], "config.json")
    assert caught.value.hint == "choose one with `filename`: `a.gguf`"


_NAMES = st.lists(
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "unet/", "onnx/", "checkpoint-1/", "a/b/"]),
        st.sampled_from(["model", "pytorch_model", "consolidated", "x", "model.fp16", "-of-", "a-1-of-2"]),
        st.sampled_from(["", "-00001-of-00001", "-1-of-99999999999", "-of-2"]),
        st.sampled_from([".safetensors", ".bin", ".gguf", ".json", ".txt", ".md", ""]),
    ),
    unique=True,
)


@given(_NAMES)
def test_a_choice_is_of_one_format_and_from_the_repository(names: list[str]) -> None:
    try:
        chosen = choose(names, None, "org/model")
    except SourceNotFound:
        return
    assert set(chosen.files) <= set(names)
    kinds = {name.rpartition(".")[2] for name in chosen.files} & {"safetensors", "bin", "gguf"}
    assert kinds == ({"safetensors"} if chosen.format == "safetensors" else {"bin"})
