"""Does the guide list the known names, with what the code says of them?"""

from __future__ import annotations

from tests.docs.pages import ROOT

from model_compose.sources.disk import size_text
from model_compose.sources.known import KNOWN


def test_the_guide_lists_every_known_name() -> None:
    text = (ROOT / "docs" / "guides" / "models.md").read_text(encoding="utf-8")
    section = text.partition("## Known names\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{name}` | [{known.file}]({known.url}) | {size_text(known.size_bytes)} | {known.licence} |"
        for name, known in KNOWN.items()
    ]
