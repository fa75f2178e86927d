"""What is on the page about the service? Its models, how busy they are, and how fast."""

from __future__ import annotations

import html
import itertools
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import gradio as gr
import httpx2
import msgspec
import pandas as pd

from model_compose.errors import ModelComposeError
from model_compose.ui import look
from model_compose.ui.gateway import Gateway, caller_of, explained

EVERY_S: Final = 2.0
#: Looks that a plot shows: five minutes.
_KEPT: Final = 150

_SAMPLE: Final = re.compile(
    r'^vllm:generation_tokens_total\{model_name="((?:[^"\\]|\\.)*)"\} (\S+)$', re.MULTILINE
)

_LINKS: Final = """
<div class="mc-links"><a href="/docs">API page</a><a href="/metrics">Metrics</a>
<span>Logs: <code>model-compose logs -f</code></span></div>
"""


#: Lines that can be told apart in the light and in the dark.
_COLOURS: Final = ("#6366f1", "#f59e0b", "#10b981", "#ef4444", "#0ea5e9", "#d946ef", "#84cc16", "#a16207")

SPEED: Final = "tokens/s"
BUSY: Final = "requests"


class Look(msgspec.Struct, frozen=True):
    """What was seen at one moment: for each model what it had generated, and how many requests it had."""

    at: float
    tokens: dict[str, float]
    requests: dict[str, int]


class StatusPage:
    """The parts of a page, and what happens to them."""

    def __init__(self, gateway: Gateway, components: Sequence[Mapping[str, Any]]) -> None:
        self._gateway = gateway
        models = [each["name"] for each in components if each["type"] == "model"]
        self._colours = colours = dict(zip(models, itertools.cycle(_COLOURS), strict=False))
        gr.HTML(_LINKS, padding=False)
        self._table = gr.HTML(look.table(COLUMNS, []), padding=False)
        with gr.Row():
            self._speed = _plot("Tokens per second", SPEED, ".0f", colours)
            self._busy = _plot("Requests under way or waiting", BUSY, "d", colours)
        self._seen = gr.State([])
        tick = gr.Timer(EVERY_S).tick
        outputs = [self._table, self._speed, self._busy, self._seen]
        gr.on(
            [tick],
            self._look,
            [self._seen],
            outputs,
            show_progress="hidden",
            api_visibility="private",
            concurrency_limit=None,
            trigger_mode="once",
        )

    async def _look(self, request: gr.Request, seen: list[Look]) -> list[Any]:
        caller = caller_of(request.headers)
        try:
            components = await self._gateway.components(caller)
            tokens = generated(await self._gateway.metrics(caller))
        except (ModelComposeError, httpx2.HTTPError) as error:
            return [look.error(explained(error)), gr.skip(), gr.skip(), seen]
        requests = {c["name"]: c["active"] + c["waiting"] for c in components if c["type"] == "model"}
        seen = [*seen, Look(time.time(), tokens, requests)][-_KEPT:]
        return [
            models_table(components, self._colours),
            _drawn(speeds(seen), SPEED),
            _drawn(busy(seen), BUSY),
            seen,
        ]


def _plot(label: str, y: str, written: str, colours: dict[str, str]) -> gr.LinePlot:
    return gr.LinePlot(
        x="time",
        y=y,
        color="model",
        color_map=colours,
        colors_in_legend=[],  # they stand in the table
        label=label,
        color_title=" ",
        x_title=" ",
        y_title=" ",
        x_axis_format="%H:%M:%S",
        y_axis_format=written,
        y_lim=[0, 4],
        height=260,
        min_width=320,
    )


def _drawn(frame: pd.DataFrame, y: str) -> Any:
    """New points of a plot, whose axis begins at 0 and ends above the highest."""
    if frame.empty:
        return gr.skip()  # a plot that once was empty has no colours
    return gr.LinePlot(frame, y_lim=[0, max(4.0, 1.1 * float(frame[y].max()))])


COLUMNS: Final = ("name", "type", "state", "memory", "queue", "active", "pid")


def models_table(components: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> str:
    """The components as a table; each model has the colour of its lines."""
    return look.table(COLUMNS, [_row(each, colours.get(each["name"])) for each in components])


def _row(component: Mapping[str, Any], colour: str | None) -> list[str]:
    mark = f'<span class="mc-mark" style="background: {colour}"></span>' if colour else ""
    state = component["state"]
    loading = component.get("loading")
    told = state
    if loading:
        told = f"{state} {loading.get('stage', '')} {_percent(loading)}".strip()
    cell = f'<span class="mc-state {html.escape(state)}">{html.escape(told)}</span>'
    if component.get("error"):
        cell += f'<div class="mc-error-line">{html.escape(component["error"])}</div>'
    memory = [f"{html.escape(pool)} {size_in_words(size)}" for pool, size in component["memory"].items()]
    return [
        mark + html.escape(component["name"]),
        html.escape(component["type"]),
        cell,
        "<br>".join(memory) or "–",
        str(component["waiting"]),
        str(component["active"]),
        str(component.get("pid") or "–"),
    ]


def _percent(loading: Mapping[str, Any]) -> str:
    done, total = loading.get("done"), loading.get("total")
    return f"{100 * done // total}%" if done and total else ""


def size_in_words(size: float) -> str:
    """Bytes in a unit that fits."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def generated(metrics: str) -> dict[str, float]:
    """The tokens that each model has generated, from what Prometheus reads."""
    return {name: float(value) for name, value in _SAMPLE.findall(metrics)}


def speeds(seen: Sequence[Look]) -> pd.DataFrame:
    """Tokens per second of each model, between each look and the one before it."""
    rows = []
    for before, now in itertools.pairwise(seen):
        for model in now.requests:
            more = now.tokens.get(model, 0.0) - before.tokens.get(model, 0.0)
            rows.append((now.at, max(more, 0.0) / (now.at - before.at), model))
    return _frame(rows, SPEED)


def busy(seen: Sequence[Look]) -> pd.DataFrame:
    """Requests that each model had, waiting ones among them, at each look."""
    rows = [(each.at, count, model) for each in seen for model, count in each.requests.items()]
    return _frame(rows, BUSY)


def _frame(rows: Sequence[tuple[float, float, str]], what: str) -> pd.DataFrame:
    """Points of a plot; the types of its columns are the same if there are none."""
    frame = pd.DataFrame(rows, columns=["time", what, "model"])
    return frame.astype({what: "float64"}).assign(time=pd.to_datetime(frame["time"], unit="s", utc=True))
