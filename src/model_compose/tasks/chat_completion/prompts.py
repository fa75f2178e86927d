"""How does a conversation become a prompt, where a tokenizer of transformers renders its template?

In Jinja's sandbox, which the library brings.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from model_compose.errors import InvalidInput
from model_compose.tasks.chat_completion.spec import ChatCompletion, Message

#: For models that bring no template: the one that most were trained with.
CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def template_of(tokenizer: Any, chosen: str | None) -> tuple[str, str]:
    """The template of a model, and whose it is."""
    own = tokenizer.chat_template
    if isinstance(own, dict):  # several, by name
        own = own.get("tool_use") or own.get("default")
    whose = "of the component" if chosen else "of the tokenizer" if own else "ChatML"
    return chosen or own or CHATML, whose


def check_tools(request: ChatCompletion, template: str) -> None:
    """Raise InvalidInput for tools that the model would not be shown, or that are none."""
    if request.tools and "tools" not in template:
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


def rendered(tokenizer: Any, template: str, request: ChatCompletion, messages: list[Message]) -> str:
    """The text of a conversation, up to where the answer begins. Raises InvalidInput."""
    from jinja2 import TemplateError

    try:
        return str(
            tokenizer.apply_chat_template(
                msgspec.to_builtins(messages),
                tools=request.tools if request.tool_choice != "none" else None,
                chat_template=template,
                add_generation_prompt=True,
                tokenize=False,
            )
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"the chat template of this model refuses the conversation: {error}", field="messages"
        ) from error
