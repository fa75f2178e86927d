"""Which pages are there, and at which addresses?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import gradio as gr
from gradio.components import Navbar

from model_compose.ui import look
from model_compose.ui.blobs import Shelf
from model_compose.ui.chat_page import ChatPage, is_chat
from model_compose.ui.gateway import Gateway
from model_compose.ui.sessions import Sessions
from model_compose.ui.status_page import StatusPage
from model_compose.ui.workflow_page import WorkflowPage

STATUS: Final = "status"

#: What a page has left behind is removed after so long.
_KEPT_S: Final = 3600


def pages(
    workflows: Sequence[Mapping[str, Any]],
    components: Sequence[Mapping[str, Any]],
    gateway: Gateway,
    *,
    name: str,
    folder: Path,
) -> gr.Blocks:
    """A page for each workflow, the default one first, and one about the service."""
    sessions, shelf = Sessions(gateway), Shelf(folder)
    ordered = sorted(workflows, key=lambda each: not each.get("default"))
    titles = [look.title_of(each, components) for each in ordered]
    blocks: gr.Blocks
    with gr.Blocks(title=name, analytics_enabled=False, delete_cache=(_KEPT_S, _KEPT_S)) as blocks:
        first = titles[0] if titles else "Status"
        Navbar(main_page_name=first)
        if ordered:
            _page(ordered[0], titles[0], sessions, shelf)
        else:
            _status(gateway, components)
        blocks.unload(sessions.leave)
    for workflow, title, path in zip(ordered[1:], titles[1:], addresses(titles[1:]), strict=True):
        with blocks.route(title, path):
            Navbar(main_page_name=first)
            _page(workflow, title, sessions, shelf)
    if ordered:
        with blocks.route("Status", STATUS):
            Navbar(main_page_name=first)
            _status(gateway, components)
    return blocks


def _page(workflow: Mapping[str, Any], title: str, sessions: Sessions, shelf: Shelf) -> None:
    gr.Markdown(f"## {title}", elem_classes="mc-page")
    if workflow.get("description"):
        gr.Markdown(workflow["description"], elem_classes="mc-about")
    if is_chat(workflow):
        ChatPage(workflow, sessions)
    else:
        WorkflowPage(workflow, sessions, shelf)


def _status(gateway: Gateway, components: Sequence[Mapping[str, Any]]) -> None:
    gr.Markdown("## Status", elem_classes="mc-page")
    StatusPage(gateway, components)


def addresses(titles: Iterable[str]) -> list[str]:
    """Paths for pages: their titles, as far as those can stand in a path, and all different."""
    taken = {STATUS}
    found = []
    for title in titles:
        base = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "workflow"
        path, number = f"w-{base}", 2
        while path in taken:
            path, number = f"w-{base}-{number}", number + 1
        taken.add(path)
        found.append(path)
    return found
