"""Which errors exist, and what does each of them know? (How one reads: see `frames.py`.)

Every error of ours is a `ModelComposeError`. `api/status.py` turns the classes into HTTP statuses
and `cli/main.py` into exit codes; nobody else translates.

    ModelComposeError
    ├── ConfigError            one mistake in a file, with its place
    │   └── UnknownName        ... a name that nothing answers to (did you mean ...)
    ├── ConfigErrors           all mistakes of a file, in one raise
    ├── BadRequest             a request that cannot be read at all
    ├── BodyTooLarge           a request with more bytes than are taken
    ├── Unauthorized           a caller without a key that is known
    ├── Forbidden              a caller who may not do this
    ├── InvalidInput           a request that cannot be served as it stands
    │   └── RequestTooLong     ... because it does not fit; names both numbers
    ├── NotFound               no such workflow, run or component
    ├── Overloaded             the queue is full; try again after `retry_after_s`
    ├── TimedOut               a limit of the file or the request ran out
    ├── Cancelled              the caller, or a sibling that failed, ended it
    ├── Interrupted            the service stopped while it ran
    ├── DriverMissing          a library, an extra or an environment is not installed
    ├── InstallFailed          an environment could not be made
    ├── SourceError            weights could not be had
    │   ├── SourceNotFound     ... no such repository, revision, package or file
    │   ├── AccessDenied       ... a token is missing or not enough
    │   ├── SourceOffline      ... no network, and not in the cache
    │   └── Corrupt            ... what came is not what was announced
    ├── ModelLoadError         weights are there, and the engine refuses them
    ├── ModelUnavailable       the component has failed, or was stopped
    ├── WorkerDied             the process that computed is gone
    ├── UpstreamError          a server that was called did not answer well
    ├── EngineError            the engine failed on one request
    │   └── OutOfMemory        ... because memory did not suffice for it; says how much did
    ├── CommandFailed          a command of the file ended with an error
    ├── WorkflowError          a workflow does not come to an end
    ├── ServiceError           the service could not start, or is not there to talk to
    └── Unsupported            known, but not done by this driver or this version
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self

import msgspec


class Place(msgspec.Struct, frozen=True):
    """Where a value stands: a file, 1-based line and columns, and the line itself.

    `end_column` is one past the last column of the value on that line.
    """

    file: str
    line: int
    column: int
    end_column: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Note(msgspec.Struct, frozen=True):
    """A second place that explains the first, such as where a key was written before."""

    message: str
    place: Place | None = None


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as it crosses a process border or goes into a JSON body."""

    code: str
    message: str
    hint: str | None = None
    data: dict[str, Any] = {}


class ModelComposeError(Exception):
    """What happened (`message`), where (`place`, `notes`) and what to do (`hint`).

    The message has no full stop after one sentence and puts values in backticks. Deep code raises
    without a place; `with at(place):` adds it on the way out.
    """

    code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        place: Place | None = None,
        notes: Sequence[Note] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.place = place
        self.notes = tuple(notes)

    def __str__(self) -> str:
        return self.message

    def data(self) -> dict[str, Any]:
        """What else a program may want to know; must survive JSON."""
        return {}

    def info(self) -> ErrorInfo:
        """This error as plain values."""
        return ErrorInfo(self.code, self.message, self.hint, self.data())


class ConfigError(ModelComposeError):
    """One mistake in a file."""

    code = "config_error"


class UnknownName(ConfigError):
    """A key, id or value that nothing answers to."""

    code = "unknown_name"

    @classmethod
    def of(cls, kind: str, name: str, valid: Iterable[str], where: str, place: Place | None) -> Self:
        """The usual message with the usual hint: a near miss, then everything that is valid."""
        return cls(f"unknown {kind} `{name}` in {where}", hint=did_you_mean(name, valid), place=place)


class ConfigErrors(ModelComposeError):
    """All mistakes of a file (or of several that were merged), in the order of the file."""

    code = "config_error"

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        self.errors = tuple(sorted(errors, key=_position))
        count = len(self.errors)
        super().__init__(f"{count} mistake{'s' if count != 1 else ''} in the configuration")


class BadRequest(ModelComposeError):
    """A request that cannot be read at all: broken JSON, an unknown media type."""

    code = "bad_request"


class BodyTooLarge(ModelComposeError):
    """A request with more bytes than are taken."""

    code = "body_too_large"


class Unauthorized(ModelComposeError):
    """A caller without a key, or with one that is not known."""

    code = "unauthorized"


class Forbidden(ModelComposeError):
    """A caller, or a web page, that may not do this."""

    code = "forbidden"


class InvalidInput(ModelComposeError):
    """A request that cannot be served as it stands; `field` is the path of what is wrong with it."""

    code = "invalid_input"

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field

    def data(self) -> dict[str, Any]:
        return {"field": self.field} if self.field is not None else {}


class RequestTooLong(InvalidInput):
    """A request that does not fit: `size` of it against the `limit`, both in `unit`."""

    code = "request_too_long"

    def __init__(
        self,
        message: str,
        *,
        size: int,
        limit: int,
        unit: str = "tokens",
        field: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, field=field, hint=hint)
        self.size, self.limit, self.unit = size, limit, unit

    def data(self) -> dict[str, Any]:
        return {**super().data(), "size": self.size, "limit": self.limit, "unit": self.unit}


class NotFound(ModelComposeError):
    """No such workflow, run or component."""

    code = "not_found"


