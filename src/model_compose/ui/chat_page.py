"""What is on the page of a workflow about `messages`? A conversation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import gradio as gr
import msgspec

from model_compose.errors import ModelComposeError
from model_compose.ui import look
from model_compose.ui.fields import input_of, own_fields, together
from model_compose.ui.gateway import explained, failure
from model_compose.ui.results import shortened
from model_compose.ui.sessions import Sessions
from model_compose.ui.workflow_page import WAITING, Said, Updates, paced, spent, told

MESSAGES = "messages"


def is_chat(workflow: Mapping[str, Any]) -> bool:
    """Whether a workflow is about a conversation."""
    return any(field["name"] == MESSAGES for field in workflow["input"])


class ChatPage:
    """The parts of a page, and what happens to them."""

    def __init__(self, workflow: Mapping[str, Any], sessions: Sessions) -> None:
        self._id = workflow["workflow_id"]
        self._sessions = sessions
        fields = [field for field in own_fields(workflow["input"]) if field["name"] != MESSAGES]
        self._chat = gr.Chatbot(
            show_label=False,
            height="calc(100vh - 330px)",
            min_height=280,
            buttons=["copy"],
            placeholder="Say something",
            feedback_options=None,
            allow_tags=False,
            elem_classes="mc-chat",
        )
        self._error = gr.HTML("", padding=False)
        self._course = gr.HTML(look.course(), padding=False)
        with gr.Row(equal_height=True):
            self._message = gr.Textbox(
                label="Message",
                placeholder="Message",
                show_label=False,
                lines=1,
                max_lines=8,
                scale=8,
                autofocus=True,
                elem_classes="mc-message",
            )
            self._send = gr.Button("Send", variant="primary", scale=1, min_width=72)
            self._stop = gr.Button("Stop", variant="stop", scale=1, min_width=72, interactive=False)
            self._clear = gr.Button("Clear", scale=1, min_width=72)
        with gr.Accordion("Settings", open=False):
            self._system = gr.Textbox(
                label="system message", lines=2, info="what the model is told before the conversation"
            )
            with gr.Row():
                self._inputs = [input_of(field) for field in fields]
        self._events()

    def _events(self) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        parts = [self._chat, self._message, self._error, self._course, self._send, self._stop, self._clear]
        values = [self._message, self._chat, self._system, *(each.component for each in self._inputs)]
        answering = gr.on(
            [self._send.click, self._message.submit],
            self._answer,
            values,
            parts,
            concurrency_limit=None,
            **quiet,
        )
        buttons = [self._send, self._stop, self._clear]
        answering.then(None, None, buttons, js=look.after([True, False, True]), **quiet)
        self._stop.click(self._sessions.stop, None, None, concurrency_limit=None, queue=False, **quiet)
        self._clear.click(self._empty, None, [self._chat, self._error, self._course], queue=False, **quiet)

    def _empty(self) -> list[Any]:
        return [[], "", look.course()]

    async def _answer(
        self, request: gr.Request, message: str, history: Sequence[Any], system: str | None, *values: Any
    ) -> AsyncGenerator[Updates]:
        if not message.strip():
            yield {self._error: ""}
            return
        before = [{"role": each["role"], "content": text_of(each["content"])} for each in history or ()]
        turn = [*before, {"role": "user", "content": message}]
        yield self._begin(turn)
        said = Said()
        try:
            given = await asyncio.to_thread(together, self._inputs, values)
            first = [{"role": "system", "content": system}] if system and system.strip() else []
            given[MESSAGES] = [*first, *turn]
            async for event in paced(self._sessions.run(self._id, given, request), said):
                if event is None:
                    answer = {"role": "assistant", "content": said.text}
                    yield {self._chat: [*turn, answer], self._course: told(said)}
                elif event.name == "end":
                    yield self._end(event.data, turn, said.text)
                elif not said.text:
                    yield {self._course: told(said)}
        except Exception as error:  # noqa: BLE001  the page tells it, and can be used again
            yield self._failed(explained(error), before, message)

    def _begin(self, turn: Sequence[Any]) -> Updates:
        return {
            self._chat: turn,
            self._message: "",
            self._error: "",
            self._course: look.course(WAITING),
            self._send: gr.update(interactive=False),
            self._stop: gr.update(interactive=True),
            self._clear: gr.update(interactive=False),
        }

    def _end(self, record: Mapping[str, Any], turn: Sequence[Any], text: str) -> Updates:
        match record["status"]:
            case "completed":
                answer = written(record.get("output"))
                course = look.course(spent(record))
            case "cancelled":
                answer, course = text, look.course("stopped")
            case _:
                raise failure(record)
        kept = [*turn, {"role": "assistant", "content": answer}] if answer else list(turn)
        return {self._chat: kept, self._course: course}

    def _failed(self, error: ModelComposeError, before: Sequence[Any], message: str) -> Updates:
        """The turn is taken back, so that it can be tried again."""
        return {
            self._chat: before,
            self._message: message,
            self._error: look.error(error),
            self._course: look.course(),
        }


def written(output: Any) -> str:
    """What an assistant says: text as it is, anything else as JSON."""
    if isinstance(output, str):
        return output
    told = msgspec.json.format(msgspec.json.encode(shortened(output))).decode()
    return f"```json\n{told}\n```"


def text_of(content: Any) -> str:
    """The text of a message as Gradio keeps it: a text, or parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return "".join(part.get("text", "") for part in parts if isinstance(part, dict))
