"""How do we load and call vLLM?

Its engine runs in processes of its own, which this one starts and talks to. All of them are in the process
group of the worker, so none of them outlives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import itertools
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeVar

from model_compose.drivers.contract import CancelToken, LoadOptions, LoadProgress, ModelInfo, Sink
from model_compose.drivers.vllm.arguments import Installed, arguments, environment
from model_compose.drivers.vllm.printed import Printed
from model_compose.errors import (
    Cancelled,
    DriverMissing,
    EngineError,
    InvalidInput,
    ModelComposeError,
    ModelLoadError,
    WorkerDied,
)

Result = TypeVar("Result")

#: How often it is looked whether the engine's processes are still there.
_LOOK_EVERY_S: Final = 0.5
_ENDED: Final = "vLLM's engine process ended"
#: The engine has no faster way to let go than to be killed, which the runtime does to the whole group.
_SHUTDOWN_S: Final = 3.0


class Vllm:
    """One loaded model. `info`, `tokenizer` and `blends` hold from `load` on."""

    def __init__(self, *, end: Callable[[int], Any] = os._exit) -> None:
        self.info = ModelInfo(slots=1)
        self.tokenizer: Any = None
        self.blends: Any = None
        self.context = 0
        self._engine: Any = None
        self._counts = Counts()
        self._numbers = itertools.count()
        self._handing_over: ThreadPoolExecutor | None = None
        self._watching: asyncio.Task[None] | None = None
        self._end_process = end

    async def load(
        self, options: LoadOptions, progress: LoadProgress, *, pooling: str | None = None
    ) -> ModelInfo:
        """Start the engine. Raises ModelLoadError, DriverMissing.

        pooling  of models that embed: how the vectors of the tokens become one
        """
        progress("weights", 0, 0)
        adapters, room, on_cpu = await asyncio.to_thread(self._start, options, pooling)
        self._watching = asyncio.get_running_loop().create_task(self._watch())
        if adapters:
            progress("adapters", 0, 0)
            folder = Path(options.scratch) / f"blends-{os.getpid()}"
            await self._load_adapters(adapters, room, folder, on_cpu)
        return self.info

    # In a thread: it takes from seconds to minutes

    def _start(self, load: LoadOptions, pooling: str | None) -> tuple[Sequence[Any], int, bool]:
        os.environ.update(environment(load, os.environ))
        printed = Printed()
        try:
            return self._start_engine(load, pooling)
        except ModelComposeError:
            raise
        except Exception as error:
            why = printed.reason() if _is_vague(error) else None
            raise ModelLoadError(
                f"vLLM cannot load `{_origin(load)}`: {why or _first_lines(error)}",
                hint=_hint(str(why or error)),
            ) from error
        finally:
            printed.release()

    def _start_engine(self, load: LoadOptions, pooling: str | None) -> tuple[Sequence[Any], int, bool]:
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.platforms import current_platform
            from vllm.usage.usage_lib import UsageContext
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise DriverMissing(
                f"`vllm` cannot be imported: {error}",
                hint="it needs a Python environment of its own: see `runtime` of the component",
            ) from error
        names = {field.name for field in fields(AsyncEngineArgs)}
        on_cpu = current_platform.is_cpu()
        gpus = 0 if on_cpu else current_platform.device_count()
        installed = Installed(importlib.metadata.version("vllm"), names, on_cpu, gpus)
        adapters: Sequence[Any] = ()
        if load.adapters:
            from model_compose.drivers.huggingface.lora_blends import Adapter

            adapters = [Adapter(each) for each in load.adapters]
        given = arguments(load, installed, [adapter.rank for adapter in adapters])
        if pooling is not None:
            from vllm.config import PoolerConfig

            given["pooler_config"] = PoolerConfig(seq_pooling_type=pooling)
        config = AsyncEngineArgs(**given).create_engine_config(UsageContext.OPENAI_API_SERVER)
        self._engine = engine = AsyncLLM.from_vllm_config(
            config,
            usage_context=UsageContext.OPENAI_API_SERVER,
            stat_loggers=[self._counts.logger],
            disable_log_stats=True,
        )
        self.tokenizer = engine.get_tokenizer()
        self.context = int(config.model_config.max_model_len)
        slots = int(config.scheduler_config.max_num_seqs)
        # Its threads wait for readers that are slow, and one reader never waits for another.
        self._handing_over = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="slow-reader")
        parallel = config.parallel_config
        self.info = ModelInfo(
            slots=slots,
            threads=load.threads if on_cpu else 1,
            context_length=self.context,
            details={
                "architecture": str(config.model_config.architecture),
                "device": f"cpu, {load.threads} threads" if on_cpu else _devices(parallel, current_platform),
                "precision": str(config.model_config.dtype).removeprefix("torch."),
                "quantization": str(config.model_config.quantization or "none"),
                "engine": f"vLLM {installed.version}",
            },
        )
        return adapters, int(given.get("max_lora_rank", 0)), on_cpu

    async def _load_adapters(self, adapters: Sequence[Any], room: int, folder: Path, on_cpu: bool) -> None:
        from model_compose.drivers.vllm.adapters import Blends

        self.blends = Blends(self._engine, adapters, room, folder, on_cpu=on_cpu)
        try:
            await self.blends.check()
        except Exception as error:
            raise ModelLoadError(
                f"vLLM cannot load the adapters: {_first_lines(error)}",
                hint="merge them into the weights: `model-compose merge`",
            ) from error

    # While it runs

    async def _watch(self) -> None:
        """End this process when the engine's has ended: whoever looks after it starts another one."""
        while not self._engine.errored:  # noqa: ASYNC110  the engine has no event for it
            await asyncio.sleep(_LOOK_EVERY_S)
        self._die()

    def _die(self) -> None:
        sys.stderr.write(f"{_ENDED}\n")
        sys.stderr.flush()
        self._end_process(1)

    async def serve(self, work: Coroutine[Any, Any, Result], cancel: CancelToken) -> Result:
        """Do the work of a request, until its caller goes away. Raises Cancelled then."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)

        def leave() -> None:
            loop.call_soon_threadsafe(task.cancel)

        cancel.on_cancel(leave)
        try:
            with self._errors_told():
                return await task
        except asyncio.CancelledError:
            if cancel.cancelled:
                raise Cancelled("the caller went away") from None
            task.cancel()
            raise

    @contextlib.contextmanager
    def _errors_told(self) -> Iterator[None]:
        """What the engine raises, as errors of ours."""
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        try:
            yield
        except EngineDeadError as error:
            self._die()
            raise WorkerDied(_ENDED) from error
        except VLLMClientError as error:
            raise InvalidInput(f"vLLM: {_first_lines(error)}") from error
        except EngineGenerateError as error:
            raise EngineError(f"vLLM: {_first_lines(error.__cause__ or error)}") from error

    @contextlib.asynccontextmanager
    async def adapter(self, weights: Mapping[str, float] | None) -> AsyncIterator[Any]:
        """The engine's name for a blend of adapters, None for none. Raises InvalidInput."""
        if self.blends is None:
            for name in weights or {}:
                raise InvalidInput(f"there is no adapter `{name}`; there are: none", field="adapters")
            yield None
            return
        async with self.blends.using(weights) as chosen:
            yield chosen

    async def generate(
        self, tokens: Sequence[int], params: Any, adapter: Any, *, aside: bool = False
    ) -> AsyncGenerator[Any, None]:
        """What comes of a prompt, piece by piece.

        aside  checking the parameters takes long enough to be done beside the loop: a schema is among them
        """
        prompt: dict[str, Any] = {"prompt_token_ids": list(tokens)}
        if not aside:
            prompt["type"] = "token"  # it needs no preparation, so none is made in a thread
        name = f"request-{next(self._numbers)}"
        try:
            stream = self._engine.generate(prompt, params, name, lora_request=adapter)
            async with contextlib.aclosing(stream) as outputs:
                async for output in outputs:
                    yield output
        except asyncio.CancelledError:
            # The engine has been told, unless it was only just taking the request in.
            await self._engine.abort(name)
            raise

    async def encode(self, tokens: Sequence[int], params: Any, adapter: Any) -> Any:
        """What a model that reads gives for a text: a tensor."""
        prompt = {"prompt_token_ids": list(tokens), "type": "token"}
        name = f"request-{next(self._numbers)}"
        found: Any = None
        try:
            async for output in self._engine.encode(prompt, params, name, lora_request=adapter):
                found = output.outputs.data
        except asyncio.CancelledError:
            await self._engine.abort(name)
            raise
        if found is None:
            raise EngineError("vLLM gave nothing for the text")
        return found

    async def hand_over(self, sink: Sink, chunks: Sequence[Any]) -> None:
        """Pass on what a slow reader has not taken, as fast as it reads."""

        def emit() -> None:
            for chunk in chunks:
                if not sink.emit(chunk):
                    return

        await asyncio.get_running_loop().run_in_executor(self._handing_over, emit)

    @property
    def hf_config(self) -> Any:
        """The model's configuration, as transformers reads it."""
        return self._engine.model_config.hf_config

    @property
    def vocabulary(self) -> int:
        """How many different tokens there are."""
        return int(self._engine.model_config.get_vocab_size())

    def metrics(self) -> Mapping[str, float]:
        """Counters and gauges of the engine."""
        return dict(self._counts.values)

    def memory(self) -> Mapping[str, int]:
        """Bytes that all processes of the engine have in RAM."""
        return {"host": sum(map(_resident, _family(os.getpid())))}

    async def close(self) -> None:
        """Stop the engine."""
        if self._watching is not None:
            self._watching.cancel()
        if self._engine is not None:
            await asyncio.to_thread(self._engine.shutdown, _SHUTDOWN_S)
        if self._handing_over is not None:
            self._handing_over.shutdown(wait=False, cancel_futures=True)


