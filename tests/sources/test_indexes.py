from __future__ import annotations

import os
from pathlib import Path

import pytest

from model_compose.sources.indexes import PYPI, Index, Indexes, configured_indexes, pip_for_uv

PASSWORD = "hunter2"


class Machine:
    """A home and an /etc of its own."""

    def __init__(self, root: Path) -> None:
        self.home, self.etc, self.prefix = root / "home", root / "etc", root / "venv"

    def write(self, path: str, text: str) -> Path:
        file = self.home.parent / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def indexes(self, *, only: str | None = None, **environ: str) -> Indexes:
        return configured_indexes(environ, home=self.home, etc=self.etc, prefix=self.prefix, only=only)

    def for_uv(self, **environ: str) -> dict[str, str]:
        return pip_for_uv(environ, home=self.home, etc=self.etc, prefix=self.prefix)

    def urls(self, **environ: str) -> list[str]:
        return [place.url for place in self.indexes(**environ).places]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_without_configuration_uses_pypi(machine: Machine) -> None:
    assert machine.indexes() == Indexes((Index(url=PYPI),), None)


def test_pips_variables_name_indexes_in_pips_order(machine: Machine) -> None:
    urls = machine.urls(
        PIP_INDEX_URL="https://a/simple/", PIP_EXTRA_INDEX_URL="https://b/simple https://c/simple"
    )
    assert urls == ["https://a/simple", "https://b/simple", "https://c/simple"]


def test_an_extra_index_stands_beside_pypi(machine: Machine) -> None:
    assert machine.urls(PIP_EXTRA_INDEX_URL="https://b/simple") == [PYPI, "https://b/simple"]


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [
        ("etc/xdg/pip/pip.conf", "etc/pip.conf"),
        ("etc/pip.conf", "home/.pip/pip.conf"),
        ("home/.pip/pip.conf", "home/.config/pip/pip.conf"),
        ("home/.config/pip/pip.conf", "venv/pip.conf"),
    ],
)
def test_pips_files_win_in_pips_order(machine: Machine, weaker: str, stronger: str) -> None:
    machine.write(stronger, "[global]\nindex-url = https://stronger/simple\n")
    machine.write(weaker, "[global]\nindex-url = https://weaker/simple\n")
    assert machine.urls() == ["https://stronger/simple"]


def test_the_file_that_a_variable_names_wins_and_replaces_the_users(machine: Machine) -> None:
    machine.write("home/.config/pip/pip.conf", "[global]\nextra-index-url = https://user/simple\n")
    machine.write("venv/pip.conf", "[global]\nindex-url = https://venv/simple\n")
    named = machine.write("named.conf", "[global]\nindex_url = https://named/simple\n")
    assert machine.urls(PIP_CONFIG_FILE=str(named)) == ["https://named/simple"]
    assert machine.urls(PIP_CONFIG_FILE=os.devnull) == [PYPI]


def test_a_variable_wins_over_files_and_a_special_section_over_global(machine: Machine) -> None:
    machine.write(
        "etc/pip.conf",
        "[global]\nindex-url = https://global/simple\n[install]\nindex-url = https://install/simple\n",
    )
    assert machine.urls() == ["https://install/simple"]
    assert machine.urls(PIP_INDEX_URL="https://variable/simple") == ["https://variable/simple"]


def test_the_active_virtual_environment_has_a_say(machine: Machine) -> None:
    machine.write("other/pip.conf", "[global]\nindex-url = https://other/simple\n")
    assert machine.urls(VIRTUAL_ENV=str(machine.home.parent / "other")) == ["https://other/simple"]


def test_several_lines_of_a_file_are_several_indexes(machine: Machine) -> None:
    machine.write("etc/pip.conf", "[global]\nextra-index-url =\n    https://a/simple\n    https://b/simple\n")
    assert machine.urls() == [PYPI, "https://a/simple", "https://b/simple"]


@pytest.mark.parametrize("text", ["not an ini file", "[global]\nindex-url", "\udcff"])
def test_a_file_that_cannot_be_read_is_as_good_as_absent(machine: Machine, text: str) -> None:
    (machine.etc).mkdir()
    (machine.etc / "pip.conf").write_bytes(text.encode("utf-8", "surrogateescape"))
    machine.write("home/.config/uv/uv.toml", "= broken")
    machine.write("home/.netrc", "machine")
    assert machine.urls() == [PYPI]


def test_uvs_indexes_come_before_pips(machine: Machine) -> None:
    urls = machine.urls(
        UV_INDEX="named=https://uv-a/simple https://uv-b/simple?x=1",
        UV_EXTRA_INDEX_URL="https://uv-c/simple",
        UV_DEFAULT_INDEX="https://uv-d/simple",
        UV_INDEX_URL="https://ignored/simple",
        PIP_INDEX_URL="https://pip/simple",
    )
    assert urls == [
        "https://uv-a/simple",
        "https://uv-b/simple?x=1",
        "https://uv-c/simple",
        "https://uv-d/simple",
        "https://pip/simple",
    ]


def test_uvs_old_name_for_the_default_works(machine: Machine) -> None:
    assert machine.urls(UV_INDEX_URL="https://uv/simple") == ["https://uv/simple"]


