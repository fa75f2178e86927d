"""What do all graphs that look at faces have in common: one picture goes in, as numbers?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import numpy as np

from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.custom.session import Array, Port, Session, open_session
from model_compose.errors import ModelLoadError
from model_compose.tasks.face_embedding.geometry import Colours, Numbers

#: Where insightface keeps its packs, each in a folder of its name.
PACKS: Final = "~/.insightface/models"
#: Most faces of one pass, where a graph takes any number of them.
_ROWS: Final = 32


class Network:
    """A graph with one input, float [pictures, 3, height, width].

    mean, divisor  what is taken off colours from 0 to 255, and what the rest is divided by
    blue_first     it wants blue, green and red in this order
    """

    def __init__(
        self, session: Session, *, mean: float = 0.0, divisor: float = 1.0, blue_first: bool = False
    ) -> None:
        self.session = session
        (self._input,) = session.inputs.values()
        self._mean, self._divisor = np.float32(mean), np.float32(divisor)
        self._step = -1 if blue_first else 1

    @property
    def side(self) -> int | None:
        """The side of the square that it takes; None: any."""
        return self._input.shape[2]

    def run(self, pictures: Colours) -> list[Array]:
        """All outputs for uint8 [pictures, height, width, 3], in the order of the file."""
        names = list(self.session.outputs)
        found = self.session.run({self._input.name: self._numbers(pictures)}, names)
        return [found[name] for name in names]

    def rows(self, pictures: Colours) -> Numbers:
        """Its only output, float32 [pictures, ...], in as many passes as it takes."""
        fixed = self._input.shape[0]
        size = fixed or _ROWS
        parts = []
        for at in range(0, len(pictures), size):
            part = pictures[at : at + size]
            missing = (fixed or len(part)) - len(part)
            filled = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
            parts.append(self.run(filled)[0][: len(part)])
        found: Numbers = np.concatenate(parts).astype(np.float32, copy=False)
        return found

    def _numbers(self, pictures: Colours) -> Numbers:
        numbers = pictures[..., :: self._step].transpose(0, 3, 1, 2).astype(np.float32)
        return (numbers - self._mean) / self._divisor


def pictures_in(session: Session) -> Port | None:
    """The input of a graph that takes one picture, or several; None for any other graph."""
    ports = list(session.inputs.values())
    fits = len(ports) == 1 and len(ports[0].shape) == 4 and ports[0].shape[1] in (3, None)
    return ports[0] if fits and ports[0].shape[2] == ports[0].shape[3] else None


def opened(options: LoadOptions, family: str) -> list[Session]:
    """The graphs in the folder of a model. Raises ModelLoadError where there are none, DriverMissing."""
    folder = _folder(options, family)
    files = sorted(folder.glob("*.onnx"))
    if not files:
        there = ", ".join(f"`{entry.name}`" for entry in sorted(folder.iterdir())[:8])
        raise ModelLoadError(
            f"`{folder}` has no ONNX files: {f'there are {there}' if there else 'it is empty'}",
            hint="the files of a pack lie in its folder, and not below it",
        )
    return [open_session(file, options) for file in files]


def _folder(options: LoadOptions, family: str) -> Path:
    if options.source is None:
        raise ModelLoadError(
            f"`model` is missing: where are the ONNX files of `{family}`?",
            hint=f"`model: ./folder`; packs of insightface are looked for in `{PACKS}/NAME`",
        )
    path = Path(options.source.path)
    if not path.is_dir():
        what = "is a file" if path.exists() else "is not there"
        raise ModelLoadError(
            f"`{path}` {what}, and a model of faces is a folder of ONNX files",
            hint=f"unpack it into `{PACKS}/{re.sub(r'[.]zip$', '', path.name)}`, or write `model: ./folder`",
        )
    return path


def the_one(found: list[Any], what: str, sessions: list[Session]) -> Any:
    """The only one of its kind in a folder. Raises ModelLoadError, which lists the files."""
    if len(found) == 1:
        return found[0]
    files = ", ".join(f"`{session.path.name}`" for session in sessions)
    problem = f"{'more than one' if found else 'no'} {what}"
    raise ModelLoadError(
        f"`{sessions[0].path.parent}` has {problem}: there are {files}",
        hint=f"leave one {what} in the folder" if found else f"put the {what} of the pack there",
    )
