"""Is everything found that ships with us, and what other packages add?"""

from __future__ import annotations

from pathlib import Path

import pytest

import model_compose
from model_compose.compose.catalog import BuiltIn, Installed
from model_compose.config.spec import fields_of
from model_compose.runtime.host import named

CATALOG = BuiltIn()


def test_every_folder_with_a_spec_is_in_the_catalog_by_its_name() -> None:
    package = Path(next(iter(model_compose.__path__)))
    for kind, names in (
        ("components", CATALOG.components()),
        ("tasks", CATALOG.tasks()),
        ("drivers", CATALOG.drivers()),
    ):
        folders = {path.parent.name for path in (package / kind).glob("*/spec.py")}
        assert {name.replace("-", "_") for name in names} == folders
        assert names == tuple(sorted(names))


@pytest.mark.parametrize("name", CATALOG.tasks())
def test_a_task_is_named_as_its_folder(name: str) -> None:
    task = CATALOG.task(name)
    assert task is not None
    assert task.name == name
    assert task.main in {field.name for field in fields_of(task.request)}
    assert task.summary.endswith(".")


@pytest.mark.parametrize("name", CATALOG.tasks())
def test_a_task_s_drivers_exist_and_refuse_fields_that_it_has(name: str) -> None:
    task = CATALOG.task(name)
    assert task is not None
    for driver, how in task.drivers.items():
        assert CATALOG.driver(driver) is not None
        assert how.refuses.keys() <= {field.name for field in fields_of(task.request)}


@pytest.mark.parametrize("name", CATALOG.drivers())
def test_a_driver_is_named_as_its_folder(name: str) -> None:
    driver = CATALOG.driver(name)
    assert driver is not None
    assert driver.name == name
    assert driver.summary.endswith(".")


@pytest.mark.parametrize("name", CATALOG.components())
def test_a_component_type_has_an_implementation(name: str) -> None:
    spec = CATALOG.component(name)
    assert spec is not None
    assert spec.name == name
    assert callable(named(spec.implementation))


def test_a_driver_of_another_package_is_found_by_its_entry_point() -> None:
    driver = CATALOG.driver("echo")
    assert driver is not None
    assert driver.name == "echo"
    assert "text-generation" in driver.tasks
    assert "echo" not in CATALOG.drivers()  # only what ships with us is listed


def test_who_wants_all_of_it_gets_the_names_of_other_packages_too() -> None:
    assert Installed().drivers() == (*CATALOG.drivers(), "echo")
    assert Installed().tasks() == CATALOG.tasks()
    assert Installed().components() == CATALOG.components()


def test_what_nobody_has_is_not_found() -> None:
    assert CATALOG.driver("no-such-driver") is None
    assert CATALOG.task("no-such-task") is None
    assert CATALOG.component("no-such-type") is None


def test_names_of_later_versions_are_known_and_none_of_them_is_there_already() -> None:
    assert CATALOG.later("mcp-client")
    assert not [name for name in CATALOG.components() if CATALOG.later(name)]