def test_uvs_file_is_read_and_its_variables_come_first(machine: Machine) -> None:
    machine.write(
        "home/.config/uv/uv.toml",
        '[[index]]\nurl = "https://file/simple"\n[[index]]\nurl = "https://default/simple"\ndefault = true\n',
    )
    assert machine.urls() == ["https://file/simple", "https://default/simple"]
    assert machine.urls(UV_INDEX="https://variable/simple")[0] == "https://variable/simple"
    assert machine.urls(UV_NO_CONFIG="1") == [PYPI]


def test_folders_come_first_and_paths_become_urls(machine: Machine, tmp_path: Path) -> None:
    places = machine.indexes(
        PIP_FIND_LINKS=f"{tmp_path} https://links/page.html", PIP_INDEX_URL="https://a/simple"
    )
    assert places.places == (
        Index(url=tmp_path.as_uri(), flat=True),
        Index(url="https://links/page.html", flat=True),
        Index(url="https://a/simple"),
    )
    local = machine.urls(PIP_EXTRA_INDEX_URL=f"{tmp_path.as_uri()}/simple/")
    assert local == [f"{tmp_path.as_uri()}/simple", PYPI]
    assert machine.urls(UV_FIND_LINKS=f"{tmp_path},https://links") == [
        tmp_path.as_uri(),
        "https://links",
        PYPI,
    ]


@pytest.mark.parametrize("name", ["PIP_NO_INDEX", "UV_NO_INDEX"])
def test_no_index_leaves_only_find_links(machine: Machine, tmp_path: Path, name: str) -> None:
    assert machine.urls(PIP_FIND_LINKS=str(tmp_path), **{name: "true"}) == [tmp_path.as_uri()]


def test_the_same_index_is_asked_once(machine: Machine) -> None:
    assert machine.urls(UV_DEFAULT_INDEX=f"{PYPI}/", PIP_INDEX_URL=PYPI) == [PYPI]


def test_credentials_are_taken_out_of_the_url_and_never_shown(machine: Machine) -> None:
    indexes = machine.indexes(PIP_INDEX_URL=f"https://me%40work:{PASSWORD}%21@index:8080/simple")
    (index,) = indexes.places
    assert index.credentials == ("me@work", f"{PASSWORD}!")
    assert index.url == "https://index:8080/simple"
    assert PASSWORD not in f"{indexes} {indexes!r} {index} {index!r}"


def test_netrc_has_the_credentials_of_a_host(machine: Machine) -> None:
    path = machine.write("home/.netrc", f"machine index login me password {PASSWORD}\n")
    (index, other) = machine.indexes(
        PIP_INDEX_URL="https://index/s", PIP_EXTRA_INDEX_URL="https://b/s"
    ).places
    assert (index.credentials, other.credentials) == (("me", PASSWORD), None)
    elsewhere = path.rename(path.with_name("logins"))
    assert machine.indexes(PIP_INDEX_URL="https://index/s").places[0].credentials is None
    named = machine.indexes(PIP_INDEX_URL="https://index/s", NETRC=str(elsewhere))
    assert named.places[0].credentials == ("me", PASSWORD)


def test_one_index_may_be_named_instead_of_all(machine: Machine, tmp_path: Path) -> None:
    machine.write("home/.netrc", f"machine index login me password {PASSWORD}\n")
    indexes = machine.indexes(only="https://index/simple", PIP_FIND_LINKS=str(tmp_path), PIP_CERT="/ca.pem")
    assert indexes.places == (Index(url="https://index/simple", credentials=("me", PASSWORD)),)
    assert indexes.ca_file == Path("/ca.pem")


@pytest.mark.parametrize("name", ["PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_certificates_are_those_of_pip(machine: Machine, name: str) -> None:
    assert machine.indexes(**{name: "/ca.pem"}).ca_file == Path("/ca.pem")
    machine.write("etc/pip.conf", "[global]\ncert = /pip.pem\n")
    assert machine.indexes(CURL_CA_BUNDLE="/ca.pem").ca_file == Path("/pip.pem")


def test_uv_is_told_what_only_pip_knows(machine: Machine) -> None:
    assert machine.for_uv() == {}
    machine.write(
        "etc/pip.conf",
        "[global]\nindex-url = https://a/simple\nextra-index-url =\n  https://b/simple\n  https://c/simple\n"
        "find-links = /wheels\ncert = /ca.pem\n[install]\ntrusted-host = b\n",
    )
    assert machine.for_uv() == {
        "UV_DEFAULT_INDEX": "https://a/simple",
        "UV_INDEX": "https://b/simple https://c/simple",
        "UV_FIND_LINKS": "/wheels",
        "UV_INSECURE_HOST": "b",
        "SSL_CERT_FILE": "/ca.pem",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    assert machine.for_uv(PIP_NO_INDEX="1", PIP_FIND_LINKS="/a /b", PIP_CONFIG_FILE=os.devnull) == {
        "UV_NO_INDEX": "1",
        "UV_FIND_LINKS": "/a,/b",
    }


def test_uv_with_settings_of_its_own_is_left_to_them(machine: Machine) -> None:
    machine.write("etc/pip.conf", "[global]\nindex-url = https://a/simple\n")
    assert machine.for_uv(UV_DEFAULT_INDEX="https://mine/simple") == {}
    machine.write("home/.config/uv/uv.toml", 'index-url = "https://mine/simple"\n')
    assert machine.for_uv() == {}
