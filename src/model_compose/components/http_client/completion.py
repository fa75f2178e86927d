"""When is the work done that a call only began?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from msgspec import UNSET

from model_compose.components.callbacks import Callbacks
from model_compose.components.http_client.spec import Callback, Polling
from model_compose.config.expression import Scope, render
from model_compose.config.quantities import DURATION
from model_compose.config.references import RESULTS
from model_compose.config.values import shown, to_text
from model_compose.errors import InvalidInput, TimedOut, UpstreamError
from model_compose.types import for_json

#: Of an answer that says that the work failed.
_SHOWN: Final = 2048

Ask = Callable[[Scope], Awaitable[tuple[int, Any]]]
"""Ask once; -> the HTTP status and the value of the answer. Raises UpstreamError, with its status."""


async def called_back(parts: dict[str, Any], scope: Scope, callbacks: Callbacks, name: str) -> Any:
    """What a callback brings. `parts` are the compiled keys of a `Callback`."""
    wanted = to_text(render(parts.get("wait_for"), scope), "wait_for")
    if not wanted:
        raise UpstreamError(
            f"`{name}`: `wait_for` of `completion` has no value",
            hint="does the response have what it refers to?",
        )
    return await callbacks.wait(wanted, _seconds(parts, "timeout", Callback, scope))


async def polled(parts: dict[str, Any], scope: Scope, ask: Ask, name: str) -> Any:
    """What the server says when the work is done. `parts` are the compiled keys of a `Polling`."""
    interval, timeout = (_seconds(parts, key, Polling, scope) for key in ("interval", "timeout"))
    last = ""
    try:
        async with asyncio.timeout(timeout) as limit:
            while True:
                await asyncio.sleep(interval)
                done, value, last = await _look(parts, scope, ask, name)
                if done:
                    return value
    except TimeoutError:
        if not limit.expired():
            raise
        raise TimedOut(
            f"`{name}`: the work was not done within {timeout:g} s{last}",
            hint="`completion.timeout` says how long to wait",
        ) from None


async def _look(parts: dict[str, Any], scope: Scope, ask: Ask, name: str) -> tuple[bool, Any, str]:
    """Whether it is done, what the server said, and that in words. Raises UpstreamError when it failed."""
    success, failure = (_values(render(parts.get(key), scope)) for key in ("success_when", "fail_when"))
    expression = parts.get("status")
    by_code = expression is None or expression is UNSET
    try:
        code, value = await ask(scope)
    except UpstreamError as error:
        code, value = error.upstream_status or 0, None
        # Only a file that says which codes mean failure knows that others do not.
        known = by_code and code and (_is_code(code, success) or (failure and not _is_code(code, failure)))
        if not known:
            raise
    if by_code:
        status: Any = code
        succeeded, failed = _is_code(code, success), _is_code(code, failure)
    else:
        status = render(expression, scope.child(dict.fromkeys(RESULTS, value)))
        succeeded, failed = _is_among(status, success), _is_among(status, failure)
    if failed:
        said = msgspec.json.encode(for_json(value))[:_SHOWN].decode("utf-8", "replace")
        message = f"`{name}`: the work failed: `status` is {shown(status)}"
        raise UpstreamError(message, upstream_status=code, upstream_body=said)
    return succeeded, value, f": `status` is {shown(status)}"


def _values(value: Any) -> list[str]:
    if value is None or value is UNSET:
        return []
    return [to_text(each, "status") for each in (value if isinstance(value, list | tuple) else [value])]


def _is_among(status: Any, values: list[str]) -> bool:
    return status is not None and to_text(status, "status") in values


def _is_code(code: int, values: list[str]) -> bool:
    return any(value.lower() in (str(code), f"{code // 100}xx") for value in values)


def _seconds(parts: dict[str, Any], key: str, struct: type[msgspec.Struct], scope: Scope) -> float:
    value = render(parts.get(key), scope)
    if value is None or value is UNSET:
        default = next(f.default for f in msgspec.structs.fields(struct) if f.name == key)
        return float(default)
    try:
        return float(DURATION.read(value))
    except ValueError as error:
        raise InvalidInput(f"`{key}` of `completion` {error}", field=key) from None
