"""`cache`: what has been downloaded, and how does it go away?"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from model_compose.cli.options import AsJson
from model_compose.cli.terminal import columns, say, say_json, span
from model_compose.errors import BadRequest, NotFound, did_you_mean
from model_compose.sources.disk import size_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_compose.sources.cache import Cache
    from model_compose.sources.inventory import CachedItem

cache = typer.Typer(
    help="Show or remove weights that have been downloaded.", no_args_is_help=True, rich_markup_mode=None
)


@cache.command("ls")
def list_(as_json: AsJson = False) -> None:
    """Show what the caches hold, the least recently used first.

    That is our own cache and the one that it shares with other programs that use the Hugging Face hub.
    """
    from model_compose.sources.inventory import items

    found = items(_cache())
    if as_json:
        say_json(found)
    elif not found:
        say("nothing has been downloaded")
    else:
        say("\n".join(_table(found)))


@cache.command("rm")
def remove(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", show_default=False, help="As `ls` shows them.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove everything.")] = False,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="TIME", show_default=False, help="Remove what was not used for so long: 30d."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove weights, after asking. They are downloaded again when they are needed."""
    from model_compose.sources import inventory

    if sum((bool(names), everything, older_than is not None)) != 1:
        raise BadRequest("say what to remove", hint="names of `cache ls`, `--older-than TIME` or `--all`")
    unused_s = 0.0 if older_than is None else _seconds(older_than)
    ours = _cache()
    found = inventory.items(ours)
    chosen = _named(found, names) if names else [i for i in found if i.used_s <= time.time() - unused_s]
    if not chosen:
        say("there is nothing to remove")
        return
    if not yes:
        say("\n".join(_table(chosen)))
        _ask(f"Remove {'this' if len(chosen) == 1 else f'these {len(chosen)}'}?")
    freed = sum(inventory.remove(item, ours) for item in chosen)
    say(f"removed {len(chosen)}, {size_text(freed)} freed")


def _cache() -> Cache:
    from model_compose.sources.cache import Cache

    return Cache.of_machine(os.environ)


def _table(items: Sequence[CachedItem]) -> list[str]:
    rows = [
        [i.name, i.kind, (i.revision or "-")[:12], size_text(i.size_bytes), span(time.time() - i.used_s)]
        for i in items
    ]
    total = size_text(sum(item.size_bytes for item in items))
    return [*columns([["NAME", "KIND", "REVISION", "SIZE", "LAST USED"], *rows]), "", f"{total} in all"]


def _named(items: Sequence[CachedItem], names: Sequence[str]) -> list[CachedItem]:
    known = {item.name for item in items}
    for name in names:
        if name not in known:
            raise NotFound(f"the cache holds no `{name}`", hint=did_you_mean(name, known))
    return [item for item in items if item.name in names]


def _seconds(text: str) -> float:
    from model_compose.config.quantities import DURATION

    try:
        seconds = DURATION.read(text)
    except ValueError as error:
        raise BadRequest(f"`--older-than {text}` {error}") from None
    assert isinstance(seconds, float)
    return seconds


def _ask(question: str) -> None:
    """Go on after a yes. Raises typer.Exit after anything else."""
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    answer = sys.stdin.readline()
    if answer.strip().lower() not in ("y", "yes"):
        say("nothing is removed" if answer else "\nnothing is removed: nobody answered (`-y` does not ask)")
        raise typer.Exit(1)
