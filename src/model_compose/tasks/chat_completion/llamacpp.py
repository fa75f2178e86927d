"""How does llama.cpp answer in a conversation?

The chat template is the GGUF file's own (or `options.chat_template`). It is rendered by llama.cpp's
own Jinja interpreter, which knows no Python and reaches neither files nor network.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from model_compose.errors import InvalidInput
from model_compose.tasks.chat_completion.spec import ChatCompletion, Message, drop_oldest
from model_compose.tasks.generation import too_long
from model_compose.tasks.text_generation.llamacpp import Generator


class Chat(Generator):
    """An `EngineModel` for chat-completion."""

    kind: Literal["completions", "chat_completions"] = "chat_completions"

    def payload(self, request: Any) -> dict[str, Any]:
        """Messages, tools and the form of the answer."""
        if request.tools and not self.engine.knows_tools():
            raise InvalidInput(
                "the chat template of this model has no place for tools",
                field="tools",
                hint="choose a model that was trained to call tools, or set `options.chat_template`",
            )
        form = request.response_format
        return {
            "messages": msgspec.to_builtins(self._messages(request)),
            **({"tools": request.tools} if request.tools else {}),
            **({"tool_choice": request.tool_choice} if request.tool_choice else {}),
            **({"response_format": msgspec.to_builtins(form)} if form else {}),
            **(
                {}
                if request.logprobs is None
                else {"logprobs": True, "top_logprobs": max(1, request.logprobs)}
            ),
        }

    def _messages(self, request: ChatCompletion) -> list[Message]:
        """The messages that fit: with `truncate`, the oldest go first, but for the system's and the last."""
        messages = list(request.messages)
        limit = self.input_limit(request)
        while limit is not None:
            size = self._tokens(request, messages)
            if size <= limit:
                break
            if not request.truncate:
                raise too_long(size, limit, self.engine.info.context_length or 0)
            if not drop_oldest(messages):
                break  # the last message alone is too long: the engine says so, with both numbers
        return messages

    def _tokens(self, request: ChatCompletion, messages: list[Message]) -> int:
        body = {
            "messages": msgspec.to_builtins(messages),
            **({"tools": request.tools} if request.tools else {}),
        }
        return len(self.engine.tokenize(self.engine.post("/apply-template", body)["prompt"]))
