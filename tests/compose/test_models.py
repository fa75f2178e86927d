"""Does what the file says of a model reach the scheduler and the worker?"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.compose.apps import ECHO, project_of
from tests.engines import unseen

from model_compose.compose import models
from model_compose.compose.catalog import BuiltIn
from model_compose.runtime.memory import installed_bytes
from model_compose.runtime.pool import ModelSetup
from model_compose.sources.progress import Silent


def setup(folder: Path, *lines: str) -> ModelSetup:
    project = project_of(ECHO + "".join(f"  {line}\n" for line in lines), folder)
    (model,) = models.models_of(project, BuiltIn())
    return models.setup(model, project, 2, folder, lambda _: Silent())


def budget(folder: Path, line: str = "") -> int:
    return models.memory_budget(project_of(f"{line}\n{ECHO}", folder))["host"]


@pytest.mark.parametrize(
    ("written", "seconds"), [("5m", 300.0), ("0", 0.0), ("-1", None), ("90", 90.0), ("1h30m", 5400.0)]
)
def test_keep_alive_is_a_duration_and_a_negative_one_is_for_ever(
    tmp_path: Path, written: str, seconds: float | None
) -> None:
    assert setup(tmp_path, f"keep_alive: {written}").plan.keep_alive_s == seconds


def test_without_a_word_a_model_is_loaded_at_once_and_stays(tmp_path: Path) -> None:
    plan = setup(tmp_path).plan
    assert (plan.preload, plan.keep_alive_s, plan.max_queue, plan.size) == (True, None, 256, {})


def test_what_the_file_says_is_planned(tmp_path: Path) -> None:
    plan = setup(tmp_path, "memory: 2GiB", "preload: false", "max_queue: 3", "max_concurrent_count: 4").plan
    assert plan.size == {"host": 2 << 30}
    assert (plan.preload, plan.max_queue, plan.max_active) == (False, 3, 4)


@pytest.mark.parametrize("warmup", [True, False])
async def test_what_a_driver_needs_reaches_its_worker(tmp_path: Path, warmup: bool) -> None:
    written = setup(tmp_path, f"warmup: {str(warmup).lower()}", "batch_size: 5", "options: {slots: 7}")
    options = (await written.prepare(unseen)).load.options
    assert (options.warmup, options.batch_size, options.threads) == (warmup, 5, 2)
    assert options.options == {"slots": 7}


@pytest.mark.parametrize(
    ("device", "estimate", "pool"),
    [
        ("cpu", {}, "host"),
        ("mps", {}, "host"),
        ("cuda", {"host": 9}, "cuda:0"),
        ("cuda:1", {"cuda:0": 9}, "cuda:1"),
        ("auto", {}, "host"),
        ("auto", {"host": 5}, "host"),
        ("auto", {"host": 1, "cuda:0": 9}, "cuda:0"),
    ],
)
async def test_memory_that_is_declared_is_that_of_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, estimate: dict[str, int], pool: str
) -> None:
    monkeypatch.setattr("echo_driver.estimate", lambda options: estimate)
    written = setup(tmp_path, "memory: 2GiB", f"device: {device}")
    assert (await written.prepare(unseen)).size == {pool: 2 << 30}


async def test_without_a_word_of_memory_the_driver_estimates(tmp_path: Path) -> None:
    assert (await setup(tmp_path, "options: {memory: 5}").prepare(unseen)).size == {"host": 5}


def test_the_memory_limit_is_bytes_or_a_share_of_what_is_installed(tmp_path: Path) -> None:
    assert budget(tmp_path, "memory_limit: 2GiB") == 2 << 30
    assert budget(tmp_path, "memory_limit: 50%") == installed_bytes() // 2
    assert budget(tmp_path) == int(installed_bytes() * 0.9)
