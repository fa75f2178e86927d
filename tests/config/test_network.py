from __future__ import annotations

import pytest

from model_compose.config.network import is_loopback


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST", "localhost.", "app.localhost"],
)
def test_only_this_machine_reaches_it(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "::",
        "[::]",
        "",
        "192.168.1.5",
        "example.com",
        "localhost.example.com",
        "127.1",
        "0x7f000001",
    ],
)
def test_others_may_reach_it(host: str) -> None:
    assert not is_loopback(host)
