"""What is a run, from the request that asked for it to its end?"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, Literal

import msgspec
from ulid import ULID

from model_compose.components.streams import Stream
from model_compose.compose.store import JobTiming, RunRecord, RunState, packed
from model_compose.config.schema import SYNTHESISED_JOB
from model_compose.drivers.contract import Outcome
from model_compose.errors import Cancelled, EngineError, ModelComposeError
from model_compose.types import FinishReason, Usage, for_json, plain
from model_compose.workflows.context import JobState

#: Events that somebody who watches a run may be behind; older ones are lost to them.
MOST_EVENTS: Final = 4096

EventName = Literal["job", "progress", "chunk", "end"]


class RunEvent(msgspec.Struct, frozen=True):
    """Something that happened in a run. `data` is JSON."""

    name: EventName
    data: Any


class Run:
    """One execution of a workflow. It ends exactly once: completed, failed or cancelled.

    It is also the context that components and the workflow see.
    """

    def __init__(
        self,
        workflow_id: str,
        on_end: Callable[[Run], None],
        task_id: str | None = None,
        owner: str | None = None,
    ) -> None:
        self.owner = owner
        self.id = task_id or str(ULID())
        self.workflow_id = workflow_id
        self.status: RunState = "pending"
        self.created = time.time()
        self.started: float | None = None
        self.finished: float | None = None
        self.output: Any = None
        self.error: ModelComposeError | None = None
        self.usage: Usage | None = None
        self.finish_reason: FinishReason | None = None
        self.jobs: dict[str, JobTiming] = {}
        self.admitted = False
        self.stored = False
        self.holds_place = False
        self.began = False
        #: Called once, when a model begins to work on it.
        self.on_began: Callable[[], object] | None = None
        #: Called with how far a call is, whenever it says so.
        self.on_progress: Callable[[int, int], object] | None = None
        #: What executes it, to be cancelled; and why it was, if it was.
        self.task: asyncio.Task[Any] | None = None
        self.reason: ModelComposeError | None = None
        self._on_end = on_end
        self._encoded: bytes | None = None
        self._done = asyncio.Event()
        self._watchers: list[_Watcher] = []
        self._pieces: list[Any] = []

    @property
    def run_id(self) -> str:
        """The id, as components know it."""
        return self.id

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.finished is not None

    def cancel(self, reason: ModelComposeError) -> None:
        """End it, from outside; one that does not execute yet never will."""
        if not self.ended:
            self.reason = self.reason or reason
            if self.task is not None:
                self.task.cancel()

    async def wait(self) -> None:
        """Wait until it has ended."""
        await self._done.wait()

    # The context of components and workflows

    def served(self) -> None:
        """Note that a model works on it."""
        if not self.began:
            self.began = True
            self.status = "processing"
            if self.on_began is not None:
                self.on_began()

    def spent(self, outcome: Outcome) -> None:
        """Note what a call to a model cost."""
        if outcome.usage is not None:
            self.usage = outcome.usage if self.usage is None else self.usage + outcome.usage
        self.finish_reason = outcome.finish_reason or self.finish_reason

    def progress(self, done: int, total: int) -> None:
        """Note how far a call is."""
        self._tell("progress", {"done": done, "total": total})
        if self.on_progress is not None:
            self.on_progress(done, total)

    def job(self, name: str, state: JobState, *, attempt: int = 1, error: str | None = None) -> None:
        """Note the state of a job; when it has ended, nobody is told any more."""
        if self._done.is_set():
            return
        now = time.time()
        timing = self.jobs.get(name)
        if timing is None:
            timing = self.jobs[name] = JobTiming(state)
        if state == "processing" and attempt == 1:
            timing.started = now
        timing.state, timing.error = state, error
        timing.attempts = 0 if state == "skipped" else attempt
        timing.finished = None if state in ("processing", "retrying") else now
        if self._watchers:
            self._tell("job", {"id": name, **msgspec.to_builtins(timing)})

    # Its course

    def begin(self) -> None:
        """It executes now, in the current task. Raises CancelledError if it was cancelled before."""
        if self.reason is not None:
            raise asyncio.CancelledError
        if not self.stored:
            self.status = "processing"
        self.started = time.time()
        self.task = asyncio.current_task()

    def complete(self, output: Any) -> None:
        """It ended well, unless it has ended; it has failed if the output cannot be written as JSON."""
        if not self.ended:
            self.output = output
            self._end("completed")

    def fail(self, error: BaseException) -> None:
        """It ended with an error, unless it has ended; a cancellation has its reason in `reason`."""
        if self.ended:
            return
        if isinstance(error, asyncio.CancelledError):
            error = self.reason or Cancelled("the caller went away")
        known = isinstance(error, ModelComposeError)
        self.error = error if known else ModelComposeError(f"{type(error).__name__}: {error}")  # type: ignore[assignment]
        self._end("cancelled" if isinstance(error, Cancelled) else "failed")

    def _end(self, status: Literal["completed", "failed", "cancelled"]) -> None:
        self.status, self.finished = status, time.time()
        try:
            self.encoded()
        except (OverflowError, RecursionError, TypeError, ValueError) as error:
            status = self.status = "failed"
            self.output = None
            self.error = EngineError(f"the output cannot be written as JSON: {error}")
        for name, timing in self.jobs.items():
            if timing.state in ("processing", "retrying"):
                # It is the one that streamed: the others have ended by now.
                self.job(name, status, attempt=timing.attempts)
        if self._watchers:
            self._tell("end", self._for_json())
        self._done.set()
        self._on_end(self)

    async def follow(self, stream: Stream) -> AsyncGenerator[list[Any]]:
        """The pieces of its output, which end it; `output` is then what they make together.

        Whoever does not iterate it to its end closes it, which cancels the run.
        """
        reader = stream.reader()
        kept = self._pieces
        try:
            async for pieces in reader:
                if self._watchers:
                    for piece in pieces:
                        self._tell("chunk", for_json(piece))
                kept += pieces
                yield pieces
            self.complete(await stream.whole(kept))
            if self.error is not None:
                raise self.error
        except GeneratorExit:
            self.fail(asyncio.CancelledError())
            raise
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            await stream.aclose()

    def record(self) -> RunRecord:
        """The run as others see it; files in its output are still files."""
        return self._record(plain(self.output))

    def packed(self) -> bytes:
        """The record of a run that has ended, to be read by `unpacked`."""
        return packed(self.record(), self.encoded())

    def _record(self, output: Any) -> RunRecord:
        info = self.error.info() if self.error else None
        usage = self.usage
        return RunRecord(
            task_id=self.id,
            workflow_id=self.workflow_id,
            status=self.status,
            output=output,
            error=info.message if info else None,
            error_type=info.code if info else None,
            hint=info.hint if info else None,
            jobs=self._jobs(),
            usage=usage_map(usage) if usage else None,
            finish_reason=self.finish_reason,
            owner=self.owner,
            created=self.created,
            started=self.started,
            finished=self.finished,
        )

    def _jobs(self) -> dict[str, JobTiming] | None:
        """Its jobs; where it is one call, and no job was written, there is nothing to say of them."""
        return None if SYNTHESISED_JOB in self.jobs and len(self.jobs) == 1 else self.jobs or None

    def encoded(self) -> bytes:
        """The record as JSON; made once when the run has ended."""
        if self._encoded is None or not self.ended:
            self._encoded = msgspec.json.encode(self._record(for_json(self.output)))
        return self._encoded

    def _for_json(self) -> dict[str, Any]:
        return msgspec.to_builtins(self._record(for_json(self.output)))  # type: ignore[no-any-return]

    # Those who watch

    async def events(self) -> AsyncGenerator[RunEvent]:
        """What happens from now on, after the state of its jobs and its output so far; ends with `end`."""
        watcher = _Watcher()
        for name, timing in self.jobs.items():
            watcher.put(RunEvent("job", {"id": name, **msgspec.to_builtins(timing)}))
        if self.ended:
            watcher.put(RunEvent("end", self._for_json()))
        else:
            for piece in _joined(for_json(self._pieces)):
                watcher.put(RunEvent("chunk", piece))
        self._watchers.append(watcher)
        try:
            while True:
                event = await watcher.next()
                yield event
                if event.name == "end":
                    return
        finally:
            self._watchers.remove(watcher)

    def _tell(self, name: EventName, data: Any) -> None:
        for watcher in self._watchers:
            watcher.put(RunEvent(name, data))


class _Watcher:
    def __init__(self) -> None:
        self._events: deque[RunEvent] = deque(maxlen=MOST_EVENTS)
        self._arrived = asyncio.Event()

    def put(self, event: RunEvent) -> None:
        self._events.append(event)
        self._arrived.set()

    async def next(self) -> RunEvent:
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        return self._events.popleft()


def _joined(pieces: list[Any]) -> list[Any]:
    """The same with texts that follow each other in one piece."""
    groups = itertools.groupby(pieces, key=lambda piece: isinstance(piece, str))
    return [each for text, group in groups for each in (["".join(group)] if text else group)]


def usage_map(usage: Usage) -> dict[str, int]:
    """Usage under the names that OpenAI's API made common."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cached_tokens": usage.cached_tokens,
    }
