"""What does `resolve` say when the disk is full? Asked in a child process that may write only small files."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from model_compose.sources.spec import Source

_CHILD = """
import json, resource, sys
import msgspec
from pathlib import Path
from model_compose.errors import ModelComposeError
from model_compose.sources.cache import Cache
from model_compose.sources.fetch import resolve
from model_compose.sources.spec import Source

limit_bytes, folder = int(sys.argv[1]), Path(sys.argv[2])
source = msgspec.json.decode(sys.argv[3], type=Source)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
try:
    resolve(source, base_dir=folder, cache=Cache(folder / "cache"))
except ModelComposeError as error:
    print(json.dumps([error.code, error.message, error.hint]))
"""


@dataclass(frozen=True)
class Said:
    code: str
    message: str
    hint: str
    stderr: str


def resolve_with_full_disk(source: Source, folder: Path, *, limit_bytes: int) -> Said:
    """Resolve `source` with `folder` as base, and its `cache` as our cache; files end at `limit_bytes`."""
    arguments = [str(limit_bytes), str(folder), msgspec.json.encode(source).decode()]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    code, message, hint = json.loads(done.stdout)
    return Said(code, message, hint, done.stderr)
