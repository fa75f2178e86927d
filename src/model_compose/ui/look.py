"""How do the pages look? With fonts of the machine that shows them, and nothing from anywhere else."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
import msgspec

from model_compose.errors import ModelComposeError

_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

CSS = """
.gradio-container { max-width: 1200px !important; width: 100% !important; margin: 0 auto !important; }
.gradio-container main { padding-top: 8px !important; }
.gradio-container .html-container { padding: 0 !important; }
.mc-about p { color: var(--body-text-color-subdued); margin: 0; }
.mc-error { border: 1px solid var(--error-border-color); background: var(--error-background-fill);
  color: var(--error-text-color); border-radius: var(--radius-md); padding: 10px 14px;
  overflow-wrap: anywhere; white-space: pre-wrap; }
.mc-error .hint { margin-top: 4px; opacity: .85; }
.mc-course { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: center; min-height: 20px;
  color: var(--body-text-color-subdued); font-size: var(--text-sm); }
.mc-course progress { width: 160px; accent-color: var(--color-accent); }
.mc-table { overflow-x: auto; }
.mc-table table { width: 100%; border-collapse: collapse; font-size: var(--text-md); margin: 0;
  border: none !important; }
.mc-table tr { border: none !important; }
.mc-table th, .mc-table td { text-align: left; padding: 6px 16px 6px 0 !important; vertical-align: top;
  border: none !important; border-bottom: 1px solid var(--border-color-primary) !important; }
.mc-table th { font-weight: 600; color: var(--body-text-color-subdued); white-space: nowrap; }
.mc-table td { white-space: nowrap; }
.mc-table td:nth-child(3) { white-space: normal; }
.mc-mark { display: inline-block; width: 12px; height: 3px; margin-right: 8px; vertical-align: middle; }
.mc-state { white-space: nowrap; }
.mc-state::before { content: "●"; margin-right: 6px; color: #9ca3af; }
.mc-state.ready::before { color: #16a34a; }
.mc-state.loading::before { color: #d97706; }
.mc-state.failed::before { color: #dc2626; }
.mc-links { display: flex; flex-wrap: wrap; gap: 4px 20px; }
.mc-links a { text-decoration: underline; }
.mc-error-line { color: var(--error-text-color); overflow-wrap: anywhere; }
"""

#: Enter in an empty message is not worth a question to the server: Gradio would drop the next one meanwhile.
SCRIPT = """<script>
addEventListener("keydown", (event) => {
  const empty = event.target.matches?.(".mc-message textarea") && !event.target.value.trim();
  if (event.key === "Enter" && !event.shiftKey && empty) { event.preventDefault(); event.stopPropagation(); }
}, true);
</script>"""


def theme() -> gr.themes.Base:
    """Gradio's own, without fonts from elsewhere, and with small print that can be read on white."""
    own = gr.themes.Default(font=_SANS, font_mono=_MONO, primary_hue="indigo", radius_size="md")
    return own.set(body_text_color_subdued="*neutral_500", block_info_text_color="*neutral_500")


def error(reason: ModelComposeError) -> str:
    """What went wrong, and what to do about it."""
    hint = f'<div class="hint">{html.escape(reason.hint)}</div>' if reason.hint else ""
    return f'<div class="mc-error" role="alert">{html.escape(reason.message)}{hint}</div>'


def course(text: str = "", progress: tuple[int, int] | None = None) -> str:
    """How far something is."""
    bar = said = ""
    if progress is not None:
        done, total = progress
        bar = f'<progress value="{done}" max="{total}"></progress>'
        said = f"<span>step {done} of {total}</span>"
    return f'<div class="mc-course" role="status">{bar}{said}<span>{html.escape(text)}</span></div>'


def after(interactive: Sequence[bool]) -> str:
    """Makes buttons usable or not, in the browser, when an event is over.

    Gradio drops what is pressed before it has heard that an event is over, without a word.
    """
    updates = [{"__type__": "update", "interactive": each} for each in interactive]
    return f"() => {msgspec.json.encode(updates).decode()}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; its cells are HTML."""
    head = "".join(f"<th>{html.escape(each)}</th>" for each in columns)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="mc-table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def title_of(workflow: Mapping[str, Any], components: Sequence[Mapping[str, Any]]) -> str:
    """What a workflow is called; that of a lone component by the component."""
    if workflow.get("title"):
        return str(workflow["title"])
    if not workflow["workflow_id"].startswith("__"):
        return str(workflow["workflow_id"])
    names = [each["name"] for each in components if not each["name"].startswith("__")]
    return names[0] if len(names) == 1 else "Try it"
