"""How does somebody fill in one field of an input? By the schema that the service has for it.

What is left as it is is not sent, so that the service's own defaults count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import gradio as gr
import msgspec

from model_compose.errors import BadRequest
from model_compose.types import for_json
from model_compose.ui.blobs import read_file
from model_compose.ui.gateway import from_json

#: Stands for a field that is not sent.
NOTHING: Final = msgspec.UNSET

_MEDIA: Final = ("image", "audio", "video", "file")
_NUMBERS: Final = ("integer", "number")
#: A slider for more numbers than that is harder to set than a number is to write.
_WIDEST: Final = {"integer": 100, "number": 10}
_STEPS: Final = 100


class Input(msgspec.Struct, frozen=True):
    """A field of a form.

    read  what is sent for what somebody filled in; raises BadRequest
    """

    name: str
    component: Any
    read: Callable[[Any], Any]


def own_fields(fields: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The fields without those that are other names of one."""
    return [field for field in fields if "alias_of" not in field]


def is_media(field: Mapping[str, Any]) -> bool:
    """Whether a field wants a file."""
    return field["type"] in _MEDIA and field.get("format") not in ("url", "path")


def input_of(field: Mapping[str, Any]) -> Input:
    """The part of a form for a field; it is placed where the caller is."""
    kind, schema = field["type"], field.get("schema", {})
    about: dict[str, Any] = {"label": _label(field)}
    if is_media(field):
        return _upload(field, about)
    about["info"] = field.get("description")
    default = field.get("default")
    options = field.get("options") if kind == "select" else _enum(schema)
    if options:
        return _choice(field["name"], [str(each) for each in options], default, about)
    if kind == "boolean":
        return _switch(field["name"], default, about)
    if kind == "slider":
        low, high, *rest = (float(each) for each in field["options"])
        return _slider(field["name"], low, high, rest[0] if rest else None, default, about)
    limits = _limits(schema)
    if kind in _NUMBERS and default is not None and limits and limits[1] - limits[0] <= _WIDEST[kind]:
        step = 1.0 if kind == "integer" else None
        return _slider(field["name"], *limits, step, default, about)
    if kind in _NUMBERS:
        return _number(field["name"], kind, default, about)
    if kind in ("json", "object", "list"):
        return _json(field["name"], kind, default, about)
    return _text(field, default, about)


def together(inputs: Sequence[Input], values: Sequence[Any]) -> dict[str, Any]:
    """The input of a run from what was filled in. Raises BadRequest."""
    given: dict[str, Any] = {}
    for each, value in zip(inputs, values, strict=True):
        sent = NOTHING if value is None else each.read(value)  # what was never unfolded may have no value
        if sent is NOTHING:
            continue
        target = given
        *outer, last = each.name.split(".")
        for part in outer:
            target = target.setdefault(part, {})
        target[last] = sent
    return given


def _label(field: Mapping[str, Any]) -> str:
    return f"{field['name']} *" if field.get("required") else str(field["name"])


def _upload(field: Mapping[str, Any], about: Mapping[str, Any]) -> Input:
    name, kind = field["name"], field["type"]
    if field.get("schema", {}).get("type") == "array":
        kinds = None if kind == "file" else [kind]
        files = gr.File(file_count="multiple", file_types=kinds, type="filepath", height=160, **about)
        return Input(name, files, lambda paths: [_uri(path) for path in paths] if paths else NOTHING)
    component: Any
    match kind:
        case "image":
            # With an image mode it would be encoded anew; what was uploaded is what is sent.
            component = gr.Image(
                type="filepath", image_mode=None, sources=["upload", "clipboard"], height=320, **about
            )
        case "audio":
            component = gr.Audio(type="filepath", sources=["upload"], **about)
        case "video":
            component = gr.Video(sources=["upload"], **about)
        case _:
            component = gr.File(type="filepath", height=160, **about)
    return Input(name, component, lambda path: _uri(path) if path else NOTHING)


def _uri(path: str) -> Any:
    return for_json(read_file(path))


def _choice(name: str, options: Sequence[str], default: Any, about: Mapping[str, Any]) -> Input:
    choices = list(options) if default is not None else ["", *options]
    value = choices[0] if default is None else str(default)
    return Input(name, gr.Dropdown(choices, value=value, **about), _unless("", default))


def _switch(name: str, default: Any, about: Mapping[str, Any]) -> Input:
    if isinstance(default, bool):
        return Input(name, gr.Checkbox(default, **about), _unless(default))
    words = {"true": True, "false": False}
    return Input(name, gr.Dropdown(["", *words], value="", **about), lambda word: words.get(word, NOTHING))


def _slider(
    name: str, low: float, high: float, step: float | None, default: Any, about: Mapping[str, Any]
) -> Input:
    whole = step is not None and step.is_integer() and low.is_integer()
    value = low if default is None else default
    component = gr.Slider(low, high, value=value, step=step or (high - low) / _STEPS, **about)
    # What has no default is sent as it stands.
    return Input(name, component, lambda n: NOTHING if n == default else int(n) if whole else n)


def _number(name: str, kind: str, default: Any, about: Mapping[str, Any]) -> Input:
    """A number, or none at all, for which Gradio's own field for numbers has no place."""
    shown = "" if default is None else str(default)

    def read(text: str) -> Any:
        if not text.strip() or text.strip() == shown:
            return NOTHING
        try:
            return int(text) if kind == "integer" else float(text)
        except ValueError as error:
            wanted = "an integer" if kind == "integer" else "a number"
            raise BadRequest(f"`{name}`: expected {wanted}, found `{text[:40]}`") from error

    return Input(name, gr.Textbox(shown, max_lines=1, **about), read)


def _json(name: str, kind: str, default: Any, about: Mapping[str, Any]) -> Input:
    shown = "" if default is None else msgspec.json.encode(default).decode()
    hint = "JSON, or an item in each line" if kind == "list" else "JSON"

    def read(text: str) -> Any:
        if not text.strip() or text == shown:
            return NOTHING
        if kind == "list" and not text.lstrip().startswith("["):
            return text.splitlines()
        return from_json(text, name)

    return Input(name, gr.Textbox(shown, lines=2, placeholder=hint, **about), read)


def _text(field: Mapping[str, Any], default: Any, about: Mapping[str, Any]) -> Input:
    long = field.get("required") or field["type"] in ("text", "markdown")
    shown = "" if default is None else str(default)
    component = gr.Textbox(shown, lines=4 if long else 1, max_lines=16 if long else 1, **about)
    return Input(field["name"], component, _unless("", shown))


def _unless(*left_alone: Any) -> Callable[[Any], Any]:
    """Send a value, unless it is one of these."""
    return lambda value: NOTHING if value in left_alone else value


def _enum(schema: Mapping[str, Any]) -> list[Any] | None:
    """The values of a schema that names them."""
    for each in (schema, *schema.get("anyOf", ())):
        if "enum" in each:
            return [value for value in each["enum"] if value is not None]
    return None


def _limits(schema: Mapping[str, Any]) -> tuple[float, float] | None:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    return None if low is None or high is None else (float(low), float(high))
