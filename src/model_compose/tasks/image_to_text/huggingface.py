"""How does transformers say what an image shows?

The images of all callers that wait go through the model together, and so do the next tokens of their texts;
each row is sampled by its own rules, and leaves as soon as it has ended or nobody waits for it. Beam searches
are done by the library's own `generate`, one by one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from model_compose.drivers.alone import warm_up
from model_compose.drivers.contract import Item, LoadOptions, LoadProgress, ModelInfo, Outcome, Step
from model_compose.drivers.huggingface.load import (
    Loaded,
    driver_options,
    load,
    load_image_processor,
    load_tokenizer,
    read_config,
)
from model_compose.drivers.huggingface.lora import Adapters
from model_compose.drivers.huggingface.memory import memory_guarded, taken
from model_compose.drivers.huggingface.text import tokens_of
from model_compose.errors import EngineError, InvalidInput, ModelLoadError
from model_compose.tasks.generation import (
    Completion,
    input_limit,
    outcome_of,
    refuse_equal_outputs,
    refuse_more_outputs_than_beams,
    too_long,
)
from model_compose.tasks.image_to_text.architectures import (
    ARCHITECTURES,
    Architecture,
    EncoderDecoder,
    Passes,
    agrees,
)
from model_compose.tasks.image_to_text.spec import ImageToText
from model_compose.tasks.image_to_text.voice import Tidy, Voice
from model_compose.tasks.images import MOST_PIXELS, decode, encode, rgb
from model_compose.tasks.pictures import ImageOutput
from model_compose.tasks.text_generation.huggingface import whole
from model_compose.tasks.text_generation.huggingface.output import Output
from model_compose.tasks.text_generation.huggingface.sampling import Sampler, choose
from model_compose.types import Usage

#: Most images in one forward pass.
_CPU_ROWS: Final = 8
_GPU_ROWS: Final = 32
#: Tokens of a context that are never the prompt's: the one that starts the output, and one of the output.
_TAKEN: Final = 2
#: What a file calls an architecture, and what a configuration calls it.
_MODEL_TYPES: Final = {"blip": "blip", "git": "git", "vit-gpt2": "vision-encoder-decoder"}
_NAMES: Final = {model_type: name for name, model_type in _MODEL_TYPES.items()}


class _Row(NamedTuple):
    """One output that is wanted; of a beam search, all outputs of a request.

    pixels  float [channels, height, width]; outputs of one request share it
    prompt  tokens, the one that starts every output first
    """

    request: ImageToText
    number: int
    pixels: NDArray[np.float32]
    prompt: list[int]


class Captioner:
    """A `BatchModel` for image-to-text."""

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load the weights."""
        config = read_config(options)
        kind = _architecture(options, config)
        self._options = options
        self._tokenizer = load_tokenizer(options, config)
        if self._tokenizer.is_fast:
            self._tokenizer.backend_tokenizer.no_truncation()
            self._tokenizer.backend_tokenizer.no_padding()
        self._processor = load_image_processor(options, config)
        self._loaded = load(options, "AutoModelForImageTextToText", progress, config)
        if options.adapters:
            Adapters.attach(self._loaded.model, options.adapters, self._loaded.dtype)
        self._how = kind(self._loaded.model, config, self._tokenizer)
        self._context = min(self._how.positions, options.max_seq_length or self._how.positions)
        self._most_pixels = driver_options(options).max_image_pixels or MOST_PIXELS
        self._joins = _joins(self._tokenizer)
        self._batches = self._rows = self._written = 0
        white = encode(Image.new("RGB", (32, 32), "white"), ImageOutput())
        items = self.prepare(ImageToText(image=white, max_output_length=2, do_sample=False))
        if kind is EncoderDecoder:
            self._require_agreement(items[0].payload)
        warm_up(items, self.forward, options, progress)
        on_cpu = self._loaded.device.type == "cpu"
        return ModelInfo(
            slots=1,
            threads=options.threads if on_cpu else 1,
            elastic=on_cpu,
            context_length=self._context,
            details=self._loaded.details,
        )

    def _require_agreement(self, row: _Row) -> None:
        """Encoders and decoders come in any combination, and not all decoders keep what they have read."""
        try:
            with self._passing(self._options.threads):
                right = agrees(self._how, self._placed([row]))
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
            raise ModelLoadError(f"this encoder and decoder do not work together: {error}") from error
        if not right:
            kind = type(self._loaded.model.decoder).__name__
            raise ModelLoadError(f"the decoder `{kind}` gives other tokens when it keeps keys and values")

    def budget(self) -> tuple[int, int]:
        """The most rows, and as many tokens as all prompts may have."""
        rows = self._options.batch_size or (_CPU_ROWS if self._loaded.device.type == "cpu" else _GPU_ROWS)
        return rows, rows * self._context

    def prepare(self, request: ImageToText) -> list[Item]:
        """Decode and scale the image, and tokenize the prompt."""
        refuse_equal_outputs(request)
        refuse_more_outputs_than_beams(request)
        prompt = self._prompt(request)
        image = rgb(decode(request.image, most_pixels=self._most_pixels))
        pixels = np.asarray(self._processor(images=image, return_tensors="np")["pixel_values"][0])
        if request.num_beams > 1:  # nobody beside it
            return [Item(len(prompt), object(), _Row(request, 0, pixels, prompt))]
        outputs = range(request.num_return_sequences)
        return [Item(len(prompt), pixels.shape, _Row(request, i, pixels, prompt)) for i in outputs]

    def _prompt(self, request: ImageToText) -> list[int]:
        if not request.prompt:
            return [self._how.start]
        if not self._how.prompts:
            raise InvalidInput(
                "the model takes no prompt: it was trained to describe images, and nothing else",
                field="prompt",
                hint="leave it out, or choose a model of architecture `blip` or `git`",
            )
        tokens = tokens_of(self._tokenizer, request.prompt, special=False)
        most = max(self._context - _TAKEN, 0)
        limit = input_limit(request, most)
        if len(tokens) > limit and not request.truncate:
            raise too_long(len(tokens), limit, most)
        return [self._how.start, *tokens[max(0, len(tokens) - limit) :]]

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[list[Completion] | Exception]:
        """Write the outputs of each row."""
        rows: list[_Row] = [item.payload for item in items]
        self._batches += 1
        self._rows += len(rows)
        with self._passing(step.threads):
            if rows[0].request.num_beams > 1:
                return [self._search(row, step, i) for i, row in enumerate(rows)]
            return self._write(rows, step)

    @contextlib.contextmanager
    def _passing(self, threads: int) -> Iterator[None]:
        """Around forward passes: threads, memory, no gradients."""
        if self._loaded.device.type == "cpu" and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        with memory_guarded(self._loaded.device), torch.inference_mode():
            yield

    def _write(self, rows: Sequence[_Row], step: Step) -> list[list[Completion] | Exception]:
        """Write all rows side by side, each until it ends."""
        voices = [self._voice(row, step, i) for i, row in enumerate(rows)]
        outputs = [self._output(row, row.number, voice) for row, voice in zip(rows, voices, strict=True)]
        passes, sound = self._look(rows)
        alive = sound
        while alive:
            tokens = choose(passes.logits, [outputs[i].sampler for i in alive])
            self._written += len(tokens)
            go_on = [
                place
                for place, (i, token) in enumerate(zip(alive, tokens, strict=True))
                if _goes_on(outputs[i], token)
            ]
            alive = [alive[place] for place in go_on]
            if alive:
                passes.keep(go_on)
                passes.add([tokens[place] for place in go_on])
        return [
            [_completion(output, voice)] if i in sound else _too_large()
            for i, (output, voice) in enumerate(zip(outputs, voices, strict=True))
        ]

    def _look(self, rows: Sequence[_Row]) -> tuple[Passes, list[int]]:
        """Look at each image once; -> passes that go on with a row for each output that can be written."""
        distinct = list({id(row.pixels): row for row in rows}.values())
        place = {id(row.pixels): i for i, row in enumerate(distinct)}
        passes = Passes(self._how, self._placed(distinct), [row.prompt for row in distinct])
        sound = passes.logits.isfinite().all(-1).tolist()
        alive = [i for i, row in enumerate(rows) if sound[place[id(row.pixels)]]]
        passes.keep([place[id(rows[i].pixels)] for i in alive])
        return passes, alive

    def _search(self, row: _Row, step: Step, i: int) -> list[Completion]:
        """Search with beams."""
        voices = [self._voice(row, step, i) for _ in range(row.request.num_return_sequences)]
        outputs = [self._output(row, index, voice) for index, voice in enumerate(voices)]
        model = self._how.generating(self._placed([row]))
        loaded = Loaded(model, self._loaded.device, self._loaded.dtype, {})
        whole.generate(loaded, whole.Request(row.request, row.prompt, (), outputs), lambda: None)
        return [_completion(output, voice) for output, voice in zip(outputs, voices, strict=True)]

    def _placed(self, rows: Sequence[_Row]) -> Tensor:
        pixels = torch.from_numpy(np.stack([row.pixels for row in rows]))
        return pixels.to(self._loaded.device, self._loaded.dtype, non_blocking=True)

    def _voice(self, row: _Row, step: Step, i: int) -> Voice:
        return Voice(step, i, Tidy(joins=self._joins), heard=row.request.num_return_sequences == 1)

    def _output(self, row: _Row, index: int, voice: Voice) -> Output:
        how = self._how
        return Output(
            row.request,
            index,
            row.prompt,
            room=self._context - len(row.prompt),
            continues=True,
            blend=(),
            sampler=Sampler(row.request, index, how.ends, row.prompt, how.vocabulary),
            tokenizer=self._tokenizer,
            sink=voice,
            cancel=voice,
            ended=voice.end,
        )

    def finish(self, request: ImageToText, raws: Sequence[list[Completion]]) -> Outcome:
        """One text, or all of them."""
        return outcome_of([completion for raw in raws for completion in raw])

    def metrics(self) -> Mapping[str, float]:
        """Batches, their rows, and the tokens that were written."""
        return {
            "batches": self._batches,
            "rows": self._rows,
            "generation_tokens_total": self._written,
        }

    def memory(self) -> Mapping[str, int]:
        """What it takes on GPUs."""
        return taken()


