"""How does transformers answer in a conversation?

The chat template is the tokenizer's own (or `options.chat_template`), rendered by the library in Jinja's
sandbox.
"""

from __future__ import annotations

from typing import Any

from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.huggingface.load import driver_options
from model_compose.drivers.huggingface.text import tokens_of
from model_compose.errors import InvalidInput
from model_compose.tasks.chat_completion import tool_calls
from model_compose.tasks.chat_completion.prompts import check_tools, rendered, template_of
from model_compose.tasks.chat_completion.spec import ChatCompletion, Message, drop_oldest
from model_compose.tasks.generation import too_long
from model_compose.tasks.text_generation.answer import Splits
from model_compose.tasks.text_generation.huggingface.model import Generator, Library


class Chat(Generator):
    """An `EngineModel` for chat-completion."""

    def __init__(self, library: Library | None = None) -> None:
        super().__init__(library)
        self._template = ""
        self._whose = ""

    def _prepare_tokenizer(self, options: LoadOptions) -> None:
        chosen = driver_options(options).chat_template
        self._template, self._whose = template_of(self.tokenizer, chosen)

    def _details(self) -> dict[str, str]:
        return {"chat_template": self._whose}

    def prompt(self, request: Any) -> list[int]:
        """The tokens of a conversation, rendered; blocks. With `truncate`, the oldest messages go first."""
        check_tools(request, self._template)
        if request.tool_choice not in (None, "auto", "none"):
            raise InvalidInput(
                f"driver `{self._library.driver}` cannot force a call of a tool",
                field="tool_choice",
                hint="write `auto`",
            )
        messages, limit = list(request.messages), self.limit(request)
        while len(tokens := self._tokens(request, messages)) > limit:
            if not request.truncate:
                raise too_long(len(tokens), limit, self._context)
            if not drop_oldest(messages):
                break  # the last message alone is too long: `with_room` says so
        return self.with_room(tokens)

    def splits(self, request: Any) -> Splits | None:
        """Answers may call tools where there are any."""
        return tool_calls if request.tools and request.tool_choice != "none" else None

    def _tokens(self, request: ChatCompletion, messages: list[Message]) -> list[int]:
        text = rendered(self.tokenizer, self._template, request, messages)
        # The template has written the special tokens that belong there.
        return tokens_of(self.tokenizer, text, special=False)
