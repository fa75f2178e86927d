"""Which runs has an open page, and who ends them when it stops or goes away?"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import gradio as gr

from model_compose.errors import ModelComposeError
from model_compose.ui.gateway import Event, Gateway, caller_of


class Sessions:
    """The runs of pages, by the session that a browser has with each."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._runs: dict[str, dict[str, Mapping[str, str]]] = {}

    async def run(self, workflow: str, given: Any, request: gr.Request) -> AsyncGenerator[Event]:
        """Run a workflow for a page; see `Gateway.run`."""
        caller = caller_of(request.headers)
        mine = self._runs.setdefault(request.session_hash or "", {})
        task = ""
        async with contextlib.aclosing(self.gateway.run(workflow, given, caller)) as events:
            try:
                async for event in events:
                    if event.name == "started":
                        task = event.data
                        mine[task] = caller
                    yield event
            finally:
                mine.pop(task, None)

    async def stop(self, request: gr.Request) -> None:
        """End what a page runs. Its runs then end as cancelled, which the page shows."""
        for task, caller in list(self._runs.get(request.session_hash or "", {}).items()):
            with contextlib.suppress(ModelComposeError):
                await self.gateway.cancel(task, caller)

    async def leave(self, request: gr.Request) -> None:
        """A page was closed."""
        await self.stop(request)
        self._runs.pop(request.session_hash or "", None)
