"""What is on the page of a workflow? A form made from its schema, and what a run of it gives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

import gradio as gr
import msgspec

from model_compose.errors import ModelComposeError
from model_compose.types import Blob
from model_compose.ui import look
from model_compose.ui.blobs import Shelf
from model_compose.ui.fields import Input, input_of, is_media, own_fields, together
from model_compose.ui.gateway import Event, explained, failure
from model_compose.ui.results import Shown, shown
from model_compose.ui.sessions import Sessions

#: Optional fields that stand on the page; more of them are folded away.
_MOST_SHOWN: Final = 5

#: A page is told of new text at most so often.
_EVERY_S: Final = 0.03

WAITING: Final = "waiting"

Updates = dict[Any, Any]


class WorkflowPage:
    """The parts of a page, and what happens to them."""

    def __init__(self, workflow: Mapping[str, Any], sessions: Sessions, shelf: Shelf) -> None:
        self._id = workflow["workflow_id"]
        self._sessions = sessions
        self._shelf = shelf
        fields = own_fields(workflow["input"])
        with gr.Row():
            with gr.Column(min_width=320):
                self._inputs = form(fields)
                with gr.Row():
                    self._run = gr.Button("Run", variant="primary", min_width=80)
                    self._stop = gr.Button("Stop", variant="stop", min_width=80, interactive=False)
            with gr.Column(min_width=320):
                self._outputs()
        pictures = [i for i, field in enumerate(fields) if is_media(field) and field["type"] == "image"]
        names = [each.name for each in self._inputs]
        #: Which of the values is the image that an image is compared with.
        self._before = names.index(fields[pictures[0]]["name"]) if len(pictures) == 1 else None
        self._events()

    def _outputs(self) -> None:
        self._course = gr.HTML(look.course("What it gives appears here."), padding=False)
        self._error = gr.HTML("", padding=False)
        self._text = gr.Textbox(
            label="Output",
            lines=8,
            max_lines=24,
            buttons=["copy"],
            interactive=False,
            visible=False,
            elem_classes="mc-text",
        )
        with gr.Accordion("As Markdown", open=False, visible=False) as self._marked:
            self._markdown = gr.Markdown()
        self._slider = gr.ImageSlider(
            label="Before and after", type="filepath", visible=False, interactive=False, max_height=480
        )
        self._image = gr.Image(label="Image", type="filepath", visible=False, interactive=False)
        self._gallery = gr.Gallery(label="Images", visible=False, interactive=False, object_fit="contain")
        self._label = gr.Label(label="Label", visible=False)
        self._table = gr.Dataframe(label="Table", visible=False, interactive=False, wrap=True)
        self._json = gr.JSON(label="Output", visible=False)
        self._files = gr.File(label="Files", visible=False, interactive=False, file_count="multiple")

    def _events(self) -> None:
        parts = [self._text, self._marked, self._markdown, self._slider, self._image, self._gallery]
        parts += [self._label, self._table, self._json, self._files]
        shows = [self._run, self._stop, self._course, self._error, *parts]
        self._parts = parts
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        triggers = [self._run.click]
        triggers += [each.component.submit for each in self._inputs if isinstance(each.component, gr.Textbox)]
        components = [each.component for each in self._inputs]
        running = gr.on(triggers, self._work, components, shows, concurrency_limit=None, **quiet)
        running.then(None, None, [self._run, self._stop], js=look.after([True, False]), **quiet)
        self._stop.click(self._sessions.stop, None, None, concurrency_limit=None, queue=False, **quiet)

    async def _work(self, request: gr.Request, *values: Any) -> AsyncGenerator[Updates]:
        yield self._begin()
        said = Said()
        try:
            given = await asyncio.to_thread(together, self._inputs, values)
            async for event in paced(self._sessions.run(self._id, given, request), said):
                if event is None:
                    yield {self._text: gr.update(value=said.text, visible=True), self._course: told(said)}
                elif event.name == "end":
                    yield await self._end(event.data, values)
                else:
                    yield {self._course: told(said)}
        except Exception as error:  # noqa: BLE001  the page tells it, and can be used again
            yield self._failed(explained(error), look.course())

    def _begin(self) -> Updates:
        """What came before stays until there is something new."""
        return {
            self._run: gr.update(interactive=False),
            self._stop: gr.update(interactive=True),
            self._error: "",
            self._course: look.course(WAITING),
        }

    async def _end(self, record: Mapping[str, Any], values: Sequence[Any]) -> Updates:
        took = look.course(spent(record))
        match record["status"]:
            case "completed":
                before = None if self._before is None else values[self._before]
                found = await asyncio.to_thread(self._show, record.get("output"), before)
                return {self._course: took, **self._only(found)}
            case "cancelled":
                return {self._course: look.course("stopped")}
        return self._failed(failure(record), took)

    def _failed(self, error: ModelComposeError, course: str) -> Updates:
        return {self._error: look.error(error), self._course: course, **self._only({})}

    def _only(self, updates: Updates) -> Updates:
        """These parts, and no others.

        All of it is one update: Gradio may lose a part that is hidden and shown again at once.
        """
        return {part: gr.update(visible=False) for part in self._parts} | updates

    def _show(self, output: Any, before: str | None) -> Updates:
        """Show an output; reads and writes files."""
        seen: Shown = shown(output)
        paths = [self._shelf.put(each.blob, each.name) for each in seen.images]
        files = [self._shelf.put(each.blob, each.name) for each in [*seen.images, *seen.files]]
        updates: Updates = {}
        if seen.text is not None:
            updates[self._text] = gr.update(value=seen.text, visible=True)
            updates[self._marked] = gr.update(visible=True)
            updates[self._markdown] = seen.text
        if len(paths) == 1 and before:
            updates[self._slider] = gr.update(value=(before, paths[0]), visible=True)
        elif len(paths) == 1:
            updates[self._image] = gr.update(value=paths[0], visible=True)
        elif paths:
            captions = [(path, each.name) for path, each in zip(paths, seen.images, strict=True)]
            updates[self._gallery] = gr.update(value=captions, visible=True)
        if seen.scores is not None:
            updates[self._label] = gr.update(value=seen.scores, visible=True)
        if seen.table is not None:
            updates[self._table] = gr.update(value=seen.table.rows, headers=seen.table.columns, visible=True)
        if seen.rest is not None:
            updates[self._json] = gr.update(value=seen.rest, visible=True)
        if seen.text is None and not files:
            whole = Blob("application/json", msgspec.json.format(msgspec.json.encode(output)))
            files.append(self._shelf.put(whole))
        if files:
            updates[self._files] = gr.update(value=files, visible=True)
        return updates


def form(fields: Sequence[Mapping[str, Any]]) -> list[Input]:
    """A form for fields: what is needed first; what is not is folded away where it is much."""
    optional = [field for field in fields if not field.get("required")]
    shown_ones = _MOST_SHOWN if len(optional) == len(fields) else 0
    folded = optional[shown_ones:] if len(optional) > _MOST_SHOWN else []
    inputs = [input_of(field) for field in fields if field not in folded]
    if folded:
        with gr.Accordion("More settings", open=False):
            inputs += [input_of(field) for field in folded]
    return inputs


class Said:
    """What a run has told so far."""

    def __init__(self) -> None:
        self.text = ""
        self.course = WAITING
        self.progress: tuple[int, int] | None = None
        self._jobs: dict[str, str] = {}

    def hear(self, event: Event) -> bool:
        """Take in an event; -> whether the text has grown."""
        match event.name:
            case "chunk" if event.data is not None:
                piece = event.data
                self.course = "" if self.course == WAITING else self.course
                self.text += piece if isinstance(piece, str) else msgspec.json.encode(piece).decode() + "\n"
                return True
            case "progress":
                self.progress = (event.data["done"], event.data["total"])
                self.course = ""
            case "job" if not event.data["id"].startswith("__"):
                self._jobs[event.data["id"]] = event.data["state"]
                self.course = " · ".join(f"{name}: {state}" for name, state in self._jobs.items())
        return False


def told(said: Said) -> str:
    """How far a run is, as its page shows it."""
    return look.course(said.course, said.progress)


async def paced(events: AsyncGenerator[Event], said: Said) -> AsyncGenerator[Event | None]:
    """The events of a run; None when there is new text, which is not told for every piece of it."""
    loop = asyncio.get_running_loop()
    told = 0.0
    grown = False
    coming: asyncio.Future[Event | None] | None = None
    async with contextlib.aclosing(events):
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(events, None))
                # The last piece before a pause is told when its time has come, whatever follows.
                wait_s = max(0.0, told + _EVERY_S - loop.time()) if grown else None
                await asyncio.wait([coming], timeout=wait_s)
                if not coming.done():
                    told, grown = loop.time(), False
                    yield None
                    continue
                event, coming = coming.result(), None
                if event is not None and event.name == "chunk":
                    grown = said.hear(event) or grown
                    continue
                if grown:
                    grown = False
                    yield None
                if event is None:
                    return
                said.hear(event)
                yield event
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait([coming])


def spent(record: Mapping[str, Any]) -> str:
    """What a run took."""
    parts = []
    began = record.get("started") or record.get("created")
    if record.get("finished") and began:
        parts.append(f"{record['finished'] - began:.2f} s")
    usage = record.get("usage") or {}
    if count := usage.get("completion_tokens"):
        parts.append(f"{count} token{'s' * (count > 1)}")
    if record.get("finish_reason") == "length":
        parts.append("cut at the limit of its length")
    return " · ".join(parts)
