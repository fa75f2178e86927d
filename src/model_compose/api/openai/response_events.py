"""How does a response become events, item by item?

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import Any

import msgspec

from model_compose.api.openai.texts import (
    completions_of,
    delta_of,
    delta_of_whole,
    tool_calls_of,
)
from model_compose.compose.run import Run
from model_compose.tasks.generation import Completion, TextDelta
from model_compose.types import Usage


def output_of(completion: Completion, run: Run) -> dict[str, Any]:
    """What a response has when it is complete: its items, how it ended and what it cost."""
    items: list[dict[str, Any]] = []
    if completion.reasoning:
        items.append(_reasoning(run, completion.reasoning))
    calls = tool_calls_of(completion.tool_calls or [], run.id, indexed=False)
    cut = completion.finish_reason == "length"
    if completion.text or not calls:
        items.append(_message(run, completion.text, "incomplete" if cut else "completed"))
    items += [_call(run, i, call) for i, call in enumerate(calls)]
    return {"output": items, **_end(completion, run)}


def _end(completion: Completion, run: Run) -> dict[str, Any]:
    cut = completion.finish_reason == "length"
    return {
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "usage": _usage(run.usage),
    }


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }


def _reasoning(run: Run, text: str | None, status: str = "completed") -> dict[str, Any]:
    content = [] if text is None else [{"type": "reasoning_text", "text": text}]
    return {"id": f"rs_{run.id}", "type": "reasoning", "summary": [], "content": content, "status": status}


def _message(run: Run, text: str | None, status: str) -> dict[str, Any]:
    content = [] if text is None else [_part(text)]
    return {
        "id": f"msg_{run.id}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call(run: Run, index: int, call: dict[str, Any], status: str = "completed") -> dict[str, Any]:
    function = call.get("function") or {}
    return {
        "id": f"fc_{run.id}_{index}",
        "type": "function_call",
        "status": status,
        "call_id": call.get("id"),
        "name": function.get("name"),
        "arguments": function.get("arguments") or "",
    }


class _Item:
    """An item of the output while it grows. `index` is its place in the output."""

    def __init__(self, index: int, made: dict[str, Any]) -> None:
        self.index = index
        self.made = made
        self.text: list[str] = []


class ResponseEvents:
    """A response as events: each item is announced, grows and is complete, one after the other."""

    def __init__(self, run: Run, about: dict[str, Any]) -> None:
        self._run = run
        self._about = about
        self._number = 0
        self._items: dict[str, _Item] = {}
        self._last: str | None = None

    def begin(self) -> bytes:
        about = {"response": self._about}
        return self._event("response.created", **about) + self._event("response.in_progress", **about)

    def pieces(self, pieces: list[Any]) -> bytes:
        return b"".join([self._piece(delta_of(piece)) for piece in pieces])

    def whole(self, output: Any) -> bytes:
        (completion, *_) = completions_of(output, self._run)
        return self._piece(delta_of_whole(completion, 0))

    def end(self, run: Run) -> bytes:
        (completion, *_) = completions_of(run.output, run)
        frames = []
        if not self._items:
            frames.append(self._text(""))  # an answer without a word is a message all the same
        frames.append(self._close(self._last))
        ended = _end(completion, run)
        output = [item.made for item in self._items.values()]
        response = {**self._about, **ended, "output": output}
        frames.append(self._event(f"response.{ended['status']}", response=response))
        return b"".join(frames)

    def error(self, error: dict[str, Any]) -> bytes:
        told = error["error"]
        failed = {"code": told["code"] or "server_error", "message": told["message"]}
        response = {**self._about, "status": "failed", "error": failed}
        return self._event("response.failed", response=response)

    def _piece(self, delta: TextDelta) -> bytes:
        frames = []
        if delta.reasoning:
            frames.append(self._thought(delta.reasoning))
        if delta.text:
            frames.append(self._text(delta.text))
        frames += [
            self._called(call) for call in tool_calls_of(delta.tool_calls or [], self._run.id, indexed=True)
        ]
        return b"".join(frames)

    def _thought(self, text: str) -> bytes:
        item, opened = self._open("reasoning", _reasoning(self._run, None, "in_progress"))
        item.text.append(text)
        return opened + self._event(
            "response.reasoning_text.delta", **self._place(item), content_index=0, delta=text
        )

    def _text(self, text: str) -> bytes:
        fresh = "message" not in self._items
        item, opened = self._open("message", _message(self._run, None, "in_progress"))
        if fresh:
            opened += self._event(
                "response.content_part.added", **self._place(item), content_index=0, part=_part("")
            )
        if not text:
            return opened
        item.text.append(text)
        return opened + self._event(
            "response.output_text.delta", **self._place(item), content_index=0, delta=text, logprobs=[]
        )

    def _called(self, call: dict[str, Any]) -> bytes:
        number, function = call["index"], call.get("function") or {}
        made = _call(self._run, number, {**call, "function": {**function, "arguments": ""}}, "in_progress")
        item, opened = self._open(f"call {number}", made)
        given = function.get("arguments")
        if not given:
            return opened
        item.text.append(given)
        return opened + self._event(
            "response.function_call_arguments.delta", **self._place(item), delta=given
        )

    def _open(self, key: str, made: dict[str, Any]) -> tuple[_Item, bytes]:
        """An item, and what announces it if it is new; the one before it is complete then."""
        if key in self._items:
            return self._items[key], b""
        closed = self._close(self._last)
        item = self._items[key] = _Item(len(self._items), made)
        self._last = key
        added = self._event("response.output_item.added", output_index=item.index, item=made)
        return item, closed + added

    def _close(self, key: str | None) -> bytes:
        """What says that an item is complete."""
        if key is None:
            return b""
        item = self._items[key]
        text, place = "".join(item.text), self._place(item)
        if key == "message":
            item.made = _message(self._run, text, "completed")
            done = self._event(
                "response.output_text.done", **place, content_index=0, text=text, logprobs=[]
            ) + self._event("response.content_part.done", **place, content_index=0, part=_part(text))
        elif key == "reasoning":
            item.made = _reasoning(self._run, text)
            done = self._event("response.reasoning_text.done", **place, content_index=0, text=text)
        else:
            item.made = {**item.made, "arguments": text, "status": "completed"}
            done = self._event(
                "response.function_call_arguments.done", **place, name=item.made["name"], arguments=text
            )
        return done + self._event("response.output_item.done", output_index=item.index, item=item.made)

    def _place(self, item: _Item) -> dict[str, Any]:
        return {"item_id": item.made["id"], "output_index": item.index}

    def _event(self, kind: str, **more: Any) -> bytes:
        body = msgspec.json.encode({"type": kind, "sequence_number": self._number, **more})
        self._number += 1
        return b"event: " + kind.encode() + b"\ndata: " + body + b"\n\n"
