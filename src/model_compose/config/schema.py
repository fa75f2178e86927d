"""What is a checked file? Frozen values; every name in them resolves and every template is compiled.

`Tree` stands for a compiled template tree (see `template.py`): a `Renderable`, or a constant.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET

from model_compose.config.quantities import DURATION, MEMORY_LIMIT, PAUSE, SIZE, Percent
from model_compose.config.spec import ActionSpec, Natural, Positive, doc
from model_compose.errors import Note, Place

if TYPE_CHECKING:
    from model_compose.config.listeners import Listener

Tree: TypeAlias = Any

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]

DEFAULT = "__default__"
DIRECT = "__direct__"
SYNTHESISED_WORKFLOW = "__workflow__"
SYNTHESISED_JOB = "__job__"
SYNTHESISED_ACTION = "__action__"
SYNTHESISED_COMPONENT = "__component__"


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that callers of the service may have."""

    key: Annotated[str, doc("the key itself; `${env.NAME}` keeps it out of the file", min_length=1)]
    role: Annotated[
        Literal["use", "admin"], doc("`use` runs workflows and sees its own runs; `admin` may do everything")
    ] = "use"
    name: Annotated[str | None, doc("who has it, for logs and `owner` of runs; default `key-<i>`")] = None


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """How connections are encrypted. Both are files in PEM format, relative to this file."""

    certificate: Annotated[str, doc("the certificate, and those that lead from it to a known authority")]
    key: Annotated[str, doc("its private key, without a password")]


class WebUi(msgspec.Struct, frozen=True, kw_only=True):
    """The pages for people, at `/ui/`."""

    driver: Annotated[
        Literal["gradio"], doc("what makes the pages", later={"static": None, "dynamic": None})
    ] = "gradio"
    host: Annotated[str | None, doc("with `port`: address to listen on; default: the service's own")] = None
    port: Annotated[
        Port | None,
        doc("a port of its own beside the service's, where `/` leads to the pages; 0 is a free one"),
    ] = None


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """Where the service is reached; may stand below `adapter` of the controller, or in it."""

    type: Annotated[
        Literal["http-server"],
        doc("an HTTP server with a JSON API", later={"mcp-server": None, "queue-subscriber": None}),
    ] = "http-server"
    host: Annotated[str, doc("address to listen on; other machines reach only what is not loopback")] = (
        "127.0.0.1"
    )
    port: Annotated[int, doc("port to listen on; 0 takes a free one", ge=0, le=65535)] = 8080
    base_path: Annotated[str, doc("path in front of the API's own routes")] = "/api"
    origins: Annotated[
        tuple[str, ...] | str,
        doc("web origins that a browser may call from, as a list or separated by commas; none by default"),
    ] = ()
    insecure: Annotated[
        bool, doc("allow `host` to be reachable from other machines, for anybody, without a key")
    ] = False
    max_body: Annotated[int, doc("most bytes of a request body", quantity=SIZE)] = 32 << 20
    api_keys: Annotated[
        tuple[str | ApiKey, ...] | str,
        doc(
            "keys, one of which every request must bring; a text is one of role `use`; none: nobody is asked"
        ),
    ] = ()
    tls: Annotated[Tls | None, doc("encrypt connections: `https`")] = None

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """The keys, each with a name."""
        given = (self.api_keys,) if isinstance(self.api_keys, str) else self.api_keys
        keys = (ApiKey(key=each) if isinstance(each, str) else each for each in given)
        return tuple(
            key if key.name else msgspec.structs.replace(key, name=f"key-{i}") for i, key in enumerate(keys)
        )


