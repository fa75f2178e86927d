"""How does a language model serve many callers at once?

One thread owns the device. It computes prompts and next tokens in turns, all sequences together
(`lineup.py` decides which), so that a caller joins and leaves between any two tokens and a long prompt
holds up nobody for long. What this loop cannot do, beams and architectures that keep no keys and values in
the usual way, is done by the library's own `generate` (`whole.py`), one request at a time and between
its steps.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch

from model_compose.drivers.huggingface import masks
from model_compose.drivers.huggingface.cache import SlotCache
from model_compose.drivers.huggingface.lineup import Lineup, Prompt
from model_compose.drivers.huggingface.load import Loaded
from model_compose.drivers.huggingface.lora import Blending
from model_compose.drivers.huggingface.memory import out_of_memory, release
from model_compose.errors import Cancelled, EngineError, OutOfMemory
from model_compose.tasks.text_generation.huggingface import whole
from model_compose.tasks.text_generation.huggingface.output import Output
from model_compose.tasks.text_generation.huggingface.sampling import choose, log_probabilities, not_finite

#: Of the differences between a pass through the cache and a plain one, relative to the largest logit.
_TOLERANCE: Final = 0.05
#: What architectures raise that are not called as we do it.
_CANNOT: Final = (TypeError, ValueError, RuntimeError, IndexError, AttributeError, NotImplementedError)


class Loop:
    """Serves outputs of one model; all of its methods may be called from any thread.

    max_rows     sequences in one forward pass
    cache_bytes  what keys and values may take
    """

    def __init__(
        self,
        loaded: Loaded,
        adapters: Blending | None,
        *,
        max_rows: int,
        cache_bytes: int,
        prompt_batch: int,
        threads: int,
    ) -> None:
        self._model = loaded.model
        self._loaded = loaded
        self._adapters = adapters
        self._forward = masks.Forward(loaded.model)
        cells = max(1, cache_bytes // masks.cell_bytes(loaded.config, loaded.dtype))
        self._lineup: Lineup[Output] = Lineup(max_rows, cells, prompt_batch)
        self._cache = SlotCache(cells)
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._blend: list[tuple[float, ...]] | None = None
        self._tried_again: set[Output] = set()
        self._alone: list[whole.Request] = []
        self._alone_now = 0
        self._counts = {"prompt_tokens_total": 0, "generation_tokens_total": 0}
        self._rows_total = self._steps_total = 0
        self._threads = threads
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    def start(self, *, share: bool = True) -> bool:
        """Begin to serve; -> whether sequences can share forward passes with this architecture.

        share  whether they may, where they can
        """
        torch.set_num_threads(self._threads)  # of this thread; the other one sets its own
        shares = share and masks.shares(self._loaded.config) and self._agrees()
        if not share and not self._loaded.config.is_encoder_decoder:
            self._require_finite()
        self._thread.start()
        return shares

    def submit(self, output: Output) -> None:
        """Serve an output beside the others."""
        self._commands.put(lambda: self._lineup.add(output))

    def submit_alone(self, request: whole.Request) -> None:
        """Serve a request with the library's own `generate`."""
        self._commands.put(lambda: self._alone.append(request))

    def lease(self, threads: int, done: Callable[[], None]) -> None:
        """Compute with so many CPU threads from the next pass on, and say when that holds."""

        def change() -> None:
            torch.set_num_threads(threads)
            done()

        self._commands.put(change)

    def wake(self) -> None:
        """Have a look at who was cancelled."""
        self._commands.put(lambda: None)

    def close(self) -> None:
        """End the thread; what is under way ends as cancelled."""
        self._commands.put(None)
        self._thread.join()

    def metrics(self) -> Mapping[str, float]:
        """Counters and gauges."""
        running = len(self._lineup.running) + len(self._lineup.filling) + self._alone_now
        return {
            **self._counts,
            "requests_running": running,
            "requests_waiting": len(self._lineup.waiting) + len(self._alone),
            "batch_rows_total": self._rows_total,
            "batches_total": self._steps_total,
        }

    # The thread that owns the device

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        if self._loaded.device.type == "cuda":
            torch.cuda.set_device(self._loaded.device)  # of this thread: some kernels take it for theirs
        with torch.inference_mode():
            while self._obey(wait=not self._lineup and not self._alone):
                try:
                    self._advance()
                    if self._alone:
                        self._generate_alone(self._alone.pop(0))
                except Exception as error:  # noqa: BLE001  a mistake of ours: nobody may wait for ever
                    ended = EngineError(f"{type(error).__name__}: {error}")
                    ended.__cause__ = error
                    self._end_all(ended)
            self._end_all(Cancelled("the model is being unloaded"))

    def _end_all(self, error: BaseException) -> None:
        members = [*self._lineup.running, *self._lineup.filling, *self._lineup.waiting]
        requests, self._alone = self._alone, []
        for output in members:
            self._lineup.leave(output)
        self._cache.clear()
        for output in members:
            output.end(error)
        for request in requests:
            request.end(error)

    def _obey(self, *, wait: bool) -> bool:
        """Do what was asked meanwhile; -> whether to go on."""
        if wait:
            self._cache.clear()  # nobody is there: the next one may need the memory otherwise
        while True:
            try:
                command = self._commands.get(block=wait)
            except queue.Empty:
                return True
            if command is None:
                return False
            command()
            wait = False

    def _advance(self) -> None:
        """One pass over prompts and one over those that run, whichever there are."""
        self._drop_cancelled()
        prompt = self._lineup.prompt()
        if prompt is not None:
            self._try(lambda: self._compute_prompt(prompt), prompt.members)
        if self._lineup.running:
            running = list(self._lineup.running)
            self._try(lambda: self._compute_next(running), running)

    def _drop_cancelled(self) -> None:
        members = [*self._lineup.running, *self._lineup.filling, *self._lineup.waiting]
        for output in members:
            if output.cancelled:
                self._leave(output)
                output.end(Cancelled("the caller went away"))
        gone = [request for request in self._alone if request.outputs[0].cancelled]
        for request in gone:
            self._alone.remove(request)
            request.end(Cancelled("the caller went away"))

    def _try(self, compute: Callable[[], None], members: Sequence[Output]) -> None:
        """Compute a pass. One that runs out of memory is tried again with half of its sequences."""
        try:
            compute()
        except Exception as error:  # noqa: BLE001  it goes to those whose pass it was
            wrapped = out_of_memory(error, self._loaded.device) or error
            half = members[(len(members) + 1) // 2 :]
            again = isinstance(wrapped, OutOfMemory) and not self._tried_again.issuperset(members)
            if again and half:
                self._tried_again.update(members)
                self._cache.clear()
                release(self._loaded.device)
                self._lineup.start_over(len(members) - len(half))
                return
            for output in members:
                self._leave(output)
                output.end(wrapped)

    def _leave(self, output: Output) -> None:
        self._tried_again.discard(output)
        for move in self._lineup.leave(output):
            self._cache.move(*move)

    def _use(self, members: Sequence[Output]) -> None:
        """Weigh the adapters for the rows of the next pass."""
        if self._adapters is None:
            return
        blend = [output.blend for output in members]
        if blend != self._blend:
            self._adapters.use(blend)
            self._blend = blend

    def _compute_prompt(self, prompt: Prompt[Output]) -> None:
        start, width = prompt.start, prompt.width
        ids, positions = [], []
        for output in prompt.members:
            places = range(start - output.pad, start - output.pad + width)
            ids.append([output.tokens[place] if place >= 0 else 0 for place in places])
            positions.append([max(place, 0) for place in places])
        self._use(prompt.members)
        self._cache.aim(prompt.first_slot, [start] * len(prompt.members), width)
        pads = [output.pad for output in prompt.members]
        logits = self._forward(ids, positions, pads, [start] * len(ids), self._cache)
        self._counts["prompt_tokens_total"] += sum(
            width - max(0, output.pad - start) for output in prompt.members
        )
        self._lineup.prompted(prompt)
        if prompt.complete:
            self._choose(prompt.members, logits)

    def _compute_next(self, running: Sequence[Output]) -> None:
        self._use(running)
        starts = [output.cells for output in running]
        self._cache.aim(0, starts, 1)
        ids = [[output.tokens[-1]] for output in running]
        positions = [[output.length - 1] for output in running]
        logits = self._forward(ids, positions, [output.pad for output in running], starts, self._cache)
        for output in running:
            output.cells += 1
        self._rows_total += len(running)
        self._steps_total += 1
        self._choose(running, logits)

    def _choose(self, outputs: Sequence[Output], logits: torch.Tensor) -> None:
        told = [i for i, output in enumerate(outputs) if output.request.logprobs is not None]
        raw = logits[told].clone() if told else None
        tokens = choose(logits, [output.sampler for output in outputs])
        logprobs: dict[int, Any] = {}
        if raw is not None:
            most = max(outputs[i].request.logprobs or 0 for i in told)
            found = log_probabilities(raw, [max(tokens[i], 0) for i in told], most)
            for i, (value, rivals) in zip(told, found, strict=True):
                logprobs[i] = (value, rivals[: outputs[i].request.logprobs or 0])
        self._counts["generation_tokens_total"] += len(tokens)
        ended = []
        for i, (output, token) in enumerate(zip(outputs, tokens, strict=True)):
            if token < 0:
                self._cache.forget(self._lineup.running.index(output))
                self._leave(output)
                output.end(not_finite())
                continue
            output.take(token, logprobs.get(i))
            if output.finish_reason is not None:
                ended.append(output)
        for output in ended:
            self._leave(output)
            output.end()

    def _generate_alone(self, request: whole.Request) -> None:
        def between() -> None:
            self._obey(wait=False)
            self._advance()
            self._use_alone(request)

        error: BaseException | None = None
        self._alone_now = 1
        try:
            self._use_alone(request)
            whole.generate(self._loaded, request, between)
        except Exception as raised:  # noqa: BLE001  it goes to the one whose request it was
            error = out_of_memory(raised, self._loaded.device) or raised
        self._alone_now = 0
        self._counts["prompt_tokens_total"] += len(request.prompt)
        said = sum(len(output.tokens) - output.prompt_length for output in request.outputs)
        self._counts["generation_tokens_total"] += said
        request.end(error)

    def _use_alone(self, request: whole.Request) -> None:
        if self._adapters is not None:
            self._adapters.use([request.blend])
            self._blend = [request.blend]

    # Whether all of this holds for this model

    @torch.inference_mode()
    def _agrees(self) -> bool:
        """Compare passes through the cache, padded, cut and moved, with plain ones: logits must agree."""
        if self._adapters is not None:
            self._adapters.use([self._adapters.blend({})])
        size = min(int(self._loaded.config.get_text_config().vocab_size), 1000)
        texts = [[(7 * i + 3) % size for i in range(9)], [(5 * i + 1) % size for i in range(6)]]
        cache = SlotCache(0)
        try:
            plain = [self._plain(text) for text in texts]
            pads = [0, 3]
            ids = [[0] * pad + text[: 8 - pad] for pad, text in zip(pads, texts, strict=True)]
            places = [[max(0, i - pad) for i in range(8)] for pad in pads]
            for start, end in ((0, 5), (5, 8)):
                cache.aim(1, [start] * 2, end - start)
                self._forward(
                    [row[start:end] for row in ids],
                    [row[start:end] for row in places],
                    pads,
                    [start] * 2,
                    cache,
                )
            cache.move(1, 0, 8)
            cache.move(2, 1, 8)
            cache.aim(0, [8, 8], 1)
            found = self._forward([[text[-1]] for text in texts], [[8], [5]], pads, [8, 8], cache)
        except _CANNOT as error:
            self._raise_of_memory(error)
            return False
        return all(
            bool((a - b).abs().max() <= _TOLERANCE * b.abs().max()) for a, b in zip(found, plain, strict=True)
        )

    @torch.inference_mode()
    def _require_finite(self) -> None:
        """Raise EngineError where weights are too large for the number format, as `_agrees` does."""
        try:
            self._plain([1, 2, 3])
        except _CANNOT as error:
            self._raise_of_memory(error)

    def _raise_of_memory(self, error: Exception) -> None:
        memory = out_of_memory(error, self._loaded.device)
        if memory is not None:
            raise memory from None

    def _plain(self, text: Sequence[int]) -> torch.Tensor:
        ids = torch.tensor([list(text)], device=self._loaded.device)
        logits = self._model(input_ids=ids, use_cache=False).logits[0, -1].float()
        assert isinstance(logits, torch.Tensor)
        if not bool(logits.isfinite().all()):
            raise not_finite()
        return logits
