"""How are runs and tasks served over HTTP? Behaviour: spec §4."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Any

from starlette.types import Receive, Scope, Send

from model_compose.api import sse
from model_compose.api.access import caller_of, require_owner
from model_compose.api.answers import (
    collected,
    end_event,
    error_event,
    only,
    respond_output,
    respond_stream,
    task_headers,
)
from model_compose.api.asgi import (
    flag,
    read_body,
    respond,
    respond_error,
    respond_events,
    respond_json,
    until_gone,
    wants_events,
)
from model_compose.api.bodies import RunRequest, is_form, run_request
from model_compose.api.status import status_of_code
from model_compose.components.streams import Stream
from model_compose.compose.app import App
from model_compose.compose.run import Run
from model_compose.config.schema import Workflow
from model_compose.errors import BadRequest, Cancelled, InvalidInput, ModelComposeError


class StartRun:
    """`POST /workflows/runs`"""

    def __init__(self, app: App) -> None:
        self._app = app
        self._limit = app.project.controller.max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(scope, receive, self._limit)
            if body is None:
                return  # the client left: there is nobody to tell
            request = await run_request(scope, body)
            workflow = self._app.workflow(request.workflow_id)
            given = request.input
            if is_form(scope):
                given = self._app.inputs[workflow.id].from_texts(given)
            if not request.wait_for_completion:
                await self._enqueue(request, workflow, given, caller_of(scope).name, send)
                return
            run, value = self._app.begin(workflow, given, owner=caller_of(scope).name)
        except ModelComposeError as error:
            await respond_error(send, error)
            return
        streaming = request.stream or wants_events(scope)
        try:
            await until_gone(receive, self._serve(run, workflow, value, request, streaming, send))
        finally:
            run.fail(Cancelled("the caller went away"))  # unless it has ended, as it mostly has

    async def _enqueue(
        self, request: RunRequest, workflow: Workflow, given: Any, owner: str | None, send: Send
    ) -> None:
        if request.output_only:
            raise BadRequest("`output_only` needs `wait_for_completion`: there is no output yet")
        run = await self._app.enqueue(workflow, given, owner=owner)
        await respond_json(send, {"task_id": run.id, "status": "pending"})

    async def _serve(
        self,
        run: Run,
        workflow: Workflow,
        value: dict[str, Any],
        request: RunRequest,
        streaming: bool,
        send: Send,
    ) -> None:
        output: Any = None
        try:
            # What the file streams is streamed to a client that takes nothing but the output.
            output = await self._app.execute(run, workflow, value, streaming=streaming)
            if isinstance(output, Stream) and not (streaming or request.output_only):
                output = await collected(run, output)
        except asyncio.CancelledError:
            if run.reason is None:
                raise  # the client left: there is nobody to tell
            await self._failed(run, run.reason, request, streaming, send)
        except Exception as error:  # noqa: BLE001  the run has noted it; the client hears of it
            await self._failed(run, error, request, streaming, send)
        else:
            if isinstance(output, Stream):
                await respond_stream(send, run, output)
            elif streaming:
                await respond_events(send, only(sse.data([output]) + end_event(run)), task_headers(run))
            elif request.output_only:
                await respond_output(send, output, task_headers(run))
            else:
                await respond(send, HTTPStatus.OK, run.encoded())
        finally:
            if isinstance(output, Stream) and not run.ended:  # the client left before the first event
                await output.aclose()

    async def _failed(
        self, run: Run, error: BaseException, request: RunRequest, streaming: bool, send: Send
    ) -> None:
        """Before anything was done, and for `output_only`, the status tells; else an event or the record."""
        caller_at_fault = isinstance(error, InvalidInput) and not run.began
        if request.output_only or not run.admitted or caller_at_fault:
            await respond_error(send, error)
        elif streaming:
            await respond_events(send, only(error_event(error)), task_headers(run))
        else:
            await respond(send, HTTPStatus.OK, run.encoded())


class ShowTask:
    """`GET /tasks/{task_id}`"""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            output_only = flag(scope, "output_only")
            task_id = scope["path_params"]["task_id"]
            record = await self._app.record(task_id)
            require_owner(scope, task_id, record.owner)
        except ModelComposeError as error:
            await respond_error(send, error)
            return
        if not output_only:
            await respond_json(send, record.for_json())
        elif record.finished is None:
            await respond_json(send, {"detail": "Task is still in progress."}, HTTPStatus.ACCEPTED)
        elif record.status == "completed":
            await respond_output(send, record.output)
        else:
            code = record.error_type or ModelComposeError.code
            body = {"detail": record.error or "failed", "type": code}
            body |= {"hint": record.hint} if record.hint else {}
            await respond_json(send, body, status_of_code(code))


class CancelTask:
    """`POST /tasks/{task_id}/cancel`"""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task_id = scope["path_params"]["task_id"]
        try:
            require_owner(scope, task_id, (await self._app.record(task_id)).owner)
            run = self._app.running(task_id)
            if run is not None:
                run.cancel(Cancelled("cancelled by request"))
                await run.wait()
            await respond_json(send, (await self._app.record(task_id)).for_json())
        except ModelComposeError as error:
            await respond_error(send, error)


class WatchTask:
    """`GET /tasks/{task_id}/events`"""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task_id = scope["path_params"]["task_id"]
        try:
            record = await self._app.record(task_id)
            require_owner(scope, task_id, record.owner)
        except ModelComposeError as error:
            await respond_error(send, error)
            return
        run = self._app.running(task_id)
        if run is not None:
            await until_gone(receive, respond_events(send, _events(run)))
            return
        await respond_events(send, only(sse.event("end", record.for_json())))


async def _events(run: Run) -> AsyncGenerator[bytes]:
    async with contextlib.aclosing(run.events()) as events:
        async for event in events:
            yield sse.event(event.name, event.data)
