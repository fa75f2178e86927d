"""What the cases share: a hub on this machine, and a cache and a home that are empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.conformance.blocks import Hub

from model_compose.components.model.spec import ModelConfig

_PATH_OF_A_FILE = "{repo_id}/resolve/{revision}/{filename}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The hub that everybody asks who names none; `offer` puts toys on it."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MODEL_COMPOSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    impatient = SimpleNamespace(sleep=lambda _s: None)  # the library waits a second before each new try
    monkeypatch.setattr("huggingface_hub.file_download.time", impatient)
    monkeypatch.setattr("huggingface_hub.utils._http.time", impatient)
    with Hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{_PATH_OF_A_FILE}"
        )
        yield hub


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are loaded in this process, where the libraries are loaded once for all cases.

    The same as `runtime: embedded` in the file, which stays as it is.
    """
    monkeypatch.setattr(ModelConfig, "embedded", True)
