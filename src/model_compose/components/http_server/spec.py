"""What is `type: http-server`?"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec.structs import replace

from model_compose.components.http_client.spec import HttpAction, HttpKeys, http_action_spec, with_headers
from model_compose.components.http_server.commands import Commands, Secrets, commands_of
from model_compose.config.quantities import DURATION, PAUSE
from model_compose.config.spec import ActionSpec, Catalog, ComponentSpec, Report, doc

_Several = str | tuple[str, ...] | tuple[tuple[str, ...], ...] | None
_PATH: Final = re.compile(r"[A-Za-z0-9/._~!$&'()*+,;=:@%?-]*")
_KEYS: Final = ("install", "build", "clean", "start", "working_dir", "env")

Install = Annotated[
    _Several, doc("a command, as a list of its words, or a list of commands; run once, until they change")
]
Build = Annotated[_Several, doc("run after `install`, and once like it")]
Clean = Annotated[
    _Several,
    doc("run by `model-compose down`, when the server has stopped; `install` is run again after that"),
]
Start = Annotated[
    str | tuple[str, ...] | None,
    doc("the command of the server, which stays in the foreground; without it, it is somebody else's"),
]
WorkingDir = Annotated[str | None, doc("where they run; default: the folder of the file")]
Env = Annotated[dict[str, str] | None, doc("variables of their environment, beside those of the service")]


class Scripts(msgspec.Struct, frozen=True, kw_only=True):
    """What runs on this machine for a server. A text is run by `sh -c`; it is never made of an input."""

    install: Install = None
    build: Build = None
    clean: Clean = None
    start: Start = None
    working_dir: WorkingDir = None
    env: Env = None


class Manage(Scripts, frozen=True, kw_only=True):
    """The same, one level deeper."""

    scripts: Annotated[Scripts | None, doc("the same keys once more, for files that write them here")] = None


class Healthcheck(msgspec.Struct, frozen=True, kw_only=True):
    """What tells that a server is ready."""

    path: Annotated[str, doc("path that is asked with GET, from the root of the server")]
    interval: Annotated[float, doc("how long to wait between two questions", quantity=DURATION)] = 1.0
    timeout: Annotated[float, doc("how long one answer may take", quantity=DURATION)] = 5.0
    status: Annotated[int | None, doc("status that means ready; default: any from 200 to 299")] = None


class HttpServerConfig(HttpKeys, frozen=True, kw_only=True):
    """A server on this machine, which is started and ended with the service, and called over HTTP."""

    port: Annotated[int, doc("port of 127.0.0.1 that it listens on", ge=1, le=65535)] = 8000
    base_path: Annotated[str, doc("what stands before the path of each action")] = ""
    install: Install = None
    build: Build = None
    clean: Clean = None
    start: Start = None
    working_dir: WorkingDir = None
    env: Env = None
    manage: Annotated[Manage, doc("the commands; they may also stand directly in the component")] = Manage()
    healthcheck: Annotated[
        Healthcheck | None, doc("what tells that it is ready; default: it takes connections")
    ] = None
    start_timeout: Annotated[
        float, doc("how long it may take from its start until it is ready", quantity=DURATION)
    ] = 300.0
    stop_timeout: Annotated[
        float, doc("what it gets to end after SIGTERM, before SIGKILL", quantity=PAUSE)
    ] = 10.0
    preload: Annotated[bool, doc("start it with the service, not at the first request")] = True


def _complete(config: HttpServerConfig, catalog: Catalog, report: Report) -> HttpServerConfig:
    """Put the commands, wherever they stand, into the configuration itself."""
    places: list[tuple[tuple[str, ...], Scripts | HttpServerConfig]] = [
        ((), config),
        (("manage",), config.manage),
    ]
    if config.manage.scripts is not None:
        places.append((("manage", "scripts"), config.manage.scripts))
    found: dict[str, Any] = {}
    for path, scripts in places:
        for key in _KEYS:
            value = getattr(scripts, key)
            if value is None:
                continue
            if key in found:
                report.error(
                    f"`{key}` stands here and elsewhere in the component", *path, key, hint="keep one"
                )
                continue
            found[key] = value
            _check(key, value, (*path, key), report)
    config = with_headers(replace(config, manage=Manage(), **found), report)
    if not config.start and any(getattr(config, key) for key in ("install", "build")):
        report.warn("there is no `start`: somebody else must start the server")
    return config


def _check(key: str, value: Any, path: tuple[str, ...], report: Report) -> None:
    """Note commands that nobody can run."""
    if key in ("working_dir", "env"):
        return
    for command in commands_of(value):
        if not command or not command[0]:
            report.error(f"`{key}` has a command without a program", *path, hint="leave the key out")
        elif any("\0" in word for word in command):
            report.error(f"`{key}` has a word that no program can take", *path)
    if isinstance(value, str) and not value.strip():
        report.error(f"`{key}` is empty", *path, hint="leave it out")
    elif len(value) == 1 and isinstance(value[0], str) and " " in value[0].strip():
        hint = "write the words as a list, or the whole command as a text, which `sh` reads"
        report.warn(f"`{key}` names one program, with spaces in its name; {hint}", *path)


def _action(config: HttpServerConfig, catalog: Catalog, report: Report) -> ActionSpec:
    if config.base_path and not config.base_path.startswith("/"):
        report.error("`base_path` must begin with `/`", "base_path")
    elif not _PATH.fullmatch(config.base_path):
        report.error("`base_path` is no path of a URL", "base_path")
    if config.healthcheck is not None and not _PATH.fullmatch(config.healthcheck.path):
        report.error("`path` is no path of a URL", "healthcheck", "path", hint="such as `/health`")
    refuses = {"endpoint": "a call goes to the server of the component, so write `path`"}
    return http_action_spec(
        base_url=url_of(config), headers=config.headers, retry=config.retry, refuses=refuses
    )


def url_of(config: HttpServerConfig) -> str:
    """What the path of an action is added to."""
    return f"http://127.0.0.1:{config.port}{config.base_path.rstrip('/')}"


def commands(config: HttpServerConfig) -> Iterator[tuple[str, str]]:
    """What a component of this configuration runs on this machine, each with its key, to be shown."""
    named: Sequence[tuple[str, Commands | None]] = [
        ("install", config.install),
        ("build", config.build),
        ("start", config.start),
        ("clean", config.clean),
    ]
    secrets = Secrets(config.env or {}, os.environ)
    for key, value in named:
        for command in commands_of(value):
            yield key, secrets.shown(command)


SPEC = ComponentSpec(
    name="http-server",
    summary="A server on this machine that is installed, started and ended with the service, and called "
    "over HTTP.",
    config=HttpServerConfig,
    complete=_complete,
    action=_action,
    implementation="model_compose.components.http_server.component:HttpServer",
    requests=(HttpAction,),
    commands=commands,
    clean="model_compose.components.http_server.component:clean",
)
