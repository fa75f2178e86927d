"""What is a checked file? Frozen values; every name in them resolves and every template is compiled.

`Tree` stands for a compiled template tree (see `template.py`): a `Renderable`, or a constant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET

from model_compose.config.quantities import DURATION, MEMORY_LIMIT, PAUSE, SIZE, Percent
from model_compose.config.spec import ActionSpec, Positive, doc
from model_compose.errors import Note, Place

Tree: TypeAlias = Any

_LATER_JOBS = ("delay", "if", "switch", "router", "random-router", "filter", "for-each")

DEFAULT = "__default__"
SYNTHESISED_WORKFLOW = "__workflow__"
SYNTHESISED_JOB = "__job__"
SYNTHESISED_ACTION = "__action__"
SYNTHESISED_COMPONENT = "__component__"


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


class Controller(Adapter, frozen=True, kw_only=True):
    """How the service is reached, and how much it takes on."""

    name: Annotated[str | None, doc("a name for the service, shown in its API page")] = None
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
    """Something named in the file that can be called. `config` is the struct of its type."""

    id: str
    type: str
    config: Any
    actions: tuple[Action, ...]
    default: bool = False
    max_concurrent_count: int = 0
    place: Place | None = None

    def action(self, name: str) -> Action:
        """The action of that name, which is known to exist; `__default__` is the default one."""
        found = (
            default_of(self.actions)
            if name == DEFAULT
            else next((a for a in self.actions if a.id == name), None)
        )
        assert found is not None
        return found


class JobKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a job."""

    id: Annotated[str, doc("the job's name, for `${jobs.NAME.output}`")] = SYNTHESISED_JOB
    type: Annotated[
        Literal["component", "action"],
        doc("both call an action of a component", later=dict.fromkeys(_LATER_JOBS)),
    ] = "component"
    component: Annotated[Any, doc("the id of a component, or a component itself", template=True)] = DEFAULT
    action: Annotated[str, doc("the id of one of its actions")] = DEFAULT
    input: Annotated[
        Any, doc("what the action gets as `${input}`; default: the workflow's input", template=True)
    ] = UNSET
    output: Annotated[
        Any, doc("what the job gives; `${output}` is the action's own output", template=True)
    ] = UNSET
    depends_on: Annotated[
        tuple[str, ...] | str, doc("jobs that must be complete before; references to `jobs` need none of it")
    ] = ()
    repeat_count: Annotated[
        int, doc("run it so many times at once; the output is then a list", template=True, ge=1)
    ] = 1


class Job(msgspec.Struct, frozen=True):
    """One call in a workflow. `depends_on` holds what was written and what references imply."""

    id: str
    component: str
    action: str
    input: Tree = UNSET
    output: Tree = UNSET
    depends_on: tuple[str, ...] = ()
    repeat_count: Tree = 1


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

    def default_workflow(self) -> Workflow | None:
        """The workflow that runs where none is named, if that is clear."""
        return default_of(tuple(self.workflows.values()))


Named = TypeVar("Named", Action, Component, Workflow)


def default_of(items: tuple[Named, ...]) -> Named | None:
    """The only element, else the one with `default: true`."""
    if len(items) == 1:
        return items[0]
    return next((item for item in items if item.default), None)
