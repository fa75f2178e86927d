"""Which tasks have an endpoint of their own, and what does a request to one want?

`POST {base_path}/embed` takes the fields of the task as they are, beside `model` and `stream`. Only tasks
that a component of the file does have one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from starlette.types import Scope

from model_compose.api.answers import end_event
from model_compose.api.asgi import header, respond_error, wants_events
from model_compose.api.bodies import converted_body, fields_in, is_form
from model_compose.api.calls import Endpoint, Errors, Events, Order
from model_compose.api.names import Model, models_by_name
from model_compose.api.sse import data, event
from model_compose.api.status import error_body
from model_compose.api.typed.results import encoded, more_of, written
from model_compose.compose.app import App
from model_compose.compose.run import Run
from model_compose.config.convert import converted
from model_compose.config.spec import TaskSpec, doc, fields_of
from model_compose.errors import InvalidInput, did_you_mean
from model_compose.types import Blob, Result, plain


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says beside the fields of its task."""

    model: Annotated[
        str | None,
        doc(
            "who does it: the id or an alias of a component, or `component:adapter`; needed where several do"
        ),
    ] = None
    stream: Annotated[
        bool, doc("send the answer as events while it is made; `Accept: text/event-stream` does the same")
    ] = False


#: Words that the API has for something else.
TAKEN: Final = frozenset({"workflows", "tasks", "components", "health"})

_WANTED: Final = frozenset(field.name for field in fields_of(Wanted))


class TypedTask(msgspec.Struct, frozen=True):
    """A task with an endpoint.

    word    the last part of its path
    models  who does it, by every name
    """

    word: str
    task: TaskSpec
    models: Mapping[str, Model]

    @property
    def roots(self) -> list[str]:
        """Ids of the components that do it."""
        return list(dict.fromkeys(model.root for model in self.models.values()))


def typed_tasks(app: App) -> list[TypedTask]:
    """The tasks of a project, in the order of the file; no two have one word."""
    named = models_by_name(app)
    found: dict[str, TypedTask] = {}
    for task in {declared.task.name: declared.task for declared in app.models}.values():
        word = task.verb or task.name
        if word in found or word in TAKEN:
            word = task.name
        models = {name: model for name, model in named.items() if model.task == task.name}
        found[word] = TypedTask(word, task, models)
    return list(found.values())


class Typed:
    """The endpoints of a service, by the last part of their paths."""

    def __init__(self, app: App) -> None:
        self.tasks = typed_tasks(app)
        words = {name: typed.word for typed in self.tasks for name in typed.models}
        self.endpoints = {typed.word: Endpoint(app, _Take(typed, words), _ERRORS) for typed in self.tasks}


async def _respond_error(send: Any, error: BaseException, names: Mapping[str, str]) -> None:
    await respond_error(send, error)


_ERRORS: Final = Errors(lambda error, names: error_body(error), _respond_error)


class _Take:
    """Reads requests of one task; `words` tells where other models are asked."""

    def __init__(self, typed: TypedTask, words: Mapping[str, str]) -> None:
        self._typed = typed
        self._words = words

    async def __call__(self, scope: Scope, body: bytes) -> Order:
        given = await fields_in(scope, body)
        said = {name: given.pop(name) for name in _WANTED & given.keys()}
        said = {name: value for name, value in said.items() if value is not None}
        form = is_form(scope)
        wanted = converted_body(said, Wanted, texts=True) if form else converted(said, Wanted)
        model = self._model(wanted.model)
        if form:
            given = model.inputs.from_texts(given)
        if model.adapters is not None:
            if "adapters" in given:
                raise InvalidInput(
                    f"`adapters` and `model: {model.name}` say the same", field="adapters", hint="keep one"
                )
            given["adapters"] = model.adapters
        streaming = wanted.stream or wants_events(scope)
        return Order(model.workflow, given, {}, _Answer(image=_wants_image(scope)), streaming)

    def _model(self, name: str | None) -> Model:
        typed = self._typed
        roots = typed.roots
        if name is None:
            if len(roots) == 1:
                return typed.models[roots[0]]
            who = " or ".join(f"`{root}`" for root in roots)
            raise InvalidInput("`model` is missing: several components do this", field="model", hint=who)
        if name in typed.models:
            return typed.models[name]
        if name in self._words:
            hint = f"ask `/{self._words[name]}`"
            raise InvalidInput(f"`model`: `{name}` does not do this", field="model", hint=hint)
        near = did_you_mean(name, typed.models)
        raise InvalidInput(f"`model`: there is no model `{name}`", field="model", hint=near)


def _wants_image(scope: Scope) -> bool:
    accept = header(scope, b"accept")
    return b"image/" in accept and b"json" not in accept


class _Answer(msgspec.Struct, frozen=True):
    """What a result becomes. `image`: the bytes of one, where it is one."""

    image: bool

    async def body(self, run: Run, output: Any) -> bytes | Blob:
        file = plain(output) if isinstance(output, Result) else output
        if self.image and isinstance(file, Blob):
            return file
        if isinstance(output, Result) and not isinstance(file, Blob):
            return encoded(output)
        return await asyncio.to_thread(encoded, output)  # a list of vectors, or a picture as a text

    def events(self, run: Run) -> Events:
        return _Events()


class _Events:
    """The same events as those of a run; what a piece has beside its text is an event of its own."""

    def begin(self) -> bytes:
        return b""

    def pieces(self, pieces: list[Any]) -> bytes:
        frames = []
        for piece in pieces:
            more = more_of(piece)
            frames += [data([piece]), *([event("more", more)] if more else [])]
        return b"".join(frames)

    def whole(self, output: Any) -> bytes:
        return data([written(output)])

    def end(self, run: Run) -> bytes:
        return end_event(run)

    def error(self, error: dict[str, Any]) -> bytes:
        return event("error", error)
