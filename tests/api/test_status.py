"""The one table from errors to statuses."""

from __future__ import annotations

import pytest

from model_compose import errors
from model_compose.api.status import error_body, headers_of, status_of


def every(base: type[errors.ModelComposeError]) -> list[type[errors.ModelComposeError]]:
    return [base, *(found for cls in base.__subclasses__() for found in every(cls))]


@pytest.mark.parametrize("cls", every(errors.ModelComposeError), ids=lambda cls: cls.__name__)
def test_every_error_has_a_status_that_blames_the_right_side(cls: type[errors.ModelComposeError]) -> None:
    callers = (errors.BadRequest, errors.BodyTooLarge, errors.Forbidden, errors.InvalidInput, errors.NotFound)
    callers += (errors.Overloaded, errors.Cancelled, errors.Unauthorized, errors.Unsupported)  # type: ignore[assignment]
    status = status_of(cls.__new__(cls))
    assert (400 <= status < 500) == issubclass(cls, callers)


def test_what_is_not_ours_is_not_explained() -> None:
    assert error_body(KeyError("/secret/path")) == {"detail": "internal error", "type": "internal"}


def test_an_error_says_what_a_program_needs() -> None:
    error = errors.RequestTooLong("too long", size=10, limit=5, field="prompt", hint="shorten it")
    assert error_body(error) == {
        "detail": "too long",
        "type": "request_too_long",
        "hint": "shorten it",
        "field": "prompt",
        "size": 10,
        "limit": 5,
        "unit": "tokens",
    }


def test_memory_that_runs_out_says_how_much_there_was() -> None:
    error = errors.OutOfMemory("out of memory on `cuda:0`", needed_bytes=10, free_bytes=5, pool="cuda:0")
    assert status_of(error) == 507
    assert error_body(error) == {
        "detail": "out of memory on `cuda:0`",
        "type": "out_of_memory",
        "needed_bytes": 10,
        "free_bytes": 5,
        "pool": "cuda:0",
    }
    assert set(error_body(errors.OutOfMemory.of(MemoryError()))) == {"detail", "type", "pool", "hint"}


def test_retry_after_is_in_whole_seconds() -> None:
    assert headers_of(errors.Overloaded("full", retry_after_s=1.2)) == [(b"retry-after", b"2")]
