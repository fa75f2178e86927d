"""Whatever a body says, it is read, or refused with an error of ours, and nothing else."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from model_compose.api.bodies import fields_in, run_request
from model_compose.api.openai.chat import FIELDS
from model_compose.errors import ModelComposeError

#: `MODEL_COMPOSE_FUZZ=10000` looks deeper.
_DEEP = int(os.environ.get("MODEL_COMPOSE_FUZZ", "0"))
fuzzed = settings(
    max_examples=_DEEP or 100,
    derandomize=not _DEEP,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TYPES = st.sampled_from(
    [
        *(b"application/json", b"application/json; charset=latin-1", b"", b"text/plain", b"\xff"),
        *(b"application/x-www-form-urlencoded", b"multipart/form-data", b"multipart/form-data; boundary=x"),
        *(b"multipart/form-data; boundary=", b"multipart/form-data; boundary=x; charset=utf-7"),
    ]
)
_SIGNS = st.lists(
    st.sampled_from(
        [
            *(
                b"{",
                b"}",
                b"[",
                b"]",
                b'"',
                b":",
                b",",
                b"1",
                b"null",
                b'"input"',
                b'"stream"',
                b"true",
                b"\xff",
            ),
            *(
                b"--x",
                b"--x--",
                b"\r\n",
                b"\r\n\r\n",
                b"Content-Disposition: form-data; ",
                b'name="a"',
                b"; ",
            ),
            *(
                b'name="a[b]"',
                b'filename="../f"',
                b"Content-Type: ",
                b"a=1",
                b"&",
                b"a[b]=",
                b"%",
                b"%FF",
                b"][",
            ),
            *(b"filename*=utf-8''%ff", b"\\", b"\0", b'"messages"', b'"model"'),
        ]
    ),
    max_size=25,
).map(b"".join)
_PART = st.builds(
    lambda about, value: b"--x\r\nContent-Disposition: form-data; " + about + b"\r\n\r\n" + value + b"\r\n",
    _SIGNS,
    _SIGNS,
)
BODIES = st.one_of(
    st.binary(max_size=80), _SIGNS, st.lists(_PART, max_size=4).map(lambda p: b"".join(p) + b"--x--\r\n")
)


async def _read(scope: dict[str, Any], body: bytes) -> None:
    for read in (run_request, fields_in):
        try:
            await read(scope, body)
        except ModelComposeError as error:
            assert error.message  # noqa: PT017  what else comes out fails the test
    try:
        FIELDS.read(scope, body)
    except ModelComposeError as error:
        assert error.message  # noqa: PT017


@fuzzed
@given(TYPES, BODIES)
@example(b"application/json", b"2\xff")
@example(b"application/json", b"[" * 5000)
@example(b"application/x-www-form-urlencoded", b"a[b]=1&a=2&a[b][c]=3")
@example(b"multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n\r\n--x--\r\n")
def test_any_body_is_read_or_refused(media_type: bytes, body: bytes) -> None:
    scope = {"type": "http", "path": "/", "query_string": b"", "headers": [(b"content-type", media_type)]}
    asyncio.run(_read(scope, body))
