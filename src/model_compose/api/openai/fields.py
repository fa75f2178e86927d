"""What does a body say, in whose words, and what of it goes on to the model?

A body may have the fields of OpenAI's API and, beside them, those of the task itself under our own names
(`top_k`, `repetition_penalty`, `adapters`). Nothing is dropped: every field goes to the model, or is one of
those that change nothing (`user`), or is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec
from starlette.types import Scope

from model_compose.api.asgi import header
from model_compose.api.bodies import refuse_deep
from model_compose.api.names import Model
from model_compose.config.convert import converted
from model_compose.config.spec import fields_of
from model_compose.errors import BadRequest, InvalidInput, did_you_mean

Body = TypeVar("Body", bound=msgspec.Struct)

_JSON: Final = b"application/json"


class Fields(Generic[Body]):
    """Reads the bodies of one route.

    refused  fields of OpenAI's that nothing here does, each with the reason
    """

    def __init__(self, body: type[Body], refused: Mapping[str, str]) -> None:
        self._type = body
        self._refused = refused
        self._decoder = msgspec.json.Decoder(body)
        self.names = frozenset(field.name for field in fields_of(body))

    def read(self, scope: Scope, body: bytes) -> tuple[Body, dict[str, Any]]:
        """A body, and its fields that are not OpenAI's. Raises BadRequest, InvalidInput."""
        if header(scope, b"content-type").partition(b";")[0].strip().lower() != _JSON:
            raise BadRequest(
                "the body is not announced as JSON", hint="send `Content-Type: application/json`"
            )
        try:
            return self._read(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"the body is not JSON: {error}") from error
        except RecursionError:
            raise BadRequest("the body is nested too deeply") from None

    def _read(self, body: bytes) -> tuple[Body, dict[str, Any]]:
        try:
            found = self._decoder.decode(body)
        except msgspec.ValidationError:  # which says nothing of what follows in the body
            refuse_deep(body)
            return self._split(msgspec.json.decode(body))
        refuse_deep(body)
        return found, {}

    def _split(self, given: Any) -> tuple[Body, dict[str, Any]]:
        if not isinstance(given, dict):
            raise BadRequest("the body is no JSON object")
        own = {name: value for name, value in given.items() if name not in self.names and value is not None}
        for name, reason in self._refused.items():
            if name in own:
                raise InvalidInput(f"`{name}` is not supported: {reason}", field=name)
        known = {name: value for name, value in given.items() if name in self.names}
        return converted(known, self._type), own


class Given:
    """What a request gives to a model.

    values  the input of what is run
    names   what the client calls the fields that we call otherwise
    """

    def __init__(self, model: Model, own: Mapping[str, Any], known: frozenset[str]) -> None:
        self.values: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self._model = model
        inputs = model.inputs
        for name, value in own.items():
            if inputs.closed and name not in inputs.keys and name not in inputs.refused:
                hint = did_you_mean(name, inputs.keys | known)
                raise InvalidInput(f"unknown field `{name}`", field=name, hint=hint)
            self.values[name] = value
        if model.adapters is not None:
            self.put("adapters", "model", model.adapters)

    def put(self, ours: str, theirs: str, value: Any) -> None:
        """A field of OpenAI's under the name that we have for it; null is as good as not given."""
        if value is None:
            return
        inputs = self._model.inputs
        name = ours
        if self._model.is_workflow and inputs.closed and ours not in inputs.keys:
            if theirs not in inputs.keys:
                hint = f"refer to it in the file as `${{input.{ours}}}`"
                where = f"workflow `{self._model.root}`"
                raise InvalidInput(f"{where} takes no `{theirs}`", field=theirs, hint=hint)
            name = theirs
        if name in self.values:
            other = self.names.get(name, name)
            raise InvalidInput(
                f"`{theirs}` and `{other}` say the same", field=theirs, hint="send one of them"
            )
        self.values[name] = value
        if theirs != name:
            self.names[name] = theirs


def only(name: str, value: Any, *harmless: Any, why: str) -> None:
    """Raise InvalidInput for a value that would have to change something."""
    if value is not None and value not in harmless:
        raise InvalidInput(f"`{name}` cannot be {msgspec.json.encode(value).decode()}: {why}", field=name)
