"""Do imports go one way only, and does nothing load an engine that does not need it?"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "model_compose"

#: From the bottom up; a module imports from its own layer and from those before it.
LAYERS = (
    ("about", "errors", "frames", "types"),
    ("ui",),  # a process of its own, that knows nothing of the service but its HTTP API
    ("config",),
    ("sources",),
    ("drivers",),
    ("tasks",),
    ("runtime",),
    ("components",),
    ("workflows",),
    ("compose",),
    ("api",),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

#: Libraries that compute, and what pulls them in: no check of a file, no gateway and no help text needs one.
HEAVY = (
    *("PIL", "cv2", "diffusers", "gguf", "gradio", "numpy", "onnxruntime", "pandas", "peft"),
    *("safetensors", "spandrel", "torch", "transformers", "unsloth", "vllm", "xllamacpp"),
)

#: What workers of several tasks share, and nobody else imports.
IN_WORKERS = {("tasks", "images.py"), ("tasks", "png.py")}

MODULES = sorted(PACKAGE.rglob("*.py"))


class Import(NamedTuple):
    module: str
    line: int


@functools.cache
def imports(path: Path) -> tuple[Import, ...]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: names are absolute"
            found.append(Import(node.module or "", node.lineno))
        elif isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno) for alias in node.names]
    return tuple(found)


def test_a_module_imports_from_its_own_layer_or_from_below() -> None:
    upwards = [
        f"{path}:{line}: {module}"
        for path in MODULES
        for module, line in imports(path)
        if module.startswith("model_compose.") and RANK[module.split(".")[1]] > _rank(path)
    ]
    assert upwards == []


def _rank(path: Path) -> int:
    return RANK[path.relative_to(PACKAGE).parts[0].removesuffix(".py")]


def test_an_engine_s_library_is_imported_only_where_the_engine_runs() -> None:
    found = [
        f"{path}:{line}: {module}"
        for path in MODULES
        for module, line in imports(path)
        if module.split(".")[0] in HEAVY and not _runs_an_engine(path)
    ]
    assert found == []


def _runs_an_engine(path: Path) -> bool:
    parts = path.relative_to(PACKAGE).parts
    runs = len(parts) > 2 and parts[0] in ("drivers", "tasks") and parts[-1] != "spec.py"
    return runs or parts in IN_WORKERS or parts[0] == "ui"


@pytest.mark.process
@pytest.mark.parametrize(
    "work",
    [
        "import model_compose.cli.main",
        "import model_compose.cli.serve",
        "from model_compose.cli.main import main; main()",
    ],
    ids=["the command", "the gateway", "check"],
)
def test_nothing_of_an_engine_is_loaded(work: str, tmp_path: Path) -> None:
    file = tmp_path / "model-compose.yml"
    file.write_text("component: {type: model, task: chat-completion, model: ./none.gguf}\n")
    code = (
        f"import sys\ntry:\n    {work}\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('\\nloaded', *sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "check", "-f", str(file)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    loaded = set(ended.stdout.splitlines()[-1].split())
    assert "model_compose" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.process
def test_a_check_starts_no_server_and_asks_no_network() -> None:
    code = "import sys, model_compose.config.project, model_compose.compose.catalog; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ended.stdout.split())
    assert loaded.isdisjoint(("asyncio", "httpx2", "huggingface_hub", "starlette", "uvicorn", "rich"))
