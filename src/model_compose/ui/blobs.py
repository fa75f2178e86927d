"""How do files come from a page into a request, and from an output onto a page?

In JSON they are data URIs; for Gradio, files in a folder that it may show.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import mimetypes
import re
import shutil
import time
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from model_compose.types import Blob

#: What was made for a page is kept so long.
KEPT_S: Final = 3600.0

#: The part of a data URI before its data is no longer than that.
_MOST_HEAD: Final = 200

_SUFFIXES: Final = {"image/jpeg": ".jpg", "image/webp": ".webp", "application/octet-stream": ".bin"}


def read_file(path: str) -> Blob:
    """A file that was uploaded."""
    file = Path(path)
    kind, _ = mimetypes.guess_type(file.name)
    return Blob(kind or "application/octet-stream", file.read_bytes(), file.name)


def from_uri(text: str) -> Blob | None:
    """What a data URI holds; None for any other text. Source: https://www.rfc-editor.org/rfc/rfc2397"""
    if not text.startswith("data:"):
        return None
    head, comma, data = text[5:].partition(",")
    if not comma or len(head) > _MOST_HEAD:
        return None
    kind, _, encoding = head.rpartition(";") if head.endswith(";base64") else (head, "", "")
    try:
        octets = base64.b64decode(data, validate=True) if encoding else unquote_to_bytes(data)
    except binascii.Error:
        return None
    return Blob(kind.partition(";")[0] or "text/plain", octets)


class Shelf:
    """A folder with files for pages. Old ones are removed when new ones come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, blob: Blob, name: str = "output") -> str:
        """Keep a file; -> its path, which ends with the name."""
        self._forget()
        suffix = _SUFFIXES.get(blob.media_type) or mimetypes.guess_extension(blob.media_type) or ".bin"
        own = self._folder / hashlib.sha256(blob.data).hexdigest()[:16]
        own.mkdir(parents=True, exist_ok=True)
        path = own / (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "output")
        path = path.with_name(path.name + suffix)
        path.write_bytes(blob.data)
        return str(path)

    def _forget(self) -> None:
        for own in self._folder.iterdir() if self._folder.exists() else ():
            if own.stat().st_mtime < time.time() - KEPT_S:
                shutil.rmtree(own, ignore_errors=True)
