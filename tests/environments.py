"""What do tests put into Python environments of their own, without a network?"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

_NOT_OF_A_WHEEL = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_cache.json")

#: uv on this machine: `make setup` has seen to it.
UV = shutil.which("uv") or str(Path(__file__).parents[1] / ".cache" / "tools" / "bin" / "uv")


def bare(folder: Path, *packages: str) -> str:
    """A new environment without pip, and with nothing but copies of packages of this one; -> its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in packages:
        for path, content in files_of(name).items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_bytes(content)
    return str(folder / "bin" / "python")


def files_of(package: str) -> dict[str, bytes]:
    """The files of a package that is installed here, but for what its installation wrote."""
    distribution = importlib.metadata.distribution(package)
    return {
        str(path): Path(str(path.locate())).read_bytes()
        for path in distribution.files or ()
        if path.parts[0] != ".." and path.name not in _NOT_OF_A_WHEEL and path.suffix != ".pyc"
    }


def installed_wheel(package: str) -> tuple[str, bytes]:
    """A package that is installed here as a wheel again: its file name and content."""
    files = files_of(package)
    (about,) = (text.decode() for path, text in files.items() if path.endswith(".dist-info/WHEEL"))
    tags = [line.removeprefix("Tag: ") for line in about.splitlines() if line.startswith("Tag: ")]
    tag = f"{tags[0].rpartition('-')[0]}-{'.'.join(each.rpartition('-')[2] for each in tags)}"
    return f"{package}-{importlib.metadata.version(package)}-{tag}.whl", _wheel(files)


def new_wheel(name: str, version: str, files: Mapping[str, str]) -> tuple[str, bytes]:
    """A wheel of our own, of Python files: its file name and content."""
    info = f"{name}-{version}.dist-info"
    about = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    content = _wheel({path: text.encode() for path, text in {**files, **about}.items()})
    return f"{name}-{version}-py3-none-any.whl", content


def _wheel(files: Mapping[str, bytes]) -> bytes:
    info = next(path.partition("/")[0] for path in files if ".dist-info/" in path)
    record = "".join(f"{path},sha256={_digest(content)},{len(content)}\n" for path, content in files.items())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, content in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}.items():
            archive.writestr(zipfile.ZipInfo(path), content)
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
