"""How do tasks, drivers and component types describe themselves to the rest of us?

Everything that a file may say is a field of a msgspec struct. From the same fields come the check of
a file, the JSON Schema for editors, the reference pages, the input schema of a workflow and the
OpenAPI page; so a field is declared once, with its type, limits, default and description.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Protocol

import msgspec

from model_compose.config.annotations import meta
from model_compose.config.quantities import Quantity

NO_DEFAULT = msgspec.NODEFAULT

Media = Literal["image", "file"]

#: For fields that may also be null: limits stand at the number, not at the union.
Natural = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]

_EXTRAS = ("aliases", "many", "also", "template", "quantity", "refers_to", "later", "media")


def doc(
    description: str,
    *,
    aliases: tuple[str, ...] = (),
    many: bool = False,
    also: Any = None,
    template: bool = False,
    quantity: Quantity | None = None,
    refers_to: Literal["component", "task"] | None = None,
    later: Mapping[str, str | None] | None = None,
    media: Media | None = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    min_length: int | None = None,
) -> msgspec.Meta:
    """The annotation of a field.

    aliases   other names that a file may use for it
    many      of a task's request: a list of values is a list of requests
    also      of a task's request: another type that its `normalise` turns into the field's own
    template  of a configuration struct: the value may contain `${...}` (in a task's request it always may)
    quantity  how a value with a unit is read
    refers_to of which kind in the catalog it is a name
    later     values that other versions of this format have, and what to write instead if there is something
    media     of a task's request: the `Blob` is one of these, and may come as an upload, a data URI or a URL
    """
    limits = {"ge": ge, "gt": gt, "le": le, "min_length": min_length}
    given: dict[str, Any] = {key: value for key, value in limits.items() if value is not None}
    extra = {
        "aliases": aliases,
        "many": many,
        "also": also,
        "template": template,
        "quantity": quantity,
        "refers_to": refers_to,
        "later": later or {},
        "media": media,
    }
    return msgspec.Meta(description=description, extra=extra, **given)


class Field(msgspec.Struct, frozen=True):
    """One field of a struct, as the file may write it."""

    name: str
    type: Any
    default: Any
    description: str
    aliases: tuple[str, ...] = ()
    many: bool = False
    also: Any = None
    template: bool = False
    quantity: Quantity | None = None
    refers_to: Literal["component", "task"] | None = None
    later: Mapping[str, str | None] = {}
    media: Media | None = None

    @property
    def accepts(self) -> Any:
        """The type of what a file or a request may give: one value, another form of it, or many."""
        one = str if self.media is not None else self.type if self.also is None else self.type | self.also
        return list[one] | one if self.many else one  # type: ignore[valid-type]

    @property
    def required(self) -> bool:
        """Whether the file must give it."""
        return self.default is NO_DEFAULT

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a file may use, the proper one first."""
        return (self.name, *self.aliases)


@functools.cache
def fields_of(struct: type[msgspec.Struct]) -> tuple[Field, ...]:
    """The fields of a struct in the order of their declaration."""
    hints = typing.get_type_hints(struct, include_extras=True)
    fields = []
    for each in msgspec.structs.fields(struct):
        about = meta(hints[each.name])
        extra = about.extra or {} if about else {}
        default = each.default
        if each.default_factory is not NO_DEFAULT:
            default = each.default_factory()
        fields.append(
            Field(
                each.encode_name,
                hints[each.name],
                default,
                (about.description if about else None) or "",
                **{key: extra[key] for key in _EXTRAS if key in extra},
            )
        )
    return tuple(fields)


class ActionSpec(msgspec.Struct, frozen=True):
    """What one kind of call takes.

    request  the struct that the call's values become; its fields are the keys of an action
    main     the field that a bare string input fills; a list for it is many requests, if it says `many`
    nested   keys under which fields may stand one level deeper (`params`)
    refuses  fields that exist and that this engine does not have, each with the reason
    result   what it gives, for the reference and for `${result.x}`
    chunk    the type of what it streams, None if it does not stream
    needs    whether, of a map inside a value, a key must have a value: (constant part of the map, key)
    given    compiled trees for fields that the component fills where an action does not
    names    fields of the result that an `output` may also name alone: `${stdout}` beside `${result.stdout}`
    late     fields that the component renders when there is a result: their templates see `${result}`
    streams_in  fields that take a stream of values as it comes
    by       the key that says which of `variants` an action is, such as `method`
    variants     what each value of that key takes; a component without actions has one of each
    fixed    fields that only the file says: where it does not, they are no fields of the input
    check    notes what is wrong with the compiled values of an action together, its `output` among them
    """

    request: type[msgspec.Struct]
    main: str | None = None
    nested: tuple[str, ...] = ()
    refuses: Mapping[str, str] = {}
    result: Any = Any
    chunk: Any = None
    needs: Callable[[Mapping[str, Any], str], bool] | None = None
    given: Mapping[str, Any] = {}
    names: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    streams_in: tuple[str, ...] = ()
    by: str | None = None
    variants: Mapping[str, ActionSpec] = {}
    fixed: tuple[str, ...] = ()
    check: Callable[[Mapping[str, Any], Remarks], None] | None = None


class Needs(msgspec.Struct, frozen=True):
    """What must be installed for a component.

    modules  what must be importable, looked for before anything starts
    extra    our optional dependencies that bring it
    """

    modules: tuple[str, ...]
    extra: str


class TaskDriver(msgspec.Struct, frozen=True):
    """How one driver does one task.

    implementation  `package.module:Class`, imported in the worker and nowhere else
    refuses         parameters of the task that this engine does not have, each with the reason
    families        what a file may name as `architecture`, each with what it is there; the implementation is
                    asked for the rest, and for one that is named where there are none
    modules         what must be importable, beside what the driver needs for every task
    extra           our optional dependencies that bring those
    """

    implementation: str
    refuses: Mapping[str, str] = {}
    families: Mapping[str, str] = {}
    modules: tuple[str, ...] = ()
    extra: str | None = None


class TaskSpec(msgspec.Struct, frozen=True):
    """What a model can do.

    request    the struct that a driver gets; its fields are the keys of an action
    result     what a driver gives for one request
    main       the field that a bare string input fills; a list for it is many requests, if it says `many`
    drivers    who can do it, the default first
    default_driver  who does it where neither the file nor the weights say; may not be there yet
    chunk      the type of what it streams, None if it does not stream
    streams    whether a request can be streamed
    normalise  puts the values of one request into the form that `request` wants
    needs      see `ActionSpec`
    verb       the last part of its endpoint's path; its name, where there is none
    example    values of a request that show what it does, for the API page
    """

    name: str
    summary: str
    request: type[msgspec.Struct]
    result: Any
    main: str
    drivers: Mapping[str, TaskDriver]
    chunk: Any = None
    streams: Callable[[Any], bool] = bool
    normalise: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    needs: Callable[[Mapping[str, Any], str], bool] | None = None
    default_driver: str | None = None
    verb: str | None = None
    example: Mapping[str, Any] = {}


class DriverSpec(msgspec.Struct, frozen=True):
    """An engine.

    options       the struct of its own settings (`options:` of a component)
    extra         our optional dependencies that bring it
    modules       what must be importable where its worker runs, looked for before anything starts
    requirements  what pip installs of it into an environment of its own, where a file names no requirements
    formats       weight formats that select it when a file names no driver
    reads         weight formats that it can load, as far as that can be told from a name; none: any
    refuses       component keys that it does not have, each with the reason
    tasks         tasks that it does beside those whose own specs name it: for drivers from elsewhere
    estimate      `package.module:function` of a `LoadOptions` -> bytes by memory pool
    needs_model   whether a component must name weights
    own           `package.module:Class` that hosts a class of the user's own, `implementation` in a file;
                  its requests have a map `params` beside the fields of the task
    merge         `package.module:function` of a `LoadOptions`, a folder and a `LoadProgress`: writes the
                  model with its adapters in its weights
    check         notes what is wrong with a component's configuration and its options together
    more_options  `options:` may have keys beside those of the struct, which the driver checks when it loads
    """

    name: str
    summary: str
    options: type[msgspec.Struct]
    extra: str | None = None
    modules: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    refuses: Mapping[str, str] = {}
    tasks: Mapping[str, TaskDriver] = {}
    estimate: str | None = None
    needs_model: bool = True
    own: str | None = None
    merge: str | None = None
    check: Callable[[Any, Any, Report], None] | None = None
    more_options: bool = False


class Remarks(Protocol):
    """A part of the file, for what there is to say about it.

    `path` leads to a key in it: `remarks.error("...", "model", "path")`.
    """

    def error(self, message: str, *path: str | int, hint: str | None = None) -> None:
        """Note a mistake."""

    def warn(self, message: str, *path: str | int) -> None:
        """Note something that works, but is hardly meant."""


class Report(Remarks, Protocol):
    """A component's own part of the file, for what its type has to say about it."""

    def wrong(self, key: str) -> bool:
        """Whether a key has a value that could not be read, which has been noted; it has its default."""

    def read(self, struct: type[msgspec.Struct], *path: str | int, more: bool = False) -> Any:
        """A map as a struct whose class depends on other keys, defaults if it is absent; None if wrong.

        more  it may have other keys too, which are somebody else's
        """

    def tree(self, *path: str | int) -> Any:
        """The compiled tree of a value that may contain `${input...}`."""


class ComponentSpec(msgspec.Struct, frozen=True):
    """A type of component.

    config          the struct of its own keys
    complete        fills in what a configuration leaves out
    action          checks what spans several keys, and says what its actions take; None: it cannot tell
    implementation  `package.module:Class` of what runs it; it is made from a `Setting`
    needs           what must be installed for a component of this configuration
    calls           ids of the workflows that a component of this configuration calls, each with its key
    requests        what its actions take, as far as that does not depend on a configuration
    direct          it can also be called with what its request takes, whatever its actions say
    aliases         other names that it is called by then
    commands        what a component of this configuration runs on this machine, each with its key
    clean           `package.module:function` that `down` calls for a component, with its declaration, the
                    folder of the file and the state folder, when the service has ended
    """

    name: str
    summary: str
    config: type[msgspec.Struct]
    action: Callable[[Any, Catalog, Report], ActionSpec | None]
    implementation: str
    complete: Callable[[Any, Catalog, Report], Any] | None = None
    needs: Callable[[Any], Needs | None] | None = None
    calls: Callable[[Any], Mapping[str, str]] | None = None
    requests: tuple[type[msgspec.Struct], ...] = ()
    direct: bool = False
    aliases: Callable[[Any], tuple[str, ...]] | None = None
    commands: Callable[[Any], Iterable[tuple[str, str]]] | None = None
    clean: str | None = None


class Catalog(Protocol):
    """Everything that a file may name. Built in `compose/catalog.py`, and by tests as they like."""

    def component(self, name: str) -> ComponentSpec | None:
        """A component type, None if there is none of that name."""

    def task(self, name: str) -> TaskSpec | None:
        """A task."""

    def driver(self, name: str) -> DriverSpec | None:
        """A driver."""

    def components(self) -> tuple[str, ...]:
        """The names of all component types."""

    def tasks(self) -> tuple[str, ...]:
        """The names of all tasks."""

    def drivers(self) -> tuple[str, ...]:
        """The names of all drivers."""

    def infer_task(self, source: Any) -> str | None:
        """The task that the weights of a source tell; None where nobody looks at them, as in a check.

        Raises ModelComposeError when they cannot be had, or do not tell.
        """

    def family(self, task: str, name: str) -> str | None:
        """`package.module:Class` of a family that an installed package adds to driver `custom` for a task."""

    def later(self, name: str) -> bool:
        """Whether a component type is known of other versions of this format, and not supported by us yet."""