class Controller(Adapter, frozen=True, kw_only=True):
    """How the service is reached, and how much it takes on."""

    name: Annotated[str | None, doc("a name for the service, shown in its API page")] = None
    webui: Annotated[
        WebUi | bool, doc("pages to try the workflows, where the extra `ui` is installed; `false`: none")
    ] = True
    max_concurrent_count: Annotated[int, doc("most runs at once; 0 is no limit", ge=0)] = 0
    max_queue: Annotated[int, doc("most runs that wait when `max_concurrent_count` are under way", ge=0)] = (
        256
    )
    shutdown_timeout: Annotated[
        float,
        doc("what runs may take to end when the service stops; then they are cancelled", quantity=PAUSE),
    ] = 30.0
    task_ttl: Annotated[float, doc("how long a finished run can be asked for", quantity=DURATION)] = 3600.0
    file_roots: Annotated[
        tuple[str, ...],
        doc("folders in which an input `${... as image;path}` may name files; none by default"),
    ] = ()
    fetch_hosts: Annotated[
        tuple[str, ...],
        doc("hosts whose URLs an input may name although their addresses are private; none by default"),
    ] = ()

    @property
    def ui(self) -> WebUi | None:
        """How there are pages, None if there are none."""
        if isinstance(self.webui, WebUi):
            return self.webui
        return WebUi() if self.webui else None

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every address that the service listens on."""
        apart = self.ui.host if self.ui is not None and self.ui.port is not None else None
        return (self.host,) if apart is None else (self.host, apart)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Keys at the top of a file that are neither components nor workflows."""

    name: Annotated[str | None, doc("a name for the project")] = None
    memory_limit: Annotated[
        int | Percent | None,
        doc(
            "memory that all loaded models together may take, in bytes or percent of the machine's; "
            "default 90%",
            quantity=MEMORY_LIMIT,
        ),
    ] = None
    threads: Annotated[
        Positive | None, doc("CPU threads that all computing models together may use; default: all cores")
    ] = None


class ActionKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that every action has, beside those of what it does."""

    id: Annotated[str, doc("the action's name")] = SYNTHESISED_ACTION
    default: Annotated[bool, doc("use this one where none is named")] = False
    output: Annotated[
        Any, doc("what the action gives; `${result}` is the component's own result", template=True)
    ] = UNSET
    streaming: Annotated[bool, doc("give a stream of pieces where the task can")] = False
    timeout: Annotated[float | None, doc("most time for one call, waiting included", quantity=DURATION)] = (
        None
    )


class Action(msgspec.Struct, frozen=True):
    """One callable of a component.

    values  a tree for each field of `spec.request` that the file gives
    output  a tree over `result`; UNSET passes the result on
    """

    id: str
    spec: ActionSpec
    values: dict[str, Tree]
    output: Tree = UNSET
    streaming: bool = False
    timeout: float | None = None
    default: bool = False
    synthesised: bool = False


class ComponentKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that every component has, beside those of its type."""

    id: Annotated[str, doc("the component's name")] = SYNTHESISED_COMPONENT
    type: Annotated[str, doc("what kind of component it is", refers_to="component")]
    default: Annotated[bool, doc("use this one where none is named")] = False
    max_concurrent_count: Annotated[int, doc("most calls at once; 0 is no limit", ge=0)] = 0