def _architecture(options: LoadOptions, config: Any) -> type[Architecture]:
    """How the weights are used. Raises ModelLoadError where they are not what the file says, or unknown."""
    assert options.source is not None
    origin, told = options.source.origin, config.model_type
    wanted = None if options.architecture in (None, "auto") else options.architecture
    if wanted is not None and _MODEL_TYPES.get(wanted) != told:
        right = f"set `architecture: {_NAMES[told]}`" if told in _NAMES else "choose other weights"
        raise ModelLoadError(
            f"`architecture` is `{wanted}`, and the weights of `{origin}` are of type `{told}`", hint=right
        )
    if told not in ARCHITECTURES:
        known = ", ".join(f"`{each}`" for each in ARCHITECTURES)
        raise ModelLoadError(
            f"the weights of `{origin}` are of type `{told}`, which image-to-text does not know",
            hint=f"choose weights of one of these types: {known}",
        )
    kind = ARCHITECTURES[told]
    classes = config.architectures or [kind.class_name]
    if kind.class_name not in classes:
        raise ModelLoadError(
            f"the weights of `{origin}` are those of a `{classes[0]}`, and what describes images is a "
            f"`{kind.class_name}`",
            hint="it was made for another task: choose weights that were trained for this one",
        )
    return kind


def _joins(tokenizer: Any) -> bool:
    """Whether its texts get the spaces before signs taken out, as the library does it for whole texts."""
    if not (tokenizer.is_fast and tokenizer.clean_up_tokenization_spaces):
        return False
    return type(tokenizer.backend_tokenizer.model).__name__ != "BPE"


def _goes_on(output: Output, token: int) -> bool:
    """Whether anything is wanted behind this token of an output."""
    output.take(token)
    if output.finish_reason is not None:
        output.end()
        return False
    return not output.cancelled


def _too_large() -> EngineError:
    return EngineError(
        "the model gave numbers that are too large for its precision",
        hint="set `precision: bfloat16` or `float32`",
    )


def _completion(output: Output, voice: Voice) -> Completion:
    """An output with the text as it was said; the token that starts every output is nobody's prompt."""
    usage = Usage(output.prompt_length - 1, output.usage.completion_tokens)
    return msgspec.structs.replace(output.completion(), text=voice.text, usage=usage)
