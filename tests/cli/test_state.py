from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec
import pytest

from model_compose.cli.state import Service, StateFolder
from model_compose.errors import ServiceError

SERVICE = Service(
    pid=os.getpid(),
    url="http://a:1",
    api_url="http://a:1/api",
    file="a.yml",
    started=1.0,
    shutdown_timeout=30,
)


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / ".model-compose")


def test_a_service_is_found_while_it_holds_the_folder(state: StateFolder) -> None:
    assert state.holder() is None
    with state.hold():
        assert state.holder() == os.getpid()
        with pytest.raises(ServiceError, match="is starting"):
            state.running()
        state.announce(SERVICE)
        assert state.running() == SERVICE
    assert state.holder() is None
    assert state.service() is None
    with pytest.raises(ServiceError, match="no service runs"):
        state.running()


def test_only_one_can_hold_the_folder(state: StateFolder) -> None:
    with state.hold():
        with pytest.raises(ServiceError, match=f"process {os.getpid()}, and is starting"), state.hold():
            pass
        state.announce(SERVICE)
        with pytest.raises(ServiceError, match=f"process {os.getpid()} at {SERVICE.url}"), state.hold():
            pass
    with state.hold():
        assert state.holder() == os.getpid()


def test_those_who_ask_do_not_disturb_each_other_nor_a_service(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with state.hold():
        pass
    with (state.path / "lock").open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert state.holder() is None
        monkeypatch.setattr("time.sleep", lambda _: fcntl.flock(asking, fcntl.LOCK_UN))
        with state.hold():
            assert state.holder() == os.getpid()


def test_what_a_killed_service_left_is_not_believed(state: StateFolder) -> None:
    with state.hold():
        pass
    (state.path / "service.json").write_bytes(msgspec.json.encode(SERVICE))
    assert state.service() is None
    other = msgspec.structs.replace(SERVICE, pid=os.getpid() + 1)
    with state.hold():
        assert not (state.path / "service.json").exists()
        state.announce(other)
        assert state.service() is None


def test_every_service_has_another_token(state: StateFolder) -> None:
    with state.hold():
        first = state.new_token()
        assert state.token() == first
        assert state.new_token() != first
    with pytest.raises(ServiceError, match="cannot be read"):
        state.token()
