"""How does somebody see how far downloads and loads are?

Downloads as bars on a terminal, and as a line now and then everywhere else; loads, which are shorter, as
lines. Downloads report from threads of their own.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any, Final

from model_compose.cli.terminal import is_live, span
from model_compose.runtime.model import LoadStage
from model_compose.sources.disk import size_text
from model_compose.sources.progress import Progress

#: Shows one download of a component, by the component's name.
Show = Callable[[str], Progress]
#: Prints a line about a component.
Say = Callable[[str, str], None]

_LINE_EVERY_S: Final = 5.0


def shown_on(stream: IO[str], say: Say) -> Show:
    """Bars if the stream is a terminal, else lines."""
    return Bars(stream) if is_live(stream) else Lines(say)


class Bars:
    """Draws a bar for each download, while there are any. Other output scrolls above them."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._running = 0
        self._drawing: Any = None  # a rich.progress.Progress
        self._closed = False

    def __call__(self, component: str) -> Progress:
        """A bar for a download of this component."""
        return _Bar(self, component)

    def begin(self, name: str, total: int | None, already: int) -> Callable[[int], None]:
        """Add a bar; -> what advances it."""
        with self._lock:
            self._running += 1
            if self._closed:
                return lambda n: None
            if self._drawing is None:
                self._drawing = _progress(self._stream)
                self._drawing.start()
            drawing = self._drawing
            task = drawing.add_task(name, total=total, completed=already)
            return lambda n: drawing.advance(task, n)

    def end(self) -> None:
        """A download has ended. After the last one the drawing stops; its bars stay on the screen."""
        with self._lock:
            self._running -= 1
            if self._running == 0:
                self._stop()

    def close(self) -> None:
        """Draw nothing any more: the stream goes away."""
        with self._lock:
            self._closed = True
            self._stop()

    def _stop(self) -> None:
        if self._drawing is not None:
            self._drawing.stop()
            self._drawing = None


def _progress(stream: IO[str]) -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.table import Column

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(table_column=Column(no_wrap=True)),  # on a narrow terminal the bar gives way
        TransferSpeedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        console=Console(file=stream),
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=sys.stderr.isatty(),
    )


class _Bar:
    def __init__(self, bars: Bars, component: str) -> None:
        self._bars = bars
        self._component = component

    def start(self, label: str, total_bytes: int | None, already: int = 0) -> None:
        self._advance = self._bars.begin(f"{self._component}  {label}", total_bytes, already)

    def advance(self, n: int) -> None:
        self._advance(n)

    def finish(self) -> None:
        self._bars.end()


class Lines:
    """Says when a download begins and ends, and how far it is in between."""

    def __init__(self, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock

    def __call__(self, component: str) -> Progress:
        """Lines about a download of this component."""
        return _Lines(component, self._say, self._clock)


class _Lines:
    def __init__(self, component: str, say: Say, clock: Callable[[], float]) -> None:
        self._component = component
        self._say = say
        self._clock = clock

    def start(self, label: str, total_bytes: int | None, already: int = 0) -> None:
        self._label, self._total, self._already = label, total_bytes, already
        self._there = already
        self._began = self._said = self._clock()
        here = f", {size_text(already)} of it here already" if already else ""
        much = f" ({size_text(total_bytes)}{here})" if total_bytes is not None else ""
        self._say(self._component, f"downloading `{label}`{much}")

    def advance(self, n: int) -> None:
        self._there += n
        if self._clock() - self._said >= _LINE_EVERY_S:
            self._said = self._clock()
            self._say(self._component, self._far())

    def _far(self) -> str:
        speed = max(0, self._there - self._already) / (self._said - self._began)
        if self._total is None:
            return f"{size_text(self._there)}, {size_text(speed)}/s"
        left = f", {span((self._total - self._there) / speed)} left" if speed else ""
        return f"{100 * self._there // self._total} % of {size_text(self._total)}, {size_text(speed)}/s{left}"

    def finish(self) -> None:
        if self._there == self._total:
            self._say(self._component, f"downloaded `{self._label}` in {span(self._clock() - self._began)}")


class Stages:
    """Says each stage of a load when it begins, and how far it is when that takes long."""

    def __init__(self, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._said: dict[str, tuple[str, float]] = {}

    def __call__(self, component: str, stage: LoadStage) -> None:
        """A load is that far."""
        name, at = self._said.get(component, ("", 0.0))
        now = self._clock()
        if stage.stage != name:
            self._say(component, f"loading {stage.stage}")
        elif now - at >= _LINE_EVERY_S and str(stage) != name:
            self._say(component, f"loading {stage}")
        else:
            return
        self._said[component] = (stage.stage, now)

    def over(self, component: str) -> None:
        """A load has ended, well or not: the next one begins anew."""
        self._said.pop(component, None)


class Both:
    """Shows each download in two ways."""

    def __init__(self, first: Show, second: Show) -> None:
        self._shows = (first, second)

    def __call__(self, component: str) -> Progress:
        """A download of this component, shown in both ways."""
        return _Both([show(component) for show in self._shows])


class _Both:
    def __init__(self, parts: list[Progress]) -> None:
        self._parts = parts

    def start(self, label: str, total_bytes: int | None, already: int = 0) -> None:
        for part in self._parts:
            part.start(label, total_bytes, already)

    def advance(self, n: int) -> None:
        for part in self._parts:
            part.advance(n)

    def finish(self) -> None:
        for part in self._parts:
            part.finish()
