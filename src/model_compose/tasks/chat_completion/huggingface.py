"""How does transformers answer in a conversation?

The chat template is the tokenizer's own (or `options.chat_template`), rendered by the library in Jinja's
sandbox.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.huggingface.load import driver_options
from model_compose.drivers.huggingface.text import tokens_of
from model_compose.errors import InvalidInput
from model_compose.tasks.chat_completion import tool_calls
from model_compose.tasks.chat_completion.spec import ChatCompletion, Message, drop_oldest
from model_compose.tasks.generation import too_long
from model_compose.tasks.text_generation.huggingface.model import Generator
from model_compose.tasks.text_generation.huggingface.output import Splits

#: For models that bring no template: the one that most were trained with.
CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Chat(Generator):
    """An `EngineModel` for chat-completion."""

    def __init__(self) -> None:
        super().__init__()
        self._template = ""
        self._whose = ""

    def _prepare_tokenizer(self, options: LoadOptions) -> None:
        chosen, own = driver_options(options).chat_template, self.tokenizer.chat_template
        if isinstance(own, dict):  # several, by name
            own = own.get("tool_use") or own.get("default")
        self._template = chosen or own or CHATML
        self._whose = "of the component" if chosen else "of the tokenizer" if own else "ChatML"

    def _details(self) -> dict[str, str]:
        return {"chat_template": self._whose}

    def prompt(self, request: Any) -> list[int]:
        """The tokens of a conversation, rendered; blocks. With `truncate`, the oldest messages go first."""
        if request.tools and "tools" not in self._template:
            raise InvalidInput(
                "the chat template of this model has no place for tools",
                field="tools",
                hint="choose a model that was trained to call tools, or set `options.chat_template`",
            )
        for tool in request.tools or ():
            if not isinstance(tool.get("function"), dict) or not tool["function"].get("name"):
                raise InvalidInput(
                    "a tool is a map with `type: function` and a `function` that has a `name`", field="tools"
                )
        if request.tool_choice not in (None, "auto", "none"):
            raise InvalidInput(
                "driver `huggingface` cannot force a call of a tool", field="tool_choice", hint="write `auto`"
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
        from jinja2 import TemplateError

        tools = request.tools if request.tool_choice != "none" else None
        try:
            text = self.tokenizer.apply_chat_template(
                msgspec.to_builtins(messages),
                tools=tools,
                chat_template=self._template,
                add_generation_prompt=True,
                tokenize=False,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"the chat template of this model refuses the conversation: {error}", field="messages"
            ) from error
        # The template has written the special tokens that belong there.
        return tokens_of(self.tokenizer, text, special=False)
