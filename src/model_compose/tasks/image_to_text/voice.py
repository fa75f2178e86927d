"""Where does the text of an output go, and how is it tidied while it comes?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from model_compose.drivers.contract import Step
from model_compose.tasks.generation import TextDelta

#: What tokenizers that split words from signs put together again, in their order.
_JOINED: Final = (
    *((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't")),
    *((" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")),
)
#: Ends of a text whose next character decides.
_OPEN: Final = frozenset({" ", " '", " ' ", " n", " n'", " 'v", " 'r"})
_LONGEST: Final = 3
_APOSTROPHE: Final = " '"


class Tidy:
    """Drops white space around a text that comes in pieces; if it `joins`, also that before signs."""

    def __init__(self, *, joins: bool) -> None:
        self._joins = joins
        self._held = ""
        self._begun = False

    def add(self, piece: str) -> str:
        """The part of what has come that can be shown."""
        text = self._held + piece
        if not self._begun:
            text = text.lstrip()
        end = self._decided(text)
        self._held = text[end:]
        self._begun = self._begun or end > 0
        return self._joined(text[:end])

    def _decided(self, text: str) -> int:
        """How much of a text is the same whatever follows."""
        end = len(text.rstrip())
        if not self._joins:
            return end
        tails = (n for n in range(min(_LONGEST, len(text)), 0, -1) if text[-n:] in _OPEN)
        end = min(end, len(text) - next(tails, 0))
        while text[:end].endswith(_APOSTROPHE):  # the space behind it may be its own
            end -= len(_APOSTROPHE)
        return end

    def rest(self) -> str:
        """What was held, at the end."""
        held, self._held = self._held, ""
        return self._joined(held.rstrip())

    def _joined(self, text: str) -> str:
        if self._joins:
            for apart, together in _JOINED:
                text = text.replace(apart, together)
        return text


class Voice:
    """The `Sink` and the `CancelToken` of one output in a batch, the `i`-th row of a pass.

    text  all of it so far
    """

    streaming = True
    ready = True

    def __init__(self, step: Step, i: int, tidy: Tidy, *, heard: bool) -> None:
        self._step = step
        self._i = i
        self._tidy = tidy
        self._heard = heard
        self.text = ""

    def emit(self, chunk: TextDelta) -> bool:
        """Say a piece."""
        self._say(self._tidy.add(chunk.text))
        return True

    def end(self, error: BaseException | None = None) -> None:
        """Say what was held."""
        self._say(self._tidy.rest())

    def _say(self, piece: str) -> None:
        self.text += piece
        if piece and self._heard:
            self._step.emit(self._i, TextDelta(piece))

    def progress(self, done: int, total: int) -> None:
        """Nobody knows how long a text becomes."""

    @property
    def cancelled(self) -> bool:
        """Whether its caller went away."""
        return self._step.cancelled(self._i)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Not called: it is asked between two tokens."""
