"""Loading with llama.cpp: what goes wrong, and what is said then."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import xllamacpp
from tests import models
from tests.engines import load_options, unseen

from model_compose.drivers.llamacpp.engine import LlamaCpp
from model_compose.errors import ModelLoadError


async def refused(path: Path, **more: Any) -> ModelLoadError:
    with pytest.raises(ModelLoadError) as caught:
        await LlamaCpp().load(load_options(path, "text-generation", **more), unseen)
    return caught.value


async def test_what_the_engine_refuses_is_refused_with_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "odd.gguf"
    file.write_bytes(models.tiny_chat().read_bytes().replace(b"llama", b"blama"))
    error = await refused(file)
    assert error.message.startswith("llama.cpp cannot load `odd.gguf`: ")
    assert error.message.endswith("unknown model architecture: 'blama'")
    assert error.hint is not None
    assert "pull it again" in error.hint


async def test_a_truncated_file_is_refused_before_the_engine_sees_it(tmp_path: Path) -> None:
    size = models.tiny_chat().stat().st_size
    for cut in (1, 200, 20_000):
        error = await refused(models.truncated(models.tiny_chat(), tmp_path / "cut.gguf", size - cut))
        assert f"is incomplete: it has {size - cut} bytes, and its tensors end at {size}" in error.message
        assert error.hint is not None
        assert "download it again" in error.hint


async def test_a_file_that_ends_in_its_header_is_refused(tmp_path: Path) -> None:
    error = await refused(models.truncated(models.tiny_chat(), tmp_path / "cut.gguf", 1000))
    assert "is damaged" in error.message


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"GGUF\x63\x00\x00\x00" + b"\0" * 16])
async def test_what_is_no_gguf_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    error = await refused(file)
    assert "is not a GGUF file" in error.message


async def test_a_folder_with_several_files_is_refused_with_their_names(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(models.tiny_chat().read_bytes())
    error = await refused(tmp_path)
    assert error.hint == "name one: `a.gguf`, `b.gguf`"


async def test_a_device_that_is_not_there_is_refused_with_what_exists() -> None:
    error = await refused(models.tiny_chat(), device="cuda")
    assert "no device `cuda`" in error.message
    assert "CPU only" in error.message


async def test_a_gpu_is_one_of_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The devices are a fake's."""
    monkeypatch.setattr(
        xllamacpp, "get_device_info", lambda: [{"name": name} for name in ("CPU", "CUDA0", "CUDA1")]
    )
    error = await refused(models.tiny_chat(), device="cuda:2")
    assert error.message == "there is no device `cuda:2`: llama.cpp sees `CUDA0`, `CUDA1`"


async def test_a_prompt_cache_and_adapters_exclude_each_other() -> None:
    """llama.cpp keeps prompts without the adapters that they were computed with."""
    adapters = {"arr": (models.tiny_lora("arr"), 1.0)}
    error = await refused(models.tiny_chat(), adapters=adapters, options={"prompt_cache_mib": 100})
    assert "prompt_cache_mib" in error.message


@pytest.mark.parametrize("name", ["raising", "broken"])
async def test_a_chat_template_that_fails_is_refused(tmp_path: Path, name: str) -> None:
    file = models.with_chat_template(models.HOSTILE_TEMPLATES[name], tmp_path / "hostile.gguf")
    error = await refused(file)
    assert "hostile.gguf" in error.message


async def test_the_listener_is_a_socket_that_only_we_can_reach() -> None:
    engine = LlamaCpp()
    await engine.load(load_options(models.tiny_chat(), "text-generation"), unseen)
    try:
        assert engine._server.listening_address.startswith("unix://")
        assert stat.S_IMODE(Path(engine._folder or "").stat().st_mode) == 0o700
        assert len(engine.tokenize("salve")) > 0
    finally:
        await engine.close()


async def test_a_model_that_never_served_closes() -> None:
    engine = LlamaCpp()
    await engine.load(load_options(models.tiny_chat(), "text-generation"), unseen)
    await engine.close()
    assert not Path(engine._folder or "").exists()
