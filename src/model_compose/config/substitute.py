"""What is a template once the variables of the environment are filled in?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from model_compose.config.expression import (
    ExpressionError,
    Reference,
    Renderable,
    Template,
    UnsetVariable,
    template_of,
)
from model_compose.config.scalars import resolve
from model_compose.config.values import MEDIA_TYPES, convert, to_text
from model_compose.errors import ConfigErrors, InvalidInput


def substitute_env(template: Template, get: Callable[[str], str | None], *, as_text: bool = False) -> Any:
    """`template` with every `${env.X}` replaced by the text of the variable, which is never parsed.

    `get` gives the text of a variable, or None where it is not set; then the default counts. An
    untyped reference that is the whole template becomes the scalar which that text is in YAML. What
    comes back is a scalar, a list or a map, or a Template while something is left to render: another
    reference, or an image that the variable or its default stands for. With `as_text` a text is not
    read as a scalar, so that a number stays as it is written.
    Raises ConfigErrors: an UnsetVariable for each unset variable without default (those in a default
    that is not needed are not looked at), an ExpressionError for each text that its type refuses.
    """
    environment = _Environment(get)
    found = environment.replaced(template, as_text=as_text)
    if environment.errors:
        raise ConfigErrors(environment.errors)
    return Template(template.text, (found,)) if isinstance(found, Reference) else found


class _Environment:
    """Replaces references to `env`, and notes what is wrong with them."""

    def __init__(self, get: Callable[[str], str | None]) -> None:
        self.get = get
        self.errors: list[ExpressionError] = []

    def replaced(self, node: Any, *, as_text: bool) -> Any:
        """The constant that `node` comes to, or what is left to render.

        With `as_text`, the value goes into a text: a variable is then no scalar that would lose the
        zero of `1.10`.
        """
        if isinstance(node, Reference):
            return self.reference(node, as_text)
        if not isinstance(node, Template):
            return node
        if (whole := node.whole) is not None:
            return self.reference(whole, as_text)
        pieces: list[str | Reference] = []
        for part in node.parts:
            found = self.replaced(part, as_text=True)
            if isinstance(found, Template):
                pieces.extend(found.parts)
            else:
                pieces.append(found if isinstance(found, Reference) else to_text(found, "env"))
        return template_of(node.text, pieces)

    def reference(self, reference: Reference, as_text: bool) -> Any:
        default_as_text = as_text or (reference.type is not None and reference.type.is_text)
        if reference.key != "env":
            default = self.replaced(reference.default, as_text=default_as_text)
            if default is not reference.default:
                self.typed(reference, default)
            return replace(reference, default=default)
        if len(reference.path) != 1 or not isinstance(reference.path[0], str):
            self.refuse(reference, "`env` takes the name of one variable: `${env.NAME}`")
            return None
        name = reference.path[0]
        text = self.get(name)
        if text == "" and reference.default is not UNSET:
            text = None  # `X=` in an environment file is how people leave a variable out
        if text is not None:
            return self.typed(reference, text if as_text or reference.type else resolve(text))
        if reference.default is UNSET:
            self.errors.append(UnsetVariable(name, reference.start, reference.end))
            return None
        return self.typed(reference, self.replaced(reference.default, as_text=default_as_text))

    def typed(self, reference: Reference, value: Any) -> Any:
        """`value` under the type of `reference`, or what converts it once there is a scope."""
        if reference.type is None:
            return value
        if isinstance(value, Renderable) or reference.type.name in MEDIA_TYPES:
            return _only_default(reference, value)
        try:
            return convert(value, reference.type, reference.field, {})
        except InvalidInput:
            # Without the value, which may be a secret.
            self.refuse(reference, f"a variable in `{reference.text}` is no `{reference.type.name}`")
            return None

    def refuse(self, reference: Reference, message: str) -> None:
        self.errors.append(ExpressionError(message, reference.start, reference.end))


def _only_default(reference: Reference, default: Any) -> Reference:
    return replace(reference, key="", path=(), default=default)
