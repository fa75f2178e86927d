"""How do photos of several callers become faces: what do all families of detectors and recognisers share?

A photo is a row. Detectors look at one photo at a time; the faces of all photos of a batch then go through
the recogniser together, as far as that takes several.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np
from PIL import Image

from model_compose.drivers.alone import warm_up
from model_compose.drivers.contract import Item, LoadOptions, LoadProgress, ModelInfo, Outcome, Step
from model_compose.drivers.custom.session import Session, driver_options, info_of
from model_compose.errors import EngineError, InvalidInput, ModelLoadError
from model_compose.tasks.face_embedding.geometry import (
    SIDE,
    Colours,
    Numbers,
    around,
    distinct,
    fitted,
    upright,
)
from model_compose.tasks.face_embedding.networks import Network
from model_compose.tasks.face_embedding.spec import BoundingBox, Face, FaceEmbedding, Faces
from model_compose.tasks.images import decode, encode, rgb
from model_compose.tasks.pictures import ImageOutput

#: Most photos of one forward pass.
_PHOTOS: Final = 8
_USUAL_SIZE: Final = 640
#: Most views of faces in a photo that are looked at, the best ones: with a threshold of 0 everything is one.
_CANDIDATES: Final = 5000
#: What the coarsest feature map of a detector divides its input by.
_COARSEST: Final = 32


class Candidates(NamedTuple):
    """What a detector sees, in pixels of what it was given; the same face several times.

    boxes      float [n, 4]: left, top, right, bottom
    scores     float [n]
    landmarks  float [n, 5, 2]
    """

    boxes: Numbers
    scores: Numbers
    landmarks: Numbers


class Detector(Protocol):
    """Looks for faces in a square picture; `overlap` and `edge` say when two boxes are one face."""

    network: Network
    overlap: float
    edge: float

    def candidates(self, square: Colours, threshold: float) -> Candidates:
        """What has at least this score."""


class Attributes(Protocol):
    """Guesses what else there is to a face."""

    network: Network

    def guesses(self, faces: Colours) -> list[dict[str, Any]]:
        """Fields of a `Face` for each of uint8 [faces, side, side, 3]."""


class Networks(NamedTuple):
    """What a family is made of."""

    detector: Detector
    recogniser: Network
    attributes: Attributes | None = None


class _Photo(NamedTuple):
    """A photo, and the square in which faces are looked for, with how much smaller the photo is there."""

    image: Image.Image
    square: Colours
    scale: float
    request: FaceEmbedding


class _Place(NamedTuple):
    """Where a face is in its photo."""

    box: Numbers
    score: float
    landmarks: Numbers


class _Row(msgspec.Struct):
    """What came of a photo."""

    width: int
    height: int
    faces: list[Face]


class PhotoModel:
    """A `BatchModel` for face-embedding; a family says what it is made of."""

    def networks(self, options: LoadOptions) -> Networks:
        """Load them. Raises ModelLoadError, DriverMissing."""
        raise NotImplementedError

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load the networks."""
        own = driver_options(options)
        for name, value in (
            ("max_seq_length", options.max_seq_length),
            ("options.max_batch_tokens", own.max_batch_tokens),
        ):
            if value is not None:
                raise ModelLoadError(f"`{name}` means nothing to a model of faces", hint="leave it out")
        self._detector, self._recogniser, self._attributes = self.networks(options)
        self._most_pixels = own.max_image_pixels
        self._rows = options.batch_size or _PHOTOS
        self._batches = self._photos = self._faces = 0
        side = min(64, math.isqrt(self._most_pixels))
        blank = encode(Image.new("RGB", (side, side)), ImageOutput())
        warm_up(self.prepare(FaceEmbedding(image=blank, max_num_faces=1)), self.forward, options, progress)
        info = info_of(self._recogniser.session, options)
        files = ", ".join(session.path.name for session in self._sessions())
        return msgspec.structs.replace(info, details=info.details | {"file": files})

    def _sessions(self) -> list[Session]:
        networks = [self._detector.network, self._recogniser]
        networks += [self._attributes.network] if self._attributes else []
        return [network.session for network in networks]

    def budget(self) -> tuple[int, int]:
        """The most photos."""
        return self._rows, self._rows

    def prepare(self, request: FaceEmbedding) -> list[Item]:
        """Decode, and scale to what the detector looks at."""
        side = self._side(request)
        image = rgb(decode(request.image, most_pixels=self._most_pixels))
        canvas = -(-side // _COARSEST) * _COARSEST
        return [Item(1, None, _Photo(image, *fitted(image, side, canvas), request))]

    def _side(self, request: FaceEmbedding) -> int:
        fixed = self._detector.network.side
        if fixed is not None and request.detection_size not in (None, fixed):
            raise InvalidInput(
                f"the detector takes {fixed} x {fixed} pixels and nothing else",
                field="detection_size",
                hint="leave `detection_size` out",
            )
        return request.detection_size or fixed or _USUAL_SIZE

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[_Row | Exception]:
        """The faces of photos; a photo may fail alone."""
        photos: list[_Photo] = [item.payload for item in items]
        places = [[] if step.cancelled(i) else self._tried(photo) for i, photo in enumerate(photos)]
        seen = [
            (photo.image, photo.request, place)
            for photo, found in zip(photos, places, strict=True)
            if not isinstance(found, Exception)
            for place in found
        ]
        faces = iter(self._recognised(seen) if seen else [])
        self._batches += 1
        self._photos += len(photos)
        self._faces += len(seen)
        return [
            found if isinstance(found, Exception) else _Row(*photo.image.size, [next(faces) for _ in found])
            for photo, found in zip(photos, places, strict=True)
        ]

    def _tried(self, photo: _Photo) -> list[_Place] | Exception:
        try:
            return self._places(photo)
        except EngineError as error:
            return error

    def _places(self, photo: _Photo) -> list[_Place]:
        """Where the wanted faces of a photo are, the largest first."""
        request = photo.request
        found = self._detector.candidates(photo.square, request.detection_threshold)
        best = np.argsort(-found.scores, kind="stable")[:_CANDIDATES]
        boxes, scores, landmarks = found.boxes[best], found.scores[best], found.landmarks[best]
        boxes, landmarks = boxes / photo.scale, landmarks / photo.scale
        kept = distinct(boxes, scores, self._detector.overlap, self._detector.edge)
        boxes, scores, landmarks = boxes[kept], scores[kept], landmarks[kept]
        sides = boxes[:, 2:] - boxes[:, :2]
        order = np.argsort(-sides.prod(axis=1), kind="stable")
        wanted = [i for i in order if sides[i].min() >= max(request.min_face_size, 1)]
        return [_Place(boxes[i], float(scores[i]), landmarks[i]) for i in wanted[: request.max_num_faces]]

    def _recognised(self, seen: Sequence[tuple[Image.Image, FaceEmbedding, _Place]]) -> list[Face]:
        side = self._recogniser.side or SIDE
        crops = np.stack([upright(image, place.landmarks, side) for image, _, place in seen])
        vectors = self._recogniser.rows(crops)
        guesses: list[dict[str, Any]] = [{}] * len(seen)
        if self._attributes is not None:
            size = self._attributes.network.side
            assert size is not None  # that is how they are told from other networks
            guesses = self._attributes.guesses(
                np.stack([around(image, place.box, size) for image, _, place in seen])
            )
        return [
            _face(place, vector, guess, normalize=request.normalize_embeddings)
            for (_, request, place), vector, guess in zip(seen, vectors, guesses, strict=True)
        ]

    def finish(self, request: FaceEmbedding, raws: Sequence[_Row]) -> Outcome:
        """The faces of a photo."""
        (row,) = raws
        return Outcome(Faces(faces=row.faces, width=row.width, height=row.height))

    def metrics(self) -> Mapping[str, float]:
        """What it has computed: `rows` / `batches` is how many photos went together."""
        return {"batches": self._batches, "rows": self._photos, "faces": self._faces}

    def memory(self) -> Mapping[str, int]:
        """What it takes on GPUs, which onnxruntime does not tell."""
        return {}


def _face(place: _Place, vector: Numbers, guess: Mapping[str, Any], *, normalize: bool) -> Face:
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length):
        raise EngineError("the recogniser gave numbers that are none")
    if normalize and length:
        vector = vector / np.float32(length)
    left, top, right, bottom = (float(each) for each in place.box)
    return Face(
        embedding=vector.tolist(),
        bounding_box=BoundingBox(left, top, right - left, bottom - top),
        score=place.score,
        landmarks=place.landmarks.tolist(),
        **guess,
    )
