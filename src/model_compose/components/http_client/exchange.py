"""What happens between the call of an action and its output, where that is an HTTP call?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from model_compose.components.callbacks import Callbacks
from model_compose.components.contract import CallContext
from model_compose.components.http_client.answers import Answer, Pieces, out_of_time, usage_in
from model_compose.components.http_client.bodies import body_of
from model_compose.components.http_client.completion import called_back, polled
from model_compose.components.http_client.connection import Connection, Request, header_value
from model_compose.components.http_client.outputs import Way, joined, merged, ways_in, with_deltas
from model_compose.components.http_client.spec import HttpKeys, part_of, renames_streaming
from model_compose.components.http_client.urls import url_of
from model_compose.components.media import Media
from model_compose.components.streams import Stream, passes_on, rendered
from model_compose.config.expression import Reference, Scope, references, render
from model_compose.config.references import RESULTS
from model_compose.config.schema import Action, Tree
from model_compose.config.template import Map
from model_compose.config.values import MEDIA_TYPES, to_text
from model_compose.drivers.contract import Outcome
from model_compose.types import Usage, plain

log = logging.getLogger(__name__)


class Exchange:
    """The HTTP calls of one component, over one pool of connections.

    name      of the component, for messages
    keys      its keys; `headers` is a compiled tree
    base_url  what the `path` of an action is added to
    proxy     URL of a proxy
    most      most calls at once; 0 is no limit
    """

    def __init__(
        self,
        name: str,
        keys: HttpKeys,
        *,
        base_url: str | None,
        media: Media,
        callbacks: Callbacks,
        proxy: str | None = None,
        most: int = 0,
    ) -> None:
        self._name = name
        self._keys = keys
        self._base_url = base_url
        self._media = media
        self._callbacks = callbacks
        self._connection = Connection(name, keys, proxy)
        self._places = asyncio.Semaphore(most) if most else None
        self._plans: dict[str, _Plan] = {}

    def start(self) -> None:
        """Get ready for the first call."""
        self._connection.start()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._connection.aclose()

    async def call(self, action: Action, scope: Scope, context: CallContext, *, streaming: bool) -> Any:
        """Do what an action says; -> its output.

        That is a `Stream` if it is made of pieces (`response[]`), or passes on what the server streams
        and `streaming`, or the action itself, asks for it. Cancelling the call, or closing the stream,
        closes the connection.
        """
        plan = self._plans.get(action.id)
        if plan is None:
            plan = self._plans[action.id] = _Plan(action, self._base_url)
            if plan.renames:
                log.warning("%s: `streaming` of the body is sent as `stream`", self._name)
        limits = [each for each in (action.timeout, self._keys.timeouts.total) if each is not None]
        deadline = asyncio.get_running_loop().time() + min(limits) if limits else None
        try:
            async with asyncio.timeout_at(deadline) as limit:
                return await self._call(plan, scope, context, deadline, streaming)
        except TimeoutError:
            if not limit.expired():
                raise
            raise out_of_time() from None

    async def _call(
        self, plan: _Plan, scope: Scope, context: CallContext, deadline: float | None, streaming: bool
    ) -> Any:
        request = await self._request(plan.action.values, scope, renames=plan.renames)
        release = await self._place()
        try:
            context.admitted = True
            context.served()
            answer = await self._answer(request, deadline, release)
            if plan.completion is not None:
                output = await self._complete(plan, answer, scope, context, deadline)
            else:
                output = await self._output(plan, answer, scope, context, streaming)
        except BaseException:
            release()
            raise
        if not isinstance(output, Stream):
            release()
        return output

    async def _place(self) -> Callable[[], None]:
        """Wait for one of `max_concurrent_count` places; -> what gives it back, once."""
        if self._places is None:
            return _nothing
        places = self._places
        await places.acquire()
        held = [places]
        return lambda: held.pop().release() if held else None

    # Requests

    async def _request(
        self,
        parts: Mapping[str, Tree],
        scope: Scope,
        *,
        method: str = "POST",
        renames: bool = False,
        first: str | None = None,
    ) -> Request:
        """What the compiled keys of a call come to. Raises InvalidInput."""
        headers = self._headers(self._keys.headers, scope)
        for name, value in self._headers(parts.get("headers"), scope).items():
            headers = {known: each for known, each in headers.items() if known.lower() != name.lower()}
            headers[name] = value
        declared = next((name for name in headers if name.lower() == "content-type"), None)
        content_type = headers.pop(declared) if declared is not None else None
        body = plain(_given(render(parts.get("body"), scope)))
        if isinstance(body, dict) and renames and "streaming" in body:
            body = {"stream" if key == "streaming" else key: value for key, value in body.items()}
        if content_type is not None and content_type.lower().startswith("multipart/"):
            body = await self._with_files(parts.get("body"), body)
        params = _given(render(parts.get("params"), scope))
        url = url_of(parts, params, scope, self._base_url, first)
        return Request(
            str(_given(parts.get("method")) or method), url, headers, await body_of(body, content_type)
        )

    def _headers(self, tree: Tree, scope: Scope) -> dict[str, str]:
        rendered_headers = _given(render(tree, scope)) or {}
        return {
            name: header_value(name, to_text(value, name))
            for name, value in rendered_headers.items()
            if value is not None
        }

    async def _with_files(self, tree: Tree, body: Any) -> Any:
        """A form whose files are here: those that a client names by URL are fetched, under the guard."""
        if not (isinstance(tree, Map) and isinstance(body, dict)):
            return body
        for key, node in tree.rendered:
            kind = node.type.name if isinstance(node, Reference) and node.type is not None else ""
            if kind in MEDIA_TYPES and isinstance(body.get(key), str | list):
                body = {**body, key: await self._media.files(body[key], kind, key)}
        return body

    async def _answer(
        self, request: Request, deadline: float | None, release: Callable[[], None] | None = None
    ) -> Answer:
        response = await self._connection.send(request)
        return Answer(
            self._connection,
            request,
            response,
            limit=self._keys.max_response,
            deadline=deadline,
            release=release or _nothing,
        )

    # Outputs

    async def _output(
        self, plan: _Plan, answer: Answer, scope: Scope, context: CallContext, streaming: bool
    ) -> Any:
        output = plan.action.output
        pieces = answer.pieces(plan.format, piecewise=plan.piecewise)
        if pieces is None:
            value = await answer.whole()
            _note(context, usage_in(value))
            return await rendered(output, with_deltas(value) if plan.piecewise else value, scope)
        stream = _stream(plan, pieces, context)
        if plan.piecewise or (plan.passes and (streaming or plan.action.streaming)):
            return await rendered(output, stream, scope)
        pieces.most = self._keys.max_response
        return await rendered(output, await stream.collect(), scope)

    async def _complete(
        self, plan: _Plan, answer: Answer, scope: Scope, context: CallContext, deadline: float | None
    ) -> Any:
        """The output when the work is done: `result` is what it came to, `response` what began it."""
        assert plan.completion is not None
        pieces = answer.pieces(plan.format, piecewise=False)
        first: Any
        if pieces is None:
            first = await answer.whole()
            _note(context, usage_in(first))
        else:
            pieces.most = self._keys.max_response
            first = await _stream(plan, pieces, context).collect()
        inner = scope.child({"response": first, "result": first, "output": first})
        url = answer.request.url

        async def ask(asking: Scope) -> tuple[int, Any]:
            assert plan.completion is not None
            request = await self._request(plan.completion, asking, method="GET", first=url)
            found = await self._answer(request, deadline)
            return found.status, await found.whole()

        if plan.completion.get("type") == "callback":
            value = await called_back(plan.completion, inner, self._callbacks, self._name)
        else:
            value = await polled(plan.completion, inner, ask, self._name)
        return plan.completed(scope, first, value)


class _Plan:
    """What of an action never changes, worked out once."""

    def __init__(self, action: Action, base_url: str | None) -> None:
        self.action = action
        self.format = action.values.get("stream_format")
        self.piecewise = any(reference.per_chunk for reference in references(action.output))
        self.passes = action.output is UNSET or passes_on(action.output)
        self.ways: list[Way] = ways_in(action.output)
        self.renames = renames_streaming({**action.values, "output": action.output}, base_url)
        tree = action.values.get("completion")
        keys = tree.constants if isinstance(tree, Map) else tree
        self.completion = {key: part_of(tree, key) for key in keys} if keys else None

    def completed(self, scope: Scope, first: Any, value: Any) -> Any:
        """The output of work that is done; `result[]` is each item of a list."""
        output = self.action.output
        if output is UNSET:
            return value
        names = {"result": value, "output": value, "response": first}
        items = value if isinstance(value, list) else [value]
        pieces = [{**names, **{f"{name}[]": item for name in RESULTS}} for item in items]
        if self.piecewise and isinstance(value, list):
            return [render(output, scope.child(each)) for each in pieces]
        return render(output, scope.child(pieces[0] if pieces else names))


def _stream(plan: _Plan, pieces: Pieces, context: CallContext) -> Stream:
    async def whole(found: list[Any]) -> Any:
        if pieces.ordinary is not UNSET:
            return pieces.ordinary
        return merged(found, plan.ways) if plan.ways else joined(found)

    pieces.on_end = lambda: _note(context, pieces.usage)
    return Stream(pieces, close=pieces.answer.close, whole=whole)


def _note(context: CallContext, usage: Usage | None) -> None:
    if usage is not None:
        context.spent(Outcome(None, usage))


def _given(value: Any) -> Any:
    return None if value is UNSET or isinstance(value, msgspec.UnsetType) else value


def _nothing() -> None:
    pass