class Overloaded(ModelComposeError):
    """The queue of a component is full; it is worth trying again after `retry_after_s` seconds."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: float = 1.0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s

    def data(self) -> dict[str, Any]:
        return {"retry_after_s": self.retry_after_s}


class TimedOut(ModelComposeError):
    """A limit of the file or the request ran out."""

    code = "timeout"


class Cancelled(ModelComposeError):
    """The caller, or a sibling that failed, ended it."""

    code = "cancelled"


class Interrupted(ModelComposeError):
    """The service stopped while it ran."""

    code = "interrupted"


class DriverMissing(ModelComposeError):
    """A library that a driver needs is not installed; the hint installs it."""

    code = "driver_missing"


class InstallFailed(ModelComposeError):
    """An environment could not be made; nothing of it is left."""

    code = "install_failed"


class SourceError(ModelComposeError):
    """Weights could not be had."""

    code = "source_error"


class SourceNotFound(SourceError):
    """No such repository, revision, package or file."""

    code = "source_not_found"


class AccessDenied(SourceError):
    """A token is missing, or does not reach this repository."""

    code = "access_denied"


class SourceOffline(SourceError):
    """No network (or none allowed), and the cache does not have it."""

    code = "source_offline"


class Corrupt(SourceError):
    """What came is not what was announced: a wrong hash, a wrong size, a broken archive."""

    code = "corrupt"


class ModelLoadError(ModelComposeError):
    """The weights are there, and the engine refuses them."""

    code = "model_load_error"


class ModelUnavailable(ModelComposeError):
    """The component has failed or was stopped, and nothing will change that by waiting."""

    code = "model_unavailable"


class WorkerDied(ModelComposeError):
    """The process that computed this is gone; other requests are not affected."""

    code = "worker_died"


class UpstreamError(ModelComposeError):
    """A server that was called did not answer, or not well.

    `upstream_status` is its HTTP status, None where there is none; `upstream_body` the beginning of what
    it said.
    """

    code = "upstream_error"

    upstream_status: int | None = None
    upstream_body: str | None = None

    def __init__(
        self,
        message: str,
        *,
        upstream_status: int | None = None,
        upstream_body: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.upstream_status, self.upstream_body = upstream_status, upstream_body

    def data(self) -> dict[str, Any]:
        return {"upstream_status": self.upstream_status, "upstream_body": self.upstream_body}


class EngineError(ModelComposeError):
    """The engine failed on one request."""

    code = "engine_error"


class OutOfMemory(EngineError):
    """Memory did not suffice for this request; the model goes on with others.

    `needed_bytes` is what could not be had in one piece, `free_bytes` what was there, `pool` where (`host`,
    `cuda:0`); None if unknown.
    """

    code = "out_of_memory"

    needed_bytes: int | None = None
    free_bytes: int | None = None
    pool: str | None = None

    def __init__(
        self,
        message: str,
        *,
        needed_bytes: int | None = None,
        free_bytes: int | None = None,
        pool: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.needed_bytes, self.free_bytes, self.pool = needed_bytes, free_bytes, pool

    @classmethod
    def of(cls, error: MemoryError) -> Self:
        """Python's own, which may know no more than that."""
        why = f": {error}" if str(error) else ""
        return cls(f"out of memory{why}", pool="host", hint="shorten the request, or lower `batch_size`")

    def data(self) -> dict[str, Any]:
        return {"needed_bytes": self.needed_bytes, "free_bytes": self.free_bytes, "pool": self.pool}


class CommandFailed(ModelComposeError):
    """A command of a `shell` component failed, or wrote too much; `exit_code` if it has one."""

    code = "command_failed"

    exit_code: int | None = None

    def __init__(self, message: str, *, exit_code: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code

    def data(self) -> dict[str, Any]:
        return {"exit_code": self.exit_code}


class WorkflowError(ModelComposeError):
    """A workflow does not come to an end: it runs in a circle, or calls itself."""

    code = "workflow_error"


class ServiceError(ModelComposeError):
    """The service could not start, or is not there to talk to."""

    code = "service_error"


class Unsupported(ModelComposeError):
    """Known, but not done by this driver or this version."""

    code = "unsupported"


def _position(error: ConfigError) -> tuple[str, int, int]:
    place = error.place
    return (place.file, place.line, place.column) if place else ("", 0, 0)


def _classes(base: type[ModelComposeError]) -> Iterator[type[ModelComposeError]]:
    for cls in base.__subclasses__():
        yield cls
        yield from _classes(cls)


def revive(info: ErrorInfo) -> ModelComposeError:
    """The exception that `info()` was taken from, in another process."""
    cls = next((c for c in _classes(ModelComposeError) if c.code == info.code), ModelComposeError)
    error = cls.__new__(cls)
    ModelComposeError.__init__(error, info.message, hint=info.hint)
    error.__dict__.update({"field": None, **info.data} if issubclass(cls, InvalidInput) else info.data)
    return error


def first_line(error: BaseException) -> str:
    """What a library says, without the lines for those who work on it; its class if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def at(place: Place | None) -> Iterator[None]:
    """Say where an error belongs that deeper code raised without a place."""
    try:
        yield
    except ModelComposeError as error:
        if error.place is None:
            error.place = place
        raise


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid word that is most like a wrong one, if any is like it at all."""
    words = {word.lower(): word for word in valid}
    found = difflib.get_close_matches(name.lower(), words, n=1, cutoff=0.6)
    return words[found[0]] if found else None


_FEW = 12
_MOST_LISTED = 40


def did_you_mean(name: str, valid: Iterable[str]) -> str | None:
    """A hint that names the nearest valid word, and the others if they are few or none is near."""
    words = sorted(set(valid))
    near = nearest(name, words)
    if near is not None and not 1 < len(words) <= _FEW:
        return f"did you mean `{near}`?"
    listed = ", ".join(f"`{word}`" for word in words[:_MOST_LISTED]) + ", ..." * (len(words) > _MOST_LISTED)
    if near is not None:
        return f"did you mean `{near}`? valid: {listed}"
    return f"valid: {listed}" if words else None
