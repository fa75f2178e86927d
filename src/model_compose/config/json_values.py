"""What may a file write for a value of a declared type, as a JSON Schema?

Every scalar may be a variable of the environment, and where the file is a template, any expression.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Collection, Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET

from model_compose.config.annotations import bare, is_list, is_map, is_struct, members
from model_compose.config.spec import NO_DEFAULT, Field, fields_of
from model_compose.config.template import OPERATOR_KEYS

JsonSchema = dict[str, Any]

#: An expression that has no value when a file is loaded: over something else than the environment.
_LATER: Final = r"(?<!\$)\$\{\s*(?!env\.|\s)"
_REFERENCES: Final[dict[str, JsonSchema]] = {
    "env": {
        "type": "string",
        "pattern": rf"^(?![\s\S]*{_LATER})[\s\S]*\$\{{",
        "description": "a variable of the environment: `${env.NAME}`",
    },
    "expression": {"type": "string", "pattern": r"\$\{", "description": "an expression: `${input.text}`"},
    # A number that stands where text is wanted is taken as it is written.
    "text": {"type": ["string", "number", "boolean"], "pattern": rf"^(?![\s\S]*{_LATER})"},
    "template": {"type": ["string", "number", "boolean"]},
    "operators": {
        "type": "object",
        "anyOf": [{"required": [key]} for key in sorted(OPERATOR_KEYS)],
        "description": "a map that is worked out: `...`, `*`, `|`, `?` or `+`",
    },
}


class Values:
    """Schemas of values; those that have a name stand in `definitions`, for references to them."""

    def __init__(self) -> None:
        self.definitions: dict[str, JsonSchema] = dict(_REFERENCES)
        self._structs: dict[tuple[type[msgspec.Struct], bool], str] = {}

    def properties(self, struct: type[msgspec.Struct], *, template: bool = False) -> dict[str, JsonSchema]:
        """The fields of a struct by every name that they have."""
        return {
            name: self._field(field, name, template or field.template)
            for field in fields_of(struct)
            for name in field.names
        }

    def struct(self, cls: type[msgspec.Struct], *, template: bool = False) -> JsonSchema:
        """A reference to the definition of a struct."""
        name = self._structs.get((cls, template))
        if name is None:
            name = f"{cls.__name__}.template" if template else cls.__name__
            while name in self.definitions:
                name += "_"  # another class of the same name
            self._structs[cls, template] = name
            self.definitions[name] = {}  # it may contain itself
            keys = self.properties(cls, template=template)
            tag = cls.__struct_config__
            if tag.tag_field is not None:
                keys = {tag.tag_field: {"const": tag.tag}, **keys}
            required = [field.names for field in fields_of(cls) if field.required]
            self.definitions[name] = closed(
                keys, required=required, exclusive=same_fields(cls), about=summary(cls)
            )
        return ref(name)

    def _field(self, field: Field, name: str, template: bool) -> JsonSchema:
        if field.quantity is not None:
            null = [{"type": "null"}] if field.default is None else []
            value = any_of([field.quantity.schema, *null])
        else:
            value = self._value(field.accepts, template)
        about = field.description
        if name != field.name:
            about += f" (the same as `{field.name}`)"
        default = _json(field.default)
        return {"description": about, **value, **({} if default is UNSET else {"default": default})}

    def _value(self, annotation: Any, template: bool) -> JsonSchema:
        options = members(annotation)
        kinds = {bare(option) for option in options}
        if Any in kinds:
            return {}
        schemas = [self._option(option, template) for option in options]
        if str not in kinds:
            schemas.append(ref("expression" if template else "env"))
        elif not kinds & {int, float, bool}:
            text = ref("template" if template else "text")
            schemas = [_with(text, each) if each.get("type") == "string" else each for each in schemas]
        return any_of([*schemas, ref("operators")] if template else schemas)

    def _option(self, annotation: Any, template: bool) -> JsonSchema:
        kind = bare(annotation)
        arguments = typing.get_args(kind)
        if is_struct(kind):
            return self.struct(kind, template=template)
        if is_list(kind):
            return {"type": "array", "items": self._value(arguments[0], template)}
        if is_map(kind):
            return {"type": "object", "additionalProperties": self._value(arguments[1], template)}
        if typing.get_origin(kind) is Literal:
            return {"enum": list(arguments)}
        schema = msgspec.json.schema(annotation)
        return {key: value for key, value in schema.items() if key != "description"}


def closed(
    properties: Mapping[str, JsonSchema],
    *,
    required: Collection[tuple[str, ...]] = (),
    exclusive: Collection[tuple[str, ...]] = (),
    rules: Collection[JsonSchema] = (),
    about: str = "",
) -> JsonSchema:
    """A map that has these keys, free ones (`x-...`), and no others.

    required   the names of each key that must be there, under one of them
    exclusive  keys that cannot stand beside each other
    rules      schemas that it must satisfy besides
    """
    rules = [
        *rules,
        *({"anyOf": [{"required": [name]} for name in names]} for names in required if len(names) > 1),
        *({"not": {"required": list(names)}} for names in exclusive),
    ]
    needed = [names[0] for names in required if len(names) == 1]
    return {
        **({"description": about} if about else {}),
        "type": "object",
        "properties": dict(properties),
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
        **({"required": needed} if needed else {}),
        **({"allOf": rules} if rules else {}),
    }


def ref(name: str) -> JsonSchema:
    """A reference to a definition, or to a part of one."""
    return {"$ref": f"#/$defs/{name}"}


def any_of(schemas: list[JsonSchema]) -> JsonSchema:
    """What satisfies one of several schemas."""
    return dict(schemas[0]) if len(schemas) == 1 else {"anyOf": schemas}


def same_fields(struct: type[msgspec.Struct]) -> list[tuple[str, ...]]:
    """Pairs of names of the same field."""
    return [(field.name, alias) for field in fields_of(struct) for alias in field.aliases]


def summary(struct: type[msgspec.Struct]) -> str:
    """The first line of a struct's documentation."""
    return (struct.__doc__ or "").strip().partition("\n")[0]


def _with(text: JsonSchema, limited: JsonSchema) -> JsonSchema:
    """A kind of text within limits, such as its least length."""
    limits = {key: value for key, value in limited.items() if key != "type"}
    return {"allOf": [text, limits]} if limits else text


def _json(default: Any) -> Any:
    """A default as JSON; UNSET if there is none, or none that says anything."""
    return UNSET if default in (UNSET, NO_DEFAULT, None, (), math.inf) else msgspec.to_builtins(default)
