"""How do MCP clients call the workflows? Each is a tool.

The protocol is the `mcp` package's affair: streamable HTTP at `/mcp`, or the standard streams of the command
`mcp`. It is imported when the first client comes.

Source: https://modelcontextprotocol.io/specification
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from model_compose.about import __version__, install_command
from model_compose.api.access import caller_of
from model_compose.api.asgi import respond_error
from model_compose.api.schemas import input_schema
from model_compose.components.streams import Stream
from model_compose.compose.app import App
from model_compose.compose.run import Run
from model_compose.config.schema import SYNTHESISED_COMPONENT, SYNTHESISED_WORKFLOW, Workflow
from model_compose.errors import DriverMissing, InvalidInput, ModelComposeError, did_you_mean
from model_compose.types import Blob, for_json, plain

if TYPE_CHECKING:
    from mcp import types
    from mcp.server import Server, ServerRequestContext

#: Bytes of images and sounds in one answer: clients keep answers in the context of a model.
MOST_MEDIA_BYTES: Final = 1 << 20


class McpRoute:
    """`/mcp`: the protocol over HTTP."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._starting = asyncio.Lock()
        self._asgi: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._starting:
            if self._asgi is None:
                try:
                    require_mcp()
                except ModelComposeError as error:
                    await respond_error(send, error)
                    return
                self._asgi = await self._start()
        await self._asgi(scope, receive, send)

    async def _start(self) -> ASGIApp:
        """Have sessions until the app closes."""
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        controller = self._app.project.controller
        sessions = StreamableHTTPSessionManager(
            await asyncio.to_thread(_imported, self._app), max_request_body_size=controller.max_body
        )
        started, over = asyncio.Event(), asyncio.Event()

        async def serve() -> None:
            async with sessions.run():
                started.set()
                await over.wait()

        serving = asyncio.create_task(serve(), name="mcp")

        async def end() -> None:
            over.set()
            await asyncio.wait([serving])

        self._app.on_close(end)
        await started.wait()
        return sessions.asgi_app


def require_mcp() -> None:
    """Raise DriverMissing, with the command that installs it, where the `mcp` package is not installed."""
    if importlib.util.find_spec("mcp") is None:
        raise DriverMissing("MCP needs `mcp`, which is not installed", hint=install_command("mcp"))


def _imported(app: App) -> Server[Any]:
    return Tools(app).server()


class Tools:
    """The workflows of an app as tools."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._workflows = {tool_name(w, app): w for w in app.project.workflows.values()}

    def server(self) -> Server[Any]:
        """A server that offers them."""
        from mcp.server import Server

        settings = self._app.project
        return Server(
            settings.controller.name or settings.settings.name or "model-compose",
            version=__version__,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )

    async def _list(self, context: Any, params: Any) -> types.ListToolsResult:
        from mcp import types

        return types.ListToolsResult(tools=[self._tool(name, w) for name, w in self._workflows.items()])

    def _tool(self, name: str, workflow: Workflow) -> types.Tool:
        from mcp import types

        inputs = msgspec.structs.replace(self._app.inputs[workflow.id], main=None)
        return types.Tool(
            name=name,
            title=workflow.title,
            description=workflow.description or workflow.title or self._told(workflow),
            input_schema=input_schema(inputs),
        )

    def _told(self, workflow: Workflow) -> str:
        """What a workflow does of which the file says nothing: what a lone model does."""
        tasks = [model.task for model in self._app.models]
        if workflow.id == SYNTHESISED_WORKFLOW and tasks:
            return tasks[0].summary
        return f"The workflow `{workflow.id}`."

    async def _call(
        self, context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        """Run a workflow. What goes wrong is an answer too: the client's model may do better next time."""
        try:
            run = await self._run(context, params)
        except ModelComposeError as error:
            return _failed(error)
        return _answer(run.output, self._too_large)

    async def _run(self, context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams) -> Run:
        workflow = self._workflows.get(params.name)
        if workflow is None:
            hint = did_you_mean(params.name, self._workflows)
            raise InvalidInput(f"there is no tool `{params.name}`", field="name", hint=hint)
        owner = caller_of(context.request.scope).name if context.request is not None else None
        run, value = self._app.begin(workflow, params.arguments, owner=owner)
        telling: set[asyncio.Task[None]] = set()

        def tell(done: int, total: int) -> None:
            if len(telling) < _MOST_TOLD:  # a client that reads slowly hears of some steps only
                task = asyncio.ensure_future(context.session.report_progress(done, total))
                telling.add(task)
                task.add_done_callback(telling.discard)

        run.on_progress = tell
        try:
            output = await self._app.execute(run, workflow, value, streaming=False)
            if isinstance(output, Stream):
                async for _ in run.follow(output):
                    pass
        finally:
            for task in telling:
                task.cancel()
        return run

    def _too_large(self, blob: Blob) -> str:
        return (
            f"({blob.media_type} of {len(blob.data)} bytes, which is too much for an answer here: "
            "get it from the HTTP API, or ask for a smaller one)"
        )


#: Messages about the progress of one call that are under way at once.
_MOST_TOLD: Final = 8


def tool_name(workflow: Workflow, app: App) -> str:
    """What a tool is called: by the file's own words, as far as it has some."""
    if workflow.name or workflow.id != SYNTHESISED_WORKFLOW:
        return workflow.name or workflow.id
    component = next(iter(app.project.components.values()))
    if component.id != SYNTHESISED_COMPONENT:
        return component.id
    return getattr(component.config, "task", None) or component.type


def _failed(error: ModelComposeError) -> types.CallToolResult:
    from mcp import types

    said = f"{error.message}\nhint: {error.hint}" if error.hint else error.message
    return types.CallToolResult(content=[types.TextContent(type="text", text=said)], is_error=True)


def _answer(output: Any, too_large: Callable[[Blob], str]) -> types.CallToolResult:
    """Text as it is, images and sounds as such, anything else as JSON."""
    from mcp import types

    value = plain(output)
    items = value if isinstance(value, list) and value and isinstance(value[0], Blob) else [value]
    room = MOST_MEDIA_BYTES
    content: list[types.ContentBlock] = []
    for item in items:
        if isinstance(item, Blob):
            room -= len(item.data)
            content.append(_media(item, too_large) if room >= 0 else _text(too_large(item)))
        else:
            content.append(_text(item if isinstance(item, str) else _json(item)))
    structured = for_json(value) if isinstance(value, dict) else None
    return types.CallToolResult(content=content, structured_content=structured)


def _media(blob: Blob, too_large: Callable[[Blob], str]) -> types.ContentBlock:
    from mcp import types

    data = base64.b64encode(blob.data).decode("ascii")
    match blob.media_type.partition("/")[0]:
        case "image":
            return types.ImageContent(type="image", data=data, mime_type=blob.media_type)
        case "audio":
            return types.AudioContent(type="audio", data=data, mime_type=blob.media_type)
    return _text(too_large(blob))


def _text(text: str) -> types.TextContent:
    from mcp import types

    return types.TextContent(type="text", text=text)


def _json(value: Any) -> str:
    return msgspec.json.encode(for_json(value)).decode()
