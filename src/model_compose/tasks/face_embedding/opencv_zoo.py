"""How do YuNet and SFace, the small networks of the OpenCV Zoo, find and tell faces?

Source: https://github.com/opencv/opencv_zoo, and `modules/objdetect/src/face_detect.cpp` of OpenCV 4.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.custom.session import Session, unfit
from model_compose.tasks.face_embedding.geometry import SIDE, Colours, cells
from model_compose.tasks.face_embedding.networks import Network, opened, pictures_in, the_one
from model_compose.tasks.face_embedding.photos import Candidates, Networks, PhotoModel

_STRIDES: Final = (8, 16, 32)
_KINDS: Final = ("cls", "obj", "bbox", "kps")


class YuNetSFace(PhotoModel):
    """A `BatchModel` for face-embedding: YuNet finds faces, and SFace tells them apart."""

    def networks(self, options: LoadOptions) -> Networks:
        """Both from one folder."""
        sessions = opened(options, "yunet-sface")
        detectors = [each for each in sessions if _finds(each)]
        recognisers = [each for each in sessions if not _finds(each) and _tells(each)]
        # SFace takes colours as they are: what ArcFace takes off and divides by is inside of it.
        return Networks(
            YuNet(the_one(detectors, "YuNet detector", sessions)),
            Network(the_one(recognisers, "SFace recogniser", sessions)),
        )


class YuNet:
    """A `Detector`. It has one point for each square of 8, 16 and 32 pixels."""

    overlap = 0.3
    edge = 0.0

    def __init__(self, session: Session) -> None:
        missing = [name for name in _names() if name not in session.outputs]
        if missing:
            raise unfit(session, f"is no YuNet detector: it has no output `{missing[0]}`")
        self.network = Network(session, blue_first=True)
        self._order = list(session.outputs)

    def candidates(self, square: Colours, threshold: float) -> Candidates:
        """Everything with at least this score."""
        found = dict(zip(self._order, self.network.run(square[None]), strict=True))
        boxes, scores, landmarks = [], [], []
        for stride in _STRIDES:
            of_faces, of_objects, shifts, points = (
                found[f"{kind}_{stride}"].reshape(-1, size)
                for kind, size in zip(_KINDS, (1, 1, 4, 10), strict=True)
            )
            score = np.sqrt(of_faces.clip(0, 1) * of_objects.clip(0, 1))[:, 0]
            seen = np.flatnonzero(score >= threshold)
            corners = cells(len(square), stride)[seen]
            middles = corners + shifts[seen, :2] * stride
            halves = np.exp(shifts[seen, 2:]) * (stride / 2)
            boxes.append(np.concatenate([middles - halves, middles + halves], axis=1))
            scores.append(score[seen])
            landmarks.append(corners[:, None] + points[seen].reshape(-1, 5, 2) * stride)
        return Candidates(np.concatenate(boxes), np.concatenate(scores), np.concatenate(landmarks))


def _names() -> list[str]:
    return [f"{kind}_{stride}" for kind in _KINDS for stride in _STRIDES]


def _finds(session: Session) -> bool:
    return pictures_in(session) is not None and len(session.outputs) == len(_names())


def _tells(session: Session) -> bool:
    port = pictures_in(session)
    return port is not None and port.shape[2] == SIDE and len(session.outputs) == 1