class Counts:
    """What the engine counts, by our names; `logger` is what the engine makes one of that tells us."""

    def __init__(self) -> None:
        self.values = dict.fromkeys(
            (
                *("prompt_tokens_total", "cached_tokens_total", "generation_tokens_total"),
                *("requests_running", "requests_waiting", "preemptions_total", "cache_usage"),
            ),
            0.0,
        )

    def logger(self, config: Any, index: int = 0) -> Any:
        """A logger for one engine."""
        from vllm.v1.metrics.loggers import StatLoggerBase

        counts = self

        class Logger(StatLoggerBase):  # type: ignore[misc,unused-ignore]
            def __init__(self, vllm_config: Any, engine_index: int = 0) -> None: ...

            def record(
                self,
                scheduler_stats: Any,
                iteration_stats: Any,
                mm_cache_stats: Any = None,
                engine_idx: int = 0,
            ) -> None:
                counts.note(scheduler_stats, iteration_stats)

            def log_engine_initialized(self) -> None: ...

        return Logger(config, index)

    def note(self, scheduler: Any, iteration: Any) -> None:
        """One step of the engine."""
        values = self.values
        if scheduler is not None:
            values["requests_running"] = scheduler.num_running_reqs
            values["requests_waiting"] = scheduler.num_waiting_reqs + scheduler.num_skipped_waiting_reqs
            values["cache_usage"] = scheduler.kv_cache_usage
        if iteration is not None:
            values["prompt_tokens_total"] += iteration.prompt_token_stats.total
            values["cached_tokens_total"] += iteration.prompt_token_stats.cached_tokens
            values["generation_tokens_total"] += iteration.num_generation_tokens
            values["preemptions_total"] += iteration.num_preempted_reqs


