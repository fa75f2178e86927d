"""What is run on this machine for a server, and how may that be shown?

A command is a list of words, or a text for `sh`. The seed of this format writes scripts in which the
options of a program stand on lines of their own, which a shell would take for commands: those lines
are joined.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

Argv: TypeAlias = tuple[str, ...]
#: What a file may write: a text for a shell, one command, or several.
Commands: TypeAlias = str | Sequence[str] | Sequence[Sequence[str]]

_SHELLS: Final = ("bash", "sh", "zsh", "dash")
_HEREDOC: Final = re.compile(r"<<-?\s*(['\"]?)([A-Za-z_]\w*)\1")
_SECRET_NAME: Final = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)
_SECRET_OPTION: Final = re.compile(
    r"(?i)((?:--?[\w-]*|\b\w*)(?:key|token|secret|passw|credential)[\w-]*(?:\s*[=:]\s*|\s+))"
    r"(\"[^\"]*\"|'[^']*'|[^\s\"'&|;]+)"
)
_IN_URL: Final = re.compile(r"(?<=://)[^\s/@]+(?=@)")
#: Shorter values are words such as `1` and `auto`, which a log is full of.
_SHORTEST_SECRET: Final = 6
HIDDEN: Final = "***"


def commands_of(written: Commands | None) -> tuple[Argv, ...]:
    """The commands that a file writes, in their order, as they are run."""
    if not written:
        return ()
    if isinstance(written, str):
        return (("sh", "-c", joined_options(written)),)
    if isinstance(written[0], str):
        return (_runnable([str(word) for word in written]),)
    return tuple(_runnable(words) for words in written)


def _runnable(words: Sequence[str]) -> Argv:
    if len(words) == 3 and words[0].rpartition("/")[2] in _SHELLS and words[1] in ("-c", "-lc", "-ec"):
        return (words[0], words[1], joined_options(words[2]))
    return tuple(words)


def joined_options(script: str) -> str:
    """A script in which lines that begin with `--` go on with the line before them.

    Lines of heredocs, comments and quoted texts stay as they are, and so does what follows a line that
    ends in a backslash or a comment: a shell joins it itself, or nobody can.
    """
    lines: list[str] = []
    quote = ""
    heredocs: list[str] = []
    open_end = False  # whether the line before may be gone on with
    for line in script.split("\n"):
        if heredocs:
            lines.append(line)
            if line.lstrip("\t") == heredocs[0]:
                del heredocs[0]
            open_end = False
            continue
        text = line.strip()
        if not quote and open_end and text.startswith("--"):
            lines[-1] = f"{lines[-1].rstrip()} {text}"
        else:
            lines.append(line)
        quote, commented = _scanned(line, quote)
        if not quote and not commented:
            heredocs = [word for _, word in _HEREDOC.findall(line)]
        open_end = bool(text) and not (quote or commented or heredocs or line.endswith("\\"))
    return "\n".join(lines)


def _scanned(line: str, quote: str) -> tuple[str, bool]:
    """Go through a line that begins in a quote; -> the one that it ends in, and whether in a comment."""
    escaped = False
    before = " "
    for each in line:
        if escaped:
            escaped = False
        elif each == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if each == quote else quote
        elif each in "'\"":
            quote = each
        elif each == "#" and before in " \t;&|(":
            return quote, True
        before = each
    return quote, False


def fingerprint(commands: Sequence[Argv], folder: str) -> str:
    """What is the same as long as the same commands run in the same folder."""
    return hashlib.sha256(json.dumps([commands, folder]).encode()).hexdigest()


class Secrets:
    """Values that no log and no error may show: those of variables that are named like one.

    own    variables of the file
    other  those that processes get from us anyway
    """

    def __init__(self, own: Mapping[str, str], other: Mapping[str, str]) -> None:
        named = [value for some in (own, other) for name, value in some.items() if _SECRET_NAME.search(name)]
        # The longest first: one may be a part of another.
        values = sorted({value for value in named if len(value) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, values)).encode()) if values else None

    def hidden(self, text: bytes) -> bytes:
        """What a process says, without them."""
        return text if self._pattern is None else self._pattern.sub(HIDDEN.encode(), text)

    def shown(self, command: Argv) -> str:
        """A command as it may be told: without them, and without what stands after `--api-key`."""
        return self.hidden(shown(command).encode()).decode()


def shown(command: Argv) -> str:
    """A command as text, as a shell would take it, without what is named like a secret."""
    if len(command) == 3 and command[1] in ("-c", "-lc", "-ec"):
        text = f"{command[0]} {command[1]}: {command[2].strip()}"
    else:
        text = shlex.join(command)
    return _IN_URL.sub(HIDDEN, _SECRET_OPTION.sub(rf"\1{HIDDEN}", text))
