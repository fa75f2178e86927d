"""What does a file say of a `shell` component, and what of it may come from a request?

A request gives whole arguments, values of variables and the standard input. What is run, by which shell
and in which folder, only the file says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET

from model_compose.config.expression import Renderable, Template, references
from model_compose.config.quantities import SIZE
from model_compose.config.references import RESULTS
from model_compose.config.spec import ActionSpec, Catalog, ComponentSpec, Positive, Remarks, Report, doc
from model_compose.config.template import List, Map, MergedList
from model_compose.types import Result


class ShellConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A command of this machine."""

    base_dir: Annotated[str, doc("folder that `working_dir` stands in; default: that of the file")] = "."
    max_output: Annotated[
        Positive, doc("most bytes that a command may write; then it is ended, with an error", quantity=SIZE)
    ] = 10 << 20


class ShellCommand(msgspec.Struct, frozen=True, kw_only=True):
    """Run a command."""

    command: Annotated[
        list[str] | str,
        doc("the program and its arguments as a list; a text is a script for `sh`"),
    ]
    shell: Annotated[
        bool | None,
        doc("whether `sh` runs it: the first item is the script, the others are `$1`, `$2` and so on"),
    ] = None
    working_dir: Annotated[str, doc("folder that it runs in, inside of `base_dir`")] = "."
    env: Annotated[dict[str, str], doc("variables for it, beside those of the service")] = {}
    stdin: Annotated[Any, doc("what it reads: a text, a file, or a value as JSON; default: nothing")] = None
    check: Annotated[bool, doc("an exit code other than 0 is an error")] = False


class ShellResult(Result, frozen=True):
    """What a command said, without white space around it, and how it ended."""

    stdout: str
    stderr: str
    exit_code: int


_NAMES: Final = ("stdout", "stderr", "exit_code")
#: Programs that take a script as an argument, with the option that it stands behind.
_SCRIPTED: Final = {
    **dict.fromkeys(
        ("sh", "bash", "dash", "ash", "zsh", "ksh", "fish"), re.compile(r"-[a-zA-Z]*c|--command")
    ),
    **dict.fromkeys(("python", "python3"), re.compile(r"-[a-zA-Z]*c")),
    **dict.fromkeys(("perl", "ruby"), re.compile(r"-[a-zA-Z]*[eE]")),
    "node": re.compile(r"-e|-p|-pe|--eval|--print"),
    "php": re.compile(r"-r"),
}
#: Variables that say which program or which code is run.
_POWERFUL: Final = frozenset(
    ("PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV", "ENV", "IFS", "PYTHONPATH", "PYTHONSTARTUP")
)
_BY_THE_WAY: Final = (
    "write `shell: true` with `command: ['... \"$1\" ...', '${input.x}']`, or give it by `env` as `\"$NAME\"`"
)


def _check(values: Mapping[str, Any], remarks: Remarks) -> None:
    command, shell = values.get("command"), values.get("shell")
    if command is None:
        return  # it has mistakes, or is missing, which has been told
    for key in ("shell", "working_dir", "check"):
        if isinstance(values.get(key), Renderable):
            remarks.error(f"`{key}` cannot come from a request", key, hint="write it in the file")
    _check_env(values.get("env"), remarks)
    _check_output(values.get("output"), remarks)
    if isinstance(command, str):
        if shell is False:
            hint = "write the program and its arguments as a list"
            remarks.error("`command` is a text for a shell, and `shell` is false", "command", hint=hint)
        return
    items = list(_items(command))
    if isinstance(command, Template) and not command.whole:
        _check_script(command, remarks)
    elif command == []:
        remarks.error("`command` is empty", "command", hint="name a program")
    elif not isinstance(command, list | List | MergedList):
        hint = "write the program and its arguments as a list"
        remarks.error("`command` cannot come from a request as a whole", "command", hint=hint)
    elif shell is True:
        _check_script(items[0], remarks, 0)
    else:
        _check_program(items, remarks)


def _check_output(output: Any, remarks: Remarks) -> None:
    found = list(references(output))
    whole = next((r for r in found if r.key in (*_NAMES, *RESULTS)), None)
    if whole is not None and any(reference.per_chunk for reference in found):
        message = f"`{whole.text}` has no value yet while the lines come"
        remarks.error(message, "output", hint="write `${result[]}` for each line, or leave it out")


def _items(command: Any) -> Iterator[Any]:
    """The items of a list as trees; one that is spread counts as one."""
    if isinstance(command, list):
        yield from command
    elif isinstance(command, List):
        rendered = dict(command.rendered)
        yield from (rendered.get(index, item) for index, item in enumerate(command.constants))
    elif isinstance(command, MergedList):
        yield from (node for _, node in command.items)


def _check_program(items: list[Any], remarks: Remarks) -> None:
    if _from_outside(items[0]):
        hint = "write its name; requests may give its arguments"
        remarks.error("what is run cannot come from a request", "command", 0, hint=hint)
    option = None
    script = False
    for index, item in enumerate(items):
        if script and _from_outside(item):
            _check_script(item, remarks, index)
        script = isinstance(item, str) and option is not None and option.fullmatch(item) is not None
        if isinstance(item, str) and not item.startswith("-"):
            option = _SCRIPTED.get(PurePosixPath(item).name, option)


def _check_script(script: Any, remarks: Remarks, *path: int) -> None:
    if _from_outside(script):
        message = "a script cannot have parts that come from a request: they would be run as code"
        remarks.error(message, "command", *path, hint=_BY_THE_WAY)


def _check_env(env: Any, remarks: Remarks) -> None:
    if env in (None, UNSET) or isinstance(env, dict):
        return
    if not isinstance(env, Map):
        if _from_outside(env):
            hint = "write a map of names, with a value for each"
            remarks.error("names of variables cannot come from a request", "env", hint=hint)
        return
    for name, tree in env.rendered:
        if name in _POWERFUL and _from_outside(tree):
            remarks.error(f"`{name}` cannot come from a request: it says which code is run", "env", name)


def _from_outside(tree: Any) -> bool:
    return any(reference.source == "input" for reference in references(tree))


_ACTION = ActionSpec(
    ShellCommand,
    result=ShellResult,
    chunk=str,
    names=_NAMES,
    fixed=("command", "shell", "working_dir", "env", "stdin", "check"),
    check=_check,
)


def _action(config: ShellConfig, catalog: Catalog, report: Report) -> ActionSpec:
    return _ACTION


SPEC = ComponentSpec(
    "shell",
    "Runs a command of this machine.",
    ShellConfig,
    _action,
    "model_compose.components.shell.component:ShellComponent",
    requests=(ShellCommand,),
)