def _devices(parallel: Any, platform: Any) -> str:
    count = parallel.tensor_parallel_size * parallel.pipeline_parallel_size
    name = platform.get_device_name()
    return f"{count} times {name}" if count > 1 else str(name)


def _origin(load: LoadOptions) -> str:
    return load.source.origin if load.source is not None else ""


def _is_vague(error: Exception) -> bool:
    """Whether an error only says that something else has said why."""
    return "root cause" in str(error) or isinstance(error, TimeoutError)


def _first_lines(error: BaseException) -> str:
    """What an error says, without the pages that some libraries add."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith("For further information")][:4]
    return "; ".join(kept) or type(error).__name__


def _hint(why: str) -> str | None:
    """What to do about the reasons that are met most."""
    if "trust_remote_code" in why or "custom code" in why:
        return "this driver does not run code that comes with weights: use driver `huggingface`"
    if "Available memory" in why or "KV cache" in why or "out of memory" in why:
        return "lower `options.kv_cache_memory_bytes`, `max_model_len` or `gpu_memory_utilization`"
    return None


def _family(process: int) -> Iterator[int]:
    """A process and all that it has started, which the kernel tells of each of its threads."""
    yield process
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(OSError):
                for child in (thread / "children").read_text().split():
                    yield from _family(int(child))


def _resident(process: int) -> int:
    """What of a process lies in RAM."""
    try:
        pages = (Path(f"/proc/{process}") / "statm").read_text().split()
    except OSError:
        return 0
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE")
