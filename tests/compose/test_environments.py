"""Is an environment judged by what the file says and the disk has, and told with what makes it?"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import msgspec
import pytest
from tests.compose.apps import project_of
from tests.environments import bare

from model_compose.compose.catalog import BuiltIn
from model_compose.compose.environments import Environment, Record, leftovers, require, shared
from model_compose.compose.install import packages
from model_compose.compose.models import Model, models_of, require_drivers
from model_compose.errors import ConfigError, DriverMissing, InstallFailed
from model_compose.runtime.elsewhere import RECORD

ROOT = Path(__file__).parents[2]

FILE = """
components:
  - id: a
    type: model
    task: text-generation
    driver: echo
    runtime: {runtime}
"""


def model_of(runtime: str, folder: Path) -> Model:
    (model,) = models_of(project_of(FILE.replace("{runtime}", runtime), folder), BuiltIn())
    return model


def environment_of(runtime: str, folder: Path) -> Environment:
    environment = model_of(runtime, folder).environment
    assert environment is not None
    return environment


def made(environment: Environment, name: str = "0a1b2c3d") -> Path:
    """What an install leaves, but for what is installed."""
    folder = environment.path.with_name(f".{environment.path.name}-{name}")
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    record = Record(environment.wanted(), [], "3.11.7", "uv 1", "0.1.0", "2026-01-01T00:00:00+00:00", [])
    (folder / RECORD).write_bytes(msgspec.json.encode(record))
    environment.path.unlink(missing_ok=True)
    environment.path.symlink_to(folder.name)
    return folder


def test_paths_start_where_the_file_is_and_links_stay(tmp_path: Path) -> None:
    assert environment_of("virtualenv", tmp_path).path == tmp_path / ".venvs" / "a"
    assert environment_of("{type: virtualenv, path: ../x/./y}", tmp_path).path == tmp_path.parent / "x" / "y"
    named = environment_of("{type: virtualenv, python: ./p, requirements: ./r.txt}", tmp_path)
    assert (named.python, named.file) == (str(tmp_path / "p"), tmp_path / "r.txt")
    (tmp_path / "p").symlink_to(sys.executable)
    assert model_of("{type: process, python: ./p}", tmp_path).python == str(tmp_path / "p")
    assert model_of("process", tmp_path).python is None
    assert model_of("virtualenv", tmp_path).python == str(tmp_path / ".venvs" / "a" / "bin" / "python")


def test_it_is_missing_then_ready_then_stale_when_the_file_says_otherwise(tmp_path: Path) -> None:
    environment = environment_of("{type: virtualenv, requirements: [x]}", tmp_path)
    assert environment.state() == "missing"
    made(environment)
    assert environment.state() == "ready"
    assert environment.mistake() is None
    for other in ("requirements: [x, y]", "requirements: [x], python: '3.12'"):
        changed = environment_of(f"{{type: virtualenv, {other}}}", tmp_path)
        mistake = changed.mistake()
        assert mistake is not None
        assert "was made for other requirements" in str(mistake)
        assert mistake.hint == "run `model-compose install a`"


def test_half_of_one_is_none(tmp_path: Path) -> None:
    environment = environment_of("virtualenv", tmp_path)
    folder = made(environment)
    (folder / RECORD).write_text('{"wanted": ')
    assert environment.state() == "missing"
    folder = made(environment, "11111111")
    (folder / "bin" / "python").unlink()
    assert environment.state() == "missing"
    environment.path.unlink()
    environment.path.symlink_to(".a-22222222")
    mistake = environment.mistake()
    assert mistake is not None
    assert str(mistake) == f"the environment `{environment.path}` of component `a` is not installed"


def test_what_somebody_else_made_is_left_alone(tmp_path: Path) -> None:
    environment = environment_of("{type: virtualenv, path: env}", tmp_path)
    elsewhere = tmp_path / "elsewhere" / ".env-0a1b2c3d"
    elsewhere.mkdir(parents=True)
    for target in (elsewhere, tmp_path / "elsewhere", tmp_path / ".other-0a1b2c3d"):
        environment.path.symlink_to(target)
        assert environment.state() == "strange"
        environment.path.unlink()
    environment.path.mkdir()
    mistake = environment.mistake()
    assert mistake is not None
    assert "was not made by `model-compose install`" in str(mistake)
    assert f"python: {environment.path}/bin/python" in str(mistake.hint)


def test_a_file_of_requirements_counts_with_those_that_it_includes(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        "# a word\nx\n-r more/others.txt\n--index-url https://x/simple\n"
    )
    (tmp_path / "more").mkdir()
    others = tmp_path / "more" / "others.txt"
    others.write_text("y==1\n-c ../requirements.txt\n")
    environment = environment_of("{type: virtualenv, requirements: requirements.txt}", tmp_path)
    made(environment)
    assert environment.state() == "ready"
    (tmp_path / "requirements.txt").write_text((tmp_path / "requirements.txt").read_text() + "\n# another\n")
    assert environment.state() == "ready"
    others.write_text("y==2\n")
    assert environment.state() == "stale"
    others.unlink()
    with pytest.raises(InstallFailed, match=r"No such file or directory: `.*others\.txt`"):
        environment.state()


def test_components_may_share_one_if_they_want_the_same(tmp_path: Path) -> None:
    one = environment_of("{type: virtualenv, path: env, requirements: [x]}", tmp_path)
    other = msgspec.structs.replace(one, components=("b",), modules=("m",))
    (both,) = shared([one, other])
    assert (both.components, both.modules) == (("a", "b"), ("m",))
    with pytest.raises(ConfigError, match="components `a` and `b` want different things at"):
        shared([one, msgspec.structs.replace(other, python="3.12")])


def test_leftovers_are_told_from_what_is_used_and_from_what_is_not_ours(tmp_path: Path) -> None:
    environment = environment_of("{type: virtualenv, path: env}", tmp_path)
    old, used = made(environment, "00000000"), made(environment, "ffffffff")
    link = tmp_path / ".env-12345678.link"
    link.symlink_to("nowhere")
    for name in ("env2", ".env-mine", ".env-0000000", ".envy-00000000", ".env-000000000"):
        (tmp_path / name).mkdir()
    assert sorted(leftovers(environment.path)) == [old, link]
    assert used not in leftovers(environment.path)


@pytest.mark.process
def test_what_is_looked_for_is_looked_for_where_the_worker_runs(tmp_path: Path) -> None:
    python = bare(tmp_path / "bare", "msgspec")
    model = model_of(f"{{type: process, python: {python}}}", tmp_path)
    require_drivers([model])
    lacking = msgspec.structs.replace(model.driver, modules=("json", "pytest"))
    require_drivers([msgspec.structs.replace(model, python=None, driver=lacking)])
    with pytest.raises(DriverMissing) as raised:
        require_drivers([msgspec.structs.replace(model, driver=lacking)])
    assert str(raised.value) == f"component `a` needs `pytest`, which is not installed for `{python}`"


@pytest.mark.process
@pytest.mark.parametrize(
    ("python", "reason"),
    [
        ("/no/such/python", "there is no interpreter `/no/such/python`"),
        ("/bin/ls", "`/bin/ls` cannot be used as an interpreter: "),
        ("/bin/true", "`/bin/true` cannot be used as an interpreter: what it printed makes no sense"),
        ("/etc/passwd", "`/etc/passwd` cannot be used as an interpreter: Permission denied"),
    ],
)
def test_what_is_no_python_is_told(python: str, reason: str) -> None:
    with pytest.raises(DriverMissing) as raised:
        require("a", python, None, ())
    assert str(raised.value).startswith(f"component `a` cannot start its worker: {reason}")


@pytest.mark.process
def test_an_environment_without_what_a_worker_needs_is_made_anew(tmp_path: Path) -> None:
    environment = environment_of("{type: virtualenv, path: env}", tmp_path)
    made(environment)
    bare(environment.path.parent / environment.path.readlink())
    with pytest.raises(DriverMissing, match="has no msgspec") as raised:
        require("a", str(environment.interpreter), environment, ())
    assert raised.value.hint == "run `model-compose install a --reinstall`"


def test_an_engine_that_wants_an_environment_says_so_where_it_has_none(tmp_path: Path) -> None:
    model = model_of("process", tmp_path)
    driver = msgspec.structs.replace(model.driver, modules=("no_such_engine",), requirements=("no-such",))
    assert driver.extra is None
    with pytest.raises(DriverMissing) as raised:
        require_drivers([msgspec.structs.replace(model, driver=driver)])
    assert raised.value.hint == (
        "write `runtime: virtualenv` into it, and run `model-compose install a`; "
        "or write `driver: huggingface`"
    )


def test_what_a_driver_of_ours_requires_is_what_its_extra_brings() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    drivers = [driver for name in BuiltIn().drivers() if (driver := BuiltIn().driver(name))]
    named = {driver.name: driver for driver in drivers if driver.requirements and driver.extra}
    assert "llamacpp" in named
    for driver in named.values():
        assert set(driver.requirements) <= set(extras[driver.extra or ""]), driver.name


def test_what_is_installed_has_the_digest_of_the_files_that_it_came_with(tmp_path: Path) -> None:
    digests = set()
    for installer in ("pip", "uv"):
        site = tmp_path / installer / "lib" / "python3.11" / "site-packages"
        info = site / "engine-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: engine\nVersion: 1.0\n")
        (info / "direct_url.json").write_text('{"url": "https://me:secret@x/engine.whl"}')
        (info / "RECORD").write_text(
            f"../../../bin/engine,sha256={installer},1\nengine/a.py,sha256=abc,1\n"
            f"engine-1.0.dist-info/INSTALLER,sha256={installer},1\nengine/__pycache__/a.pyc,,\n"
        )
        (package,) = packages(tmp_path / installer)
        assert (package.name, package.version, package.origin) == ("engine", "1.0", "https://x/engine.whl")
        digests.add(package.sha256)
    (digest,) = digests
    assert digest is not None
    assert len(digest) == 64
    (info / "RECORD").write_text("engine/a.py,sha256=abd,1\n")
    assert packages(tmp_path / "uv")[0].sha256 != digest
