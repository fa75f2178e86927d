"""How does transformers continue a text? Chat differs in its prompt: see `chat_completion/huggingface.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from model_compose.drivers.contract import CancelToken, LoadOptions, LoadProgress, ModelInfo, Outcome, Sink
from model_compose.drivers.huggingface.load import (
    Auto,
    Loaded,
    context_length,
    driver_options,
    load,
    load_tokenizer,
    read_config,
)
from model_compose.drivers.huggingface.lora import Adapters, Blending
from model_compose.drivers.huggingface.memory import taken
from model_compose.drivers.huggingface.size import cache_bytes
from model_compose.drivers.huggingface.text import tokens_of
from model_compose.errors import InvalidInput, ModelLoadError, RequestTooLong
from model_compose.tasks.generation import (
    Generation,
    input_limit,
    outcome_of,
    refuse_equal_outputs,
    refuse_more_outputs_than_beams,
    too_long,
)
from model_compose.tasks.text_generation.answer import Splits
from model_compose.tasks.text_generation.huggingface.loop import Loop
from model_compose.tasks.text_generation.huggingface.output import Output
from model_compose.tasks.text_generation.huggingface.sampling import Sampler
from model_compose.tasks.text_generation.huggingface.whole import Request as WholeRequest

#: Sequences in one forward pass, unless `batch_size` says otherwise: more gains little and costs memory.
DEFAULT_ROWS: Final = 32


class Library(Protocol):
    """Who loads weights, and puts adapters into them.

    driver  its name
    """

    driver: str

    def load(self, options: LoadOptions, auto: Auto, progress: LoadProgress, config: Any) -> Loaded:
        """A model in evaluation mode. Raises ModelLoadError, DriverMissing."""

    def attach(self, loaded: Loaded, options: LoadOptions) -> Blending | None:
        """The adapters of the options, in the model; None if there are none. Raises ModelLoadError."""

    def shares(self, loaded: Loaded, options: LoadOptions) -> bool:
        """Whether sequences may share its forward passes, with a cache of ours and a blend for each row."""


class Transformers:
    """The `Library` that most models are for."""

    driver = "huggingface"

    def load(self, options: LoadOptions, auto: Auto, progress: LoadProgress, config: Any) -> Loaded:
        """With the automatic class."""
        return load(options, auto, progress, config)

    def attach(self, loaded: Loaded, options: LoadOptions) -> Blending | None:
        """Into its layers, by hooks."""
        return Adapters.attach(loaded.model, options.adapters, loaded.dtype) if options.adapters else None

    def shares(self, loaded: Loaded, options: LoadOptions) -> bool:
        """Any may."""
        return True


class Generator:
    """An `EngineModel` for text-generation."""

    def __init__(self, library: Library | None = None) -> None:
        self._library = library or Transformers()
        self._loaded: Loaded
        self.tokenizer: Any = None
        self._adapters: Blending | None = None
        self._loop: Loop
        self._context = 0
        self._shares = False
        self._will_take = 0
        self._ends: tuple[int, ...] = ()

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load the weights."""
        info = await asyncio.to_thread(self._load, options, progress)
        if options.warmup:
            progress("warm-up", 0, 1)
            await self._warm_up()
            progress("warm-up", 1, 1)
        return info

    def _load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        config = read_config(options)
        if options.architecture not in (None, "auto", "causal", "seq2seq"):
            raise ModelLoadError(
                f"there is no architecture `{options.architecture}` of text models here",
                hint="valid: `auto`, `causal`, `seq2seq`",
            )
        if options.architecture not in (None, "auto"):
            wanted = options.architecture == "seq2seq"
            if wanted != bool(config.is_encoder_decoder):
                is_one = "seq2seq" if config.is_encoder_decoder else "causal"
                raise ModelLoadError(
                    f"`architecture` is `{options.architecture}`, and `{config.model_type}` is {is_one}"
                )
        self.tokenizer = load_tokenizer(options, config)
        if self.tokenizer.is_fast:
            self.tokenizer.backend_tokenizer.no_truncation()
            self.tokenizer.backend_tokenizer.no_padding()
        self._prepare_tokenizer(options)
        auto: Auto = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
        self._loaded = loaded = self._library.load(options, auto, progress, config)
        self._adapters = self._library.attach(loaded, options)
        self._ends = _ends(loaded.model.generation_config, self.tokenizer)
        self._context = context_length(config, options)
        rows = options.batch_size or DEFAULT_ROWS
        own = driver_options(options)
        weights = sum(parameter.nbytes for parameter in loaded.model.parameters())
        cache = cache_bytes(own, weights)
        self._loop = Loop(
            loaded,
            self._adapters,
            max_rows=rows,
            cache_bytes=cache,
            prompt_batch=own.prompt_batch,
            threads=options.threads,
        )
        may_share = self._library.shares(loaded, options)
        self._shares = self._loop.start(share=may_share)
        self._will_take = weights + (cache if self._shares else 0)
        alone = "none: its architecture cannot share" if may_share else "none: one request at a time"
        batching = f"continuous, {rows} sequences" if self._shares else alone
        on_cpu = loaded.device.type == "cpu"
        return ModelInfo(
            slots=rows if self._shares else 2,
            threads=options.threads if on_cpu else 1,
            elastic=on_cpu,
            context_length=self._context,
            details={**loaded.details, "batching": batching, **self._details()},
        )

    def _prepare_tokenizer(self, options: LoadOptions) -> None:
        """What a task does with the tokenizer before weights are loaded. Raises ModelLoadError."""

    def _details(self) -> dict[str, str]:
        return {}

    async def _warm_up(self) -> None:
        class Nobody:
            streaming, ready, cancelled = False, True, False

            def emit(self, chunk: Any) -> bool:
                return True

            def progress(self, done: int, total: int) -> None:
                pass

            def on_cancel(self, callback: Any) -> None:
                pass

        nobody = Nobody()
        prompt = tokens_of(self.tokenizer, "Hello", special=True)[-1:]
        await self._serve(Generation(max_output_length=2, temperature=0), prompt, nobody, nobody)

    async def run(self, request: Any, sink: Sink, cancel: CancelToken) -> Outcome:
        """Generate the outputs of a request, side by side."""
        refuse_equal_outputs(request)
        refuse_more_outputs_than_beams(request)
        prompt = await asyncio.to_thread(self.prompt, request)
        outputs = await self._serve(request, prompt, sink, cancel, self.splits(request))
        return outcome_of([output.completion() for output in outputs])

    async def _serve(
        self,
        request: Generation,
        prompt: list[int],
        sink: Sink,
        cancel: CancelToken,
        splits: Splits | None = None,
    ) -> list[Output]:
        loop = asyncio.get_running_loop()
        blend = self._adapters.blend(request.adapters) if self._adapters else self._no_blend(request)
        waiting: list[asyncio.Future[None]] = []
        outputs: list[Output] = []
        seq2seq = bool(self._loaded.config.is_encoder_decoder)
        for index in range(request.num_return_sequences):
            future: asyncio.Future[None] = loop.create_future()
            waiting.append(future)
            vocabulary = int(self._loaded.config.get_text_config().vocab_size)
            outputs.append(
                Output(
                    request,
                    index,
                    prompt,
                    room=self._context if seq2seq else self._context - len(prompt),
                    continues=not seq2seq,
                    splits=splits,
                    blend=blend,
                    sampler=Sampler(request, index, self._ends, prompt, vocabulary),
                    tokenizer=self.tokenizer,
                    sink=sink,
                    cancel=cancel,
                    ended=_from_thread(loop, future),
                )
            )
        if request.num_beams > 1 or not self._shares:
            if request.logprobs is not None:
                raise InvalidInput(
                    "log probabilities cannot be had with beams, nor where requests are computed one by one",
                    field="logprobs",
                )
            self._loop.submit_alone(WholeRequest(request, prompt, blend, outputs))
        else:
            for output in outputs:
                self._loop.submit(output)
        cancel.on_cancel(self._loop.wake)
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        for output in outputs:
            if output.behind:
                await asyncio.to_thread(output.hand_over)
        return outputs

    def splits(self, request: Any) -> Splits | None:
        """How to tell calls of tools from text, for requests that give tools."""
        return None

    def _no_blend(self, request: Generation) -> tuple[float, ...]:
        for name in request.adapters or {}:
            raise InvalidInput(f"there is no adapter `{name}`; there are: none", field="adapters")
        return ()

    def prompt(self, request: Any) -> list[int]:
        """The tokens of a prompt, those that the model wants at its beginning included; blocks."""
        tokens = tokens_of(self.tokenizer, request.prompt, special=True)
        limit = self.limit(request)
        if len(tokens) > limit:
            if not request.truncate:
                raise too_long(len(tokens), limit, self._context)
            tokens = tokens[-limit:]
        return self.with_room(tokens)

    def limit(self, request: Generation) -> int:
        """The most tokens that the prompt of a request may have."""
        return input_limit(request, self._context)

    def with_room(self, tokens: list[int]) -> list[int]:
        """The tokens, if there are any and the context has room for an output. Raises otherwise."""
        if not tokens:
            raise InvalidInput("the prompt has no tokens", field="prompt")
        if len(tokens) >= self._context and not self._loaded.config.is_encoder_decoder:
            raise RequestTooLong(
                f"the prompt has {len(tokens)} tokens, and the context holds {self._context} with the output",
                size=len(tokens),
                limit=self._context - 1,
                hint="shorten it, or set `truncate: true`",
            )
        return tokens

    async def close(self) -> None:
        """Let go of the engine."""
        await asyncio.to_thread(self._loop.close)

    async def lease(self, threads: int) -> None:
        """Compute with this many threads."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        settle = _from_thread(loop, done)
        self._loop.lease(threads, lambda: settle(None))
        await done

    def metrics(self) -> Mapping[str, float]:
        """Counters of the engine."""
        return self._loop.metrics()

    def memory(self) -> Mapping[str, int]:
        """Bytes by pool, where they are not those of the process: keys and values count before they come."""
        held = taken()
        if len(held) == 1:
            (pool,) = held
            held[pool] = max(held[pool], self._will_take)
        return held


def _from_thread(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]
) -> Callable[[BaseException | None], None]:
    """What ends a future from another thread."""

    def settle(error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    def end(error: BaseException | None) -> None:
        loop.call_soon_threadsafe(settle, error)

    return end


def _ends(own: Any, tokenizer: Any) -> tuple[int, ...]:
    """Tokens that end an output: those of the generation configuration, and the tokenizer's."""
    found = own.eos_token_id if own is not None else None
    tokens = list(found) if isinstance(found, list | tuple) else [found]
    return tuple(dict.fromkeys(t for t in [*tokens, tokenizer.eos_token_id] if isinstance(t, int)))
