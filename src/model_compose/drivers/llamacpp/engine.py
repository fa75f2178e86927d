"""How do we load and call llama.cpp?

xllamacpp carries llama.cpp's server, continuous batching included, inside this process. It also
listens for HTTP; we let it listen on a Unix socket in a private folder, because tokenizing is only to
be had there. Its calls block and release the GIL, so each runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from model_compose.drivers.contract import LoadOptions, LoadProgress, ModelInfo
from model_compose.drivers.llamacpp import gguf
from model_compose.drivers.llamacpp.size import Layout, layout, model_file
from model_compose.drivers.llamacpp.spec import LlamaCppOptions
from model_compose.errors import DriverMissing, EngineError, InvalidInput, ModelLoadError, RequestTooLong

#: llama.cpp prints errors, and nothing else.
_ERRORS_ONLY: Final = 1
_ALL_LAYERS: Final = 10_000
#: Stands before an error in what it prints.
_ERROR: Final = " E "
_REASON_WITHIN_S: Final = 1.0

_WRONG_TOOLS: Final = "Failed to parse tools"

_METRICS: Final = {
    "llamacpp:prompt_tokens_total": "prompt_tokens_total",
    "llamacpp:prompt_tokens_cached_total": "cached_tokens_total",
    "llamacpp:tokens_predicted_total": "generation_tokens_total",
    "llamacpp:requests_processing": "requests_running",
    "llamacpp:requests_deferred": "requests_waiting",
}


class LlamaCpp:
    """One loaded model. `info` and `adapters` hold from `load` on."""

    def __init__(self) -> None:
        self.info = ModelInfo(slots=1)
        self.adapters: dict[str, float] = {}
        self.architecture = ""
        self.vocabulary = 0
        self._server: Any = None
        self._threads: ThreadPoolExecutor | None = None
        self._folder: str | None = None
        self._embeds = False
        self._served = False
        self._knows_tools: bool | None = None

    async def load(
        self, options: LoadOptions, progress: LoadProgress, *, embedding: bool = False
    ) -> ModelInfo:
        """Load the weights, and warm up if that is asked for. Raises ModelLoadError, DriverMissing."""
        progress("weights", 0, 1)
        info = await asyncio.to_thread(self._load, options, embedding)
        if options.warmup:
            progress("warm-up", 0, 1)
            await self.call(self.warm_up)
        return info

    def _load(self, load: LoadOptions, embedding: bool) -> ModelInfo:
        try:
            import xllamacpp
        except ImportError as error:
            raise DriverMissing(f"`xllamacpp` cannot be imported: {error}") from error
        assert load.source is not None
        options = msgspec.convert(load.options, LlamaCppOptions)
        if options.prompt_cache_mib and load.adapters:
            raise ModelLoadError(
                "`options.prompt_cache_mib` cannot be used with `peft_adapters`",
                hint="llama.cpp would reuse a prompt that was computed with other adapter weights",
            )
        path = model_file(Path(load.source.path))
        model = gguf.read(path)
        self.architecture, self.vocabulary = model.architecture, model.vocabulary
        if model.embeds and not embedding:
            raise ModelLoadError(f"`{path.name}` is an embedding model", hint="use `task: text-embedding`")
        gpus = _gpus(xllamacpp, load.device)
        gpu_layers = 0 if not gpus else _ALL_LAYERS if options.gpu_layers is None else options.gpu_layers
        plan = layout(model, load.batch_size, options, on_gpu=gpu_layers > 0)
        threads = min(options.threads or load.threads, load.threads)
        self._folder = tempfile.mkdtemp(dir=load.scratch)
        params = _params(xllamacpp, path, options, plan, threads, gpu_layers)
        if ":" in load.device:  # one of several; llama.cpp spreads the layers over all otherwise
            params.split_mode = xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_NONE
            params.main_gpu = int(load.device.partition(":")[2])
        params.hostnames = [os.path.join(self._folder, "engine.sock")]  # noqa: PTH118  it wants a str
        if embedding:
            _embed(xllamacpp, params, model, options, plan)
        for adapter in load.adapters:
            lora = xllamacpp.CommonAdapterLoraInfo()
            lora.path, lora.scale = adapter.source.path, 0.0
            # Appending to the property's copy would be lost.
            params.lora_adapters = [*params.lora_adapters, lora]
            self.adapters[adapter.name] = adapter.weight
        self._start(xllamacpp, params, path)
        self._threads = ThreadPoolExecutor(plan.slots, "llamacpp")
        self._embeds = embedding
        self.info = ModelInfo(
            slots=plan.slots,
            threads=1 if gpu_layers else threads,
            context_length=plan.context_length,
            details=_details(model, gpu_layers, threads, options),
        )
        return self.info

    def _start(self, xllamacpp: Any, params: Any, path: Path) -> None:
        printed: list[str] = []
        try:
            with _stderr(printed):
                self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            reasons = [line.split(_ERROR, 1)[1].strip() for line in printed if _ERROR in line]
            reason = reasons[0].split(": ", 1)[-1] if reasons else str(error)
            raise ModelLoadError(
                f"llama.cpp cannot load `{path.name}`: {reason}",
                hint="if the file is incomplete, remove it (`model-compose cache rm`) and pull it again",
            ) from error

    async def call(self, work: Callable[[], Any]) -> Any:
        """Run a blocking call of the engine in one of its threads."""
        assert self._threads is not None
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def stream(self, kind: str, payload: Mapping[str, Any], take: Callable[[dict[str, Any]], bool]) -> None:
        """Send one request and pass on each piece; blocks. `take` says False to stop it.

        kind  `completions` or `chat_completions`
        Raises InvalidInput, RequestTooLong, EngineError, and whatever `take` raises.
        """
        raised: list[BaseException] = []

        def on_piece(piece: dict[str, Any]) -> bool:
            # An exception in here would be swallowed by the engine.
            try:
                if "error" in piece:
                    raise _error(piece["error"])
                return not take(piece)
            except BaseException as error:  # noqa: BLE001  raised again below
                raised.append(error)
                return True

        request = {
            **payload,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_progress": True,
        }
        try:
            answer = getattr(self._server, f"handle_{kind}")(request, on_piece)
        except ValueError as error:
            raise _invalid(str(error)) from error
        except RuntimeError as error:
            raise _error({"message": error}) from error
        self._served = True
        if raised:
            raise raised[0]
        if isinstance(answer, dict) and "error" in answer:
            raise _error(answer["error"])

    def embeddings(self, texts: list[Any], normalize: int) -> dict[str, Any]:
        """Embed texts or token lists; blocks. Raises RequestTooLong, EngineError."""
        answer = self._server.handle_embeddings({"input": texts, "embd_normalize": normalize})
        self._served = True
        if "error" in answer:
            raise _error(answer["error"])
        return dict(answer)

    def warm_up(self) -> None:
        """Compute a token; blocks."""
        if self._embeds:
            self.embeddings(["Hello"], normalize=-1)
        else:
            self.stream("completions", {"prompt": "Hello", "max_tokens": 1}, lambda piece: True)

    def knows_tools(self) -> bool:
        """Whether the chat template shows tools to the model; blocks. Others pass them over in silence."""
        if self._knows_tools is None:
            self._knows_tools = bool(self._ask("GET", "/props")["chat_template_caps"]["supports_tools"])
        return self._knows_tools

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Ask the engine's own listener (`/tokenize`, `/apply-template`); blocks. Raises EngineError."""
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        assert self._folder is not None
        connection = http.client.HTTPConnection("engine")
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.sock.connect(f"{self._folder}/engine.sock")
            given = None if body is None else json.dumps(body)
            connection.request(method, path, given, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        except OSError as error:
            raise EngineError(f"llama.cpp does not answer {path}: {error}") from error
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise _error(answer.get("error", {}))
        return answer

    def check_schema(self, schema: Any) -> None:
        """Raise InvalidInput for a JSON Schema that cannot be followed; blocks.

        Completions would print the mistake and then generate whatever they like.
        """
        form = {"type": "json_schema", "json_schema": {"schema": schema}}
        self.post("/apply-template", {"messages": [{"role": "user", "content": ""}], "response_format": form})

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text, with those that the model wants at its beginning; blocks."""
        body = {"content": text, "add_special": True, "parse_special": True}
        return list(self.post("/tokenize", body)["tokens"])

    def blend(self, weights: Mapping[str, float] | None) -> list[dict[str, Any]]:
        """Weights of the adapters of one request, as the engine wants them. Raises InvalidInput."""
        for name in weights or {}:
            if name not in self.adapters:
                known = ", ".join(f"`{n}`" for n in self.adapters) or "none"
                raise InvalidInput(f"there is no adapter `{name}`; there are: {known}", field="adapters")
        chosen = (
            self.adapters if weights is None else {name: weights.get(name, 0.0) for name in self.adapters}
        )
        # Without an entry for it an adapter keeps the scale of its file, so each is named.
        return [{"id": i, "scale": scale} for i, scale in enumerate(chosen.values())]

    def metrics(self) -> dict[str, float]:
        """Counters of the engine."""
        values = {}
        for line in self._server.handle_metrics().splitlines():
            name, _, value = line.partition(" ")
            if name in _METRICS:
                values[_METRICS[name]] = float(value)
        return values

    async def close(self) -> None:
        """Stop the engine; calls must have ended."""
        if self._server is not None and not self._served:
            # A server that never served hangs in its destructor (xllamacpp 2026.10).
            await self.call(self.warm_up)
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        self._server = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _params(
    xllamacpp: Any, path: Path, options: LlamaCppOptions, plan: Layout, threads: int, gpu_layers: int
) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = plan.context_length * plan.slots
    params.n_parallel = plan.slots
    params.n_batch = max(plan.prompt_batch, plan.slots)
    params.n_ubatch = min(params.n_batch, 512)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = gpu_layers
    params.flash_attn_type = getattr(
        xllamacpp.llama_flash_attn_type,
        {"auto": "LLAMA_FLASH_ATTN_TYPE_AUTO", "on": "LLAMA_FLASH_ATTN_TYPE_ENABLED"}.get(
            options.flash_attention, "LLAMA_FLASH_ATTN_TYPE_DISABLED"
        ),
    )
    params.cache_type_k = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{options.key_cache_type.upper()}")
    params.cache_type_v = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{options.value_cache_type.upper()}")
    params.cache_ram_mib = options.prompt_cache_mib
    params.rope_freq_base = options.rope_frequency_base or 0.0
    params.rope_freq_scale = options.rope_frequency_scale or 0.0
    params.verbosity = _ERRORS_ONLY
    params.ui = False
    params.endpoint_metrics = True
    params.fit_params = False  # what the file says is what runs, or an error
    params.lora_init_without_apply = True
    if options.chat_template is not None:
        params.chat_template = options.chat_template
    return params


def _embed(xllamacpp: Any, params: Any, model: gguf.Gguf, options: LlamaCppOptions, plan: Layout) -> None:
    params.embedding = True
    if options.pooling is not None:
        name = f"LLAMA_POOLING_TYPE_{options.pooling.upper()}"
        params.pooling_type = getattr(xllamacpp.llama_pooling_type, name)
    elif not model.embeds:
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    # A text is computed in one piece, so a batch must hold the longest.
    params.n_batch = params.n_ubatch = max(plan.context_length, params.n_batch)


def _gpus(xllamacpp: Any, device: str) -> list[str]:
    """Devices for layers, beside the CPU. Raises ModelLoadError naming what exists if `device` is none."""
    found = [each["name"] for each in xllamacpp.get_device_info() if each["name"] != "CPU"]
    if device == "cpu" or (device == "auto" and not found):
        return []
    if not found:
        raise ModelLoadError(
            f"there is no device `{device}`: this build of llama.cpp computes on the CPU only",
            hint="use `device: cpu`, or install an xllamacpp wheel that was built for your GPU",
        )
    if int(device.partition(":")[2] or 0) >= len(found):
        raise ModelLoadError(f"there is no device `{device}`: llama.cpp sees `{'`, `'.join(found)}`")
    return found


def _details(model: gguf.Gguf, gpu_layers: int, threads: int, options: LlamaCppOptions) -> dict[str, str]:
    own = "of the component" if options.chat_template else "of the file" if model.chat_template else "ChatML"
    return {
        "architecture": model.architecture,
        "device": "gpu" if gpu_layers else f"cpu, {threads} threads",
        **({} if model.embeds else {"chat_template": own}),
    }


def _error(error: Mapping[str, Any]) -> Exception:
    """An error of the engine as ours; it gives them as values, not as exceptions."""
    message = str(error.get("message", "unknown error"))
    if error.get("type") == "exceed_context_size_error":
        size, limit = int(error.get("n_prompt_tokens", 0)), int(error.get("n_ctx", 0))
        return RequestTooLong(
            f"the prompt has {size} tokens, and the context holds {limit}",
            size=size,
            limit=limit,
            hint="shorten it, set `truncate: true`, or raise `options.context_length`",
        )
    if error.get("type") == "invalid_request_error" or _WRONG_TOOLS in message:
        return _invalid(message)
    return EngineError(f"llama.cpp: {message}")


def _invalid(message: str) -> InvalidInput:
    if "JSON schema error" in message:
        return InvalidInput(
            "JSON schema error" + message.split("JSON schema error")[-1], field="response_format"
        )
    if _WRONG_TOOLS in message:
        return InvalidInput(f"llama.cpp: {message}", field="tools")
    return InvalidInput(f"llama.cpp: {message}")


@contextlib.contextmanager
def _stderr(lines: list[str]) -> Iterator[None]:
    """Collect what C++ prints to file descriptor 2, and print it when that is over."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except RuntimeError:
            _await_reason(file)
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            text = file.read().decode(errors="replace")
            lines += text.splitlines()
            os.write(2, text.encode())


def _await_reason(file: IO[bytes]) -> None:
    """Wait until the engine has said why it failed: its log is printed by a thread of its own."""
    ends = time.monotonic() + _REASON_WITHIN_S
    while time.monotonic() < ends:
        file.seek(0)
        if _ERROR.encode() in file.read():
            return
        time.sleep(0.01)
