"""How does vLLM answer in a conversation?

The chat template is the tokenizer's own (or `options.chat_template`), rendered by transformers in Jinja's
sandbox. Where a call of a tool is demanded, the output can be nothing else.
"""

from __future__ import annotations

import json
from typing import Any

from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.huggingface.text import tokens_of
from model_compose.drivers.vllm.size import known_options
from model_compose.errors import InvalidInput
from model_compose.tasks.chat_completion import tool_calls
from model_compose.tasks.chat_completion.prompts import check_tools, rendered, template_of
from model_compose.tasks.chat_completion.spec import ChatCompletion, Message, drop_oldest
from model_compose.tasks.generation import too_long
from model_compose.tasks.text_generation.answer import Splits
from model_compose.tasks.text_generation.vllm.model import Generator, Plan
from model_compose.tasks.text_generation.vllm.sampling import form


class Chat(Generator):
    """An `EngineModel` for chat-completion."""

    def __init__(self) -> None:
        super().__init__()
        self._template = ""

    def _prepared(self, options: LoadOptions) -> dict[str, str]:
        self._template, whose = template_of(self.engine.tokenizer, known_options(options).chat_template)
        return {"chat_template": whose}

    def plan(self, request: Any) -> Plan:
        """The tokens of a conversation, rendered; blocks. With `truncate`, the oldest messages go first."""
        check_tools(request, self._template)
        wanted, splits = _answer(request)
        messages, limit = list(request.messages), self.limit(request)
        while len(tokens := self._tokens(request, messages)) > limit:
            if not request.truncate:
                raise too_long(len(tokens), limit, self.engine.context)
            if not drop_oldest(messages):
                break  # the last message alone is too long: `with_room` says so
        return Plan(self.with_room(tokens), wanted, splits)

    def _tokens(self, request: ChatCompletion, messages: list[Message]) -> list[int]:
        text = rendered(self.engine.tokenizer, self._template, request, messages)
        # The template has written the special tokens that belong there.
        return tokens_of(self.engine.tokenizer, text, special=False)


class Demanded:
    """How calls stand in an answer that can be nothing else: a list of them, as JSON."""

    def text_before(self, text: str) -> str:
        """Nothing of it is for people."""
        return ""

    def split(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        """The calls, unless the answer was cut off within them: then it is text."""
        try:
            found = json.loads(text)
        except ValueError:
            return text, []
        calls = [tool_calls.call_of(each, i) for i, each in enumerate(found)]
        return "", [call for call in calls if call is not None]


def _answer(request: ChatCompletion) -> tuple[dict[str, Any] | None, Splits | None]:
    """The form that the answer must have, and how calls of tools stand in it. Raises InvalidInput."""
    wanted = form(request.response_format)
    if not request.tools or request.tool_choice == "none":
        return wanted, None
    if wanted is not None:
        raise InvalidInput(
            "an answer of a `response_format` cannot call tools",
            field="response_format",
            hint="write `tool_choice: none`, or leave one of the two out",
        )
    if request.tool_choice in (None, "auto"):
        return None, tool_calls
    return {"json": calls_schema(request)}, Demanded()


def calls_schema(request: ChatCompletion) -> dict[str, Any]:
    """The JSON Schema of calls of the tools that `tool_choice` allows. Raises InvalidInput."""
    functions = {tool["function"]["name"]: tool["function"] for tool in request.tools or ()}
    choice = request.tool_choice
    if isinstance(choice, dict):
        inner = choice.get("function")
        name = inner.get("name") if isinstance(inner, dict) else None
        if name not in functions:
            known = ", ".join(f"`{each}`" for each in functions)
            raise InvalidInput(f"there is no tool `{name}`; there are: {known}", field="tool_choice")
        functions = {name: functions[name]}
    elif choice != "required":
        raise InvalidInput(
            f"`tool_choice` is `{choice}`",
            field="tool_choice",
            hint="valid: `auto`, `none`, `required`, or `{type: function, function: {name: ...}}`",
        )
    definitions: dict[str, Any] = {}
    schema: dict[str, Any] = {
        "type": "array",
        "minItems": 1,
        **({"maxItems": 1} if isinstance(choice, dict) else {}),
        "items": {"anyOf": [_call_schema(name, each, definitions) for name, each in functions.items()]},
    }
    return {**schema, "$defs": definitions} if definitions else schema


def _call_schema(name: str, function: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a call of one tool; what its parameters refer to joins the definitions."""
    arguments = dict(function.get("parameters") or {"type": "object"})
    for key, value in arguments.pop("$defs", {}).items():
        if definitions.setdefault(key, value) != value:
            raise InvalidInput(f"two tools have different `$defs/{key}`", field="tools")
    return {
        "type": "object",
        "properties": {"name": {"enum": [name]}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