class Component(msgspec.Struct, frozen=True):
    """Something named in the file that can be called. `config` is the struct of its type.

    direct   what it does for those who know its request, whatever its actions make of their input
    aliases  other names that those call it by
    """

    id: str
    type: str
    config: Any
    actions: tuple[Action, ...]
    default: bool = False
    max_concurrent_count: int = 0
    place: Place | None = None
    direct: Action | None = None
    aliases: tuple[str, ...] = ()

    def action(self, name: str) -> Action:
        """The action of that name, which is known to exist; `__default__` is the default one."""
        if name == DIRECT and self.direct is not None:
            return self.direct
        found = (
            default_of(self.actions)
            if name == DEFAULT
            else next((a for a in self.actions if a.id == name), None)
        )
        assert found is not None
        return found


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often a job that fails is tried again, and when."""

    max_attempt_count: Annotated[Positive | None, doc("attempts in all; default 3")] = None
    max_retry_count: Annotated[Natural | None, doc("attempts after the first, in place of the other")] = None
    delay: Annotated[float, doc("pause before the second attempt", quantity=PAUSE)] = 1.0
    backoff: Annotated[
        Literal["fixed", "exponential"], doc("`exponential`: each pause is twice the one before")
    ] = "fixed"
    max_delay: Annotated[float, doc("longest pause", quantity=DURATION)] = 60.0

    def __post_init__(self) -> None:
        if self.max_attempt_count is not None and self.max_retry_count is not None:
            raise ValueError("`max_attempt_count` and `max_retry_count` say the same; keep one")

    @property
    def attempts(self) -> int:
        """Attempts in all."""
        if self.max_retry_count is not None:
            return self.max_retry_count + 1
        return 3 if self.max_attempt_count is None else self.max_attempt_count

    def pause(self, attempt: int) -> float:
        """Seconds between an attempt, counted from 1, and the next one."""
        doublings = min(attempt - 1, 64) if self.backoff == "exponential" else 0
        return float(min(self.delay * 2.0**doublings, self.max_delay))


class OnErrorKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What happens in place of a failure of the workflow."""

    output: Annotated[
        Any,
        doc("what the job gives then; over `${error.message}` and `${error.type}` too", template=True),
    ] = UNSET
    to: Annotated[str | None, doc("the job that runs then")] = None


class OnError(msgspec.Struct, frozen=True):
    """The same, read. Without `output` what depends on the job is skipped, if another one runs instead."""

    output: Tree = UNSET
    to: str | None = None


class JobKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that every job has, beside those of its type."""

    id: Annotated[str, doc("the job's name, for `${jobs.NAME.output}`")] = SYNTHESISED_JOB
    type: Annotated[
        Literal["component", "action", "delay", "if", "switch", "random-router", "filter", "for-each"],
        doc(
            "what it does; `component` and `action` both call an action of a component",
            later={"router": "write `if`, `switch` or `random-router`"},
        ),
    ] = "component"
    output: Annotated[Any, doc("what the job gives; `${output}` is what it has done", template=True)] = UNSET
    depends_on: Annotated[
        tuple[str | tuple[str, ...], ...] | str,
        doc(
            "jobs that must be complete before; of a list among them, one; references to `jobs` need none "
            "of it"
        ),
    ] = ()
    retry: Annotated[
        Natural | Retry | None, doc("try again when it fails: so many times, or as told in a map")
    ] = None
    on_error: Annotated[
        Literal["ignore", "continue"] | OnErrorKeys | None,
        doc("go on when it fails; its output is then null (both words mean it), or as told in a map"),
    ] = None
    max_run_count: Annotated[int, doc("most runs of the job, where jobs are routed back to", ge=1)] = 25


class Call(msgspec.Struct, frozen=True):
    """`component`: calls an action."""

    component: str
    action: str
    input: Tree = UNSET
    repeat_count: Tree = 1


class Delay(msgspec.Struct, frozen=True):
    """`delay`: waits so many seconds, or until a time of day or a date; both may be expressions."""

    duration: Tree = None
    time: Tree = None
    timezone: str | None = None


class If(msgspec.Struct, frozen=True):
    """`if`: `choice` gives the id of the job that runs, or null."""

    choice: Tree
    targets: tuple[str, ...]
    otherwise: str | None = None


class Switch(msgspec.Struct, frozen=True):
    """`switch`: the first case with the value of the input says which job runs."""

    input: Tree
    cases: tuple[tuple[Tree, str], ...]
    otherwise: str | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """The jobs that it may start."""
        return tuple(target for target in (*(then for _, then in self.cases), self.otherwise) if target)


class RandomRouter(msgspec.Struct, frozen=True):
    """`random-router`: chance says which job runs."""

    targets: tuple[str, ...]
    weights: tuple[float, ...]


class Filter(msgspec.Struct, frozen=True):
    """`filter`: gives its input, or, where `items` is a `ForEach`, the items that it admits."""

    input: Tree = UNSET
    items: Tree = None


class ForEachJob(msgspec.Struct, frozen=True):
    """`for-each`: calls an action for every item of its input."""

    input: Tree
    call: Call
    output: Tree = UNSET
    batch_size: int | None = None
    max_concurrent_count: int = 32
    streaming: bool = False


Work: TypeAlias = Call | Delay | If | Switch | RandomRouter | Filter | ForEachJob
"""What a job does, by its type."""


class Alternatives(msgspec.Struct, frozen=True):
    """Jobs of which an expression takes the first with an output: `${jobs.a.output | ${jobs.b.output}}`.

    fallback  the expression has a value without them too
    """

    jobs: tuple[str, ...]
    fallback: bool = False


class Job(msgspec.Struct, frozen=True):
    """One step of a workflow.

    depends_on    what was written and what references imply: all of them must be complete
    any_of        of each group one must be
    alternatives  of each group all must have ended, and one have an output unless there is a fallback
    """

    id: str
    work: Work
    output: Tree = UNSET
    depends_on: tuple[str, ...] = ()
    any_of: tuple[tuple[str, ...], ...] = ()
    alternatives: tuple[Alternatives, ...] = ()
    retry: Retry | None = None
    on_error: OnError | None = None
    max_run_count: int = 25

    @property
    def needs(self) -> tuple[str, ...]:
        """Every job that it may wait for."""
        some = (name for group in self.any_of for name in group)
        others = (name for group in self.alternatives for name in group.jobs)
        return tuple(dict.fromkeys((*self.depends_on, *some, *others)))

    @property
    def targets(self) -> tuple[str, ...]:
        """The jobs that run only if this one, or another, says so."""
        own = self.work.targets if isinstance(self.work, If | Switch | RandomRouter) else ()
        rescue = self.on_error.to if self.on_error is not None else None
        return tuple(dict.fromkeys((*own, *([rescue] if rescue else []))))

    @property
    def call(self) -> Call | None:
        """What it calls, if it calls something."""
        return self.work if isinstance(self.work, Call) else getattr(self.work, "call", None)

    @property
    def gives(self) -> bool:
        """Whether it is there for what it gives, and not for what happens next."""
        return self.output is not UNSET or isinstance(self.work, Call | Filter | ForEachJob)


class WorkflowKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a workflow."""

    id: Annotated[str, doc("the workflow's name in the API")] = SYNTHESISED_WORKFLOW
    title: Annotated[str | None, doc("a title for people")] = None
    name: Annotated[str | None, doc("a name for tools")] = None
    description: Annotated[str | None, doc("what it does")] = None
    default: Annotated[bool, doc("run this one where none is named")] = False
    output: Annotated[
        Any,
        doc(
            "what the workflow gives, over `${jobs...}`; default: the output of its last jobs", template=True
        ),
    ] = UNSET


class Workflow(msgspec.Struct, frozen=True):
    """A graph of jobs, in the order of the file."""

    id: str
    jobs: tuple[Job, ...]
    title: str | None = None
    name: str | None = None
    description: str | None = None
    output: Tree = UNSET
    default: bool = False


class Project(msgspec.Struct, frozen=True):
    """A checked file. `folder` is where its relative paths start."""

    folder: Path
    settings: Settings
    controller: Controller
    components: dict[str, Component]
    workflows: dict[str, Workflow]
    warnings: tuple[Note, ...] = ()
    listeners: tuple[Listener, ...] = ()

    def default_workflow(self) -> Workflow | None:
        """The workflow that runs where none is named, if that is clear."""
        return default_of(tuple(self.workflows.values()))


Named = TypeVar("Named", Action, Component, Workflow)


def default_of(items: tuple[Named, ...]) -> Named | None:
    """The only element, else the one with `default: true`."""
    if len(items) == 1:
        return items[0]
    return next((item for item in items if item.default), None)
