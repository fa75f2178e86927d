"""What is `task: face-embedding`?"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from model_compose.config.spec import Positive, TaskDriver, TaskSpec, doc
from model_compose.types import Blob, Result

_INSIGHTFACE = "model_compose.tasks.face_embedding.insightface:InsightFace"
_YUNET_SFACE = "model_compose.tasks.face_embedding.opencv_zoo:YuNetSFace"

DetectionSize = Annotated[int, msgspec.Meta(ge=64, le=4096)]


class FaceEmbedding(msgspec.Struct, frozen=True, kw_only=True):
    """Find the faces of a photo, and give each as numbers that are close for the same person."""

    image: Annotated[Blob, doc("the photo, or a list of photos", many=True, media="image")]
    detection_threshold: Annotated[float, doc("from which score on it is a face", ge=0, le=1)] = 0.6
    detection_size: Annotated[
        DetectionSize | None,
        doc(
            "side of the square that a photo is scaled to before faces are looked for, in pixels; unset: "
            "what the detector was exported with, else 640"
        ),
    ] = None
    max_num_faces: Annotated[Positive | None, doc("most faces, the largest ones; unset: all")] = None
    min_face_size: Annotated[
        int, doc("smaller faces are left out: the shorter side of their box, in pixels", ge=0)
    ] = 0
    normalize_embeddings: Annotated[bool, doc("give vectors of length 1")] = True


class BoundingBox(msgspec.Struct, frozen=True):
    """Where a face is, in pixels of the upright photo; (`x`, `y`) is the corner at the upper left."""

    x: float
    y: float
    width: float
    height: float


class Face(Result, frozen=True, kw_only=True, omit_defaults=True):
    """One face.

    score      how sure the detector is, from 0 to 1
    landmarks  x and y of both eyes, the nose and both corners of the mouth
    gender     `female` or `male`, as the model guesses, if it does
    age        in years, as the model guesses, if it does
    pose       pitch, yaw and roll in degrees, if the model tells
    """

    embedding: list[float]
    bounding_box: BoundingBox
    score: float
    landmarks: list[list[float]] | None = None
    gender: str | None = None
    age: int | None = None
    pose: list[float] | None = None


class Faces(Result, frozen=True, kw_only=True):
    """The faces of a photo, the largest first; `width` and `height` are the photo's."""

    faces: list[Face]
    width: int
    height: int

    @property
    def embedding(self) -> list[float] | None:
        """That of the largest face; null if there is none."""
        return self.faces[0].embedding if self.faces else None

    def plain(self) -> Any:
        """As JSON values, with the embedding of the largest face beside the list."""
        return {**msgspec.to_builtins(self), "embedding": self.embedding}


SPEC = TaskSpec(
    name="face-embedding",
    summary="Finds the faces of a photo, as vectors that tell people apart.",
    request=FaceEmbedding,
    result=Faces,
    main="image",
    verb="faces",
    example={"detection_threshold": 0.5},
    default_driver="custom",
    drivers={
        "custom": TaskDriver(
            _INSIGHTFACE,
            families={"insightface": _INSIGHTFACE, "yunet-sface": _YUNET_SFACE},
            modules=("onnxruntime", "PIL", "numpy"),
            extra="face",
        )
    },
)
