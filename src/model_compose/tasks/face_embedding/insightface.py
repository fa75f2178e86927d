"""How do packs of insightface, such as `buffalo_l`, find and tell faces?

On onnxruntime alone. insightface's own library gives the same numbers (the tests compare), and wants OpenCV,
scikit-image and onnx for it, computes faces one by one, and fetches what it does not find.
Source: insightface 2.1, `model_zoo/scrfd.py`, `arcface_onnx.py`, `attribute.py` and `utils/face_align.py`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.custom.nodes import first_nodes
from model_compose.drivers.custom.session import Session, unfit
from model_compose.tasks.face_embedding.geometry import SIDE, Colours, cells
from model_compose.tasks.face_embedding.networks import Network, opened, pictures_in, the_one
from model_compose.tasks.face_embedding.photos import Candidates, Networks, PhotoModel

#: By the number of outputs, scores, boxes and landmarks for each of them: what a square of the feature maps
#: is, and how many points lie in each.
_LAYOUTS: Final = {9: ((8, 16, 32), 2), 15: ((8, 16, 32, 64, 128), 1)}
_MIDDLE: Final = 127.5
#: Sides of what other networks of a pack take: guesses of gender and age.
_GUESSES_SIDE: Final = 96
#: How many of the first nodes may say that colours are scaled inside, in networks that came from MXNet.
_FIRST: Final = 8
#: A detector has at least so many outputs.
_MANY: Final = 5


class InsightFace(PhotoModel):
    """A `BatchModel` for face-embedding: SCRFD finds faces, and ArcFace tells them apart."""

    def networks(self, options: LoadOptions) -> Networks:
        """All that are of use from one folder; those for more landmarks are not."""
        sessions = opened(options, "insightface")
        found: dict[str, list[Session]] = {}
        for session in sessions:
            found.setdefault(_kind(session), []).append(session)
        guessers = found.get("attributes", [])
        recogniser = the_one(found.get("recogniser", []), "ArcFace recogniser", sessions)
        return Networks(
            Scrfd(the_one(found.get("detector", []), "SCRFD detector", sessions)),
            _scaled(recogniser, _MIDDLE, inside=_subtracts(recogniser)),
            GenderAge(the_one(guessers, "model of gender and age", sessions)) if guessers else None,
        )


class Scrfd:
    """A `Detector`. Every point says how far it is from the sides of its face."""

    overlap = 0.4
    edge = 1.0

    def __init__(self, session: Session) -> None:
        if len(session.outputs) not in _LAYOUTS:
            raise unfit(session, "finds no landmarks, which are needed to turn faces upright")
        self._strides, self._points = _LAYOUTS[len(session.outputs)]
        count = len(self._strides)
        wanted = [1] * count + [4] * count + [10] * count  # scores, boxes, landmarks
        for port, size in zip(session.outputs.values(), wanted, strict=True):
            if port.shape and port.shape[-1] not in (None, size):
                raise unfit(
                    session, f"is no SCRFD detector: `{port.name}` should have {size} numbers a point"
                )
        self.network = Network(session, mean=_MIDDLE, divisor=128.0)

    def candidates(self, square: Colours, threshold: float) -> Candidates:
        """Everything with at least this score."""
        found = self.network.run(square[None])
        count = len(self._strides)
        boxes, scores, landmarks = [], [], []
        for i, stride in enumerate(self._strides):
            score = found[i].reshape(-1)
            seen = np.flatnonzero(score >= threshold)
            points = np.repeat(cells(len(square), stride), self._points, axis=0)[seen]
            sides = found[i + count].reshape(-1, 4)[seen] * stride
            boxes.append(np.concatenate([points - sides[:, :2], points + sides[:, 2:]], axis=1))
            scores.append(score[seen])
            shifts = found[i + 2 * count].reshape(-1, 5, 2)[seen] * stride
            landmarks.append(points[:, None] + shifts)
        return Candidates(np.concatenate(boxes), np.concatenate(scores), np.concatenate(landmarks))


class GenderAge:
    """Guesses of gender and age, as `Attributes`."""

    def __init__(self, session: Session) -> None:
        inside = "bn_data" in _first_names(session)[:3] or _subtracts(session)
        self.network = _scaled(session, 128.0, inside=inside)

    def guesses(self, faces: Colours) -> list[dict[str, Any]]:
        """`gender` and `age` of each."""
        return [
            {"gender": ("female", "male")[int(row[:2].argmax())], "age": int(np.round(row[2] * 100))}
            for row in self.network.rows(faces)
        ]


def _kind(session: Session) -> str:
    """What a network of a pack is for, told by what goes in and out."""
    port = pictures_in(session)
    if port is None:
        return "other"
    if len(session.outputs) >= _MANY:
        return "detector"
    (output, *more) = session.outputs.values()
    if more:
        return "other"
    if port.shape[2] == _GUESSES_SIDE:
        return "attributes" if output.shape[-1] == 3 else "other"
    return "recogniser" if port.shape[2] == SIDE else "other"


def _scaled(session: Session, divisor: float, *, inside: bool) -> Network:
    return Network(session) if inside else Network(session, mean=_MIDDLE, divisor=divisor)


def _subtracts(session: Session) -> bool:
    """Whether a graph begins with taking a number off colours and multiplying them by another."""
    names = _first_names(session)
    return any(name.startswith(("Sub", "_minus")) for name in names) and any(
        name.startswith(("Mul", "_mul")) for name in names
    )


def _first_names(session: Session) -> list[str]:
    return [name for name, _ in first_nodes(session.path, _FIRST)]
