from __future__ import annotations

import errno
from pathlib import Path

import pytest

from model_compose.errors import SourceError
from model_compose.sources.disk import full_disk_explained, require_room, size_text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (98_432_000, "98.4 MB"),
        (99_960_000, "100 MB"),
        (999_400_000, "999 MB"),
        (999_600_000, "1.0 GB"),
        (5e15, "5000 TB"),
    ],
)
def test_a_size_is_short_and_right(n_bytes: float, text: str) -> None:
    assert size_text(n_bytes) == text


def test_too_little_room_is_an_error_that_names_both_numbers(tmp_path: Path) -> None:
    require_room(tmp_path, 1, "a.gguf")
    with pytest.raises(
        SourceError, match=r"no room for `a.gguf` in `.*`: 1000 TB needed, .* free$"
    ) as caught:
        require_room(tmp_path, 10**15, "a.gguf")
    assert "MODEL_COMPOSE_CACHE" in (caught.value.hint or "")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_fills_up_gives_the_same_error(tmp_path: Path, code: int) -> None:
    with (
        pytest.raises(SourceError, match=r"no room for `a.gguf`"),
        full_disk_explained(tmp_path, 5, "a.gguf"),
    ):
        raise OSError(code, "full")


def test_other_trouble_of_the_system_passes_through(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), full_disk_explained(tmp_path, 5, "a.gguf"):
        raise PermissionError(errno.EACCES, "no")
