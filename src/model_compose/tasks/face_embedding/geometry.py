"""Where are faces in what a detector gives, and how is each turned upright? Numpy and Pillow only."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Numbers = NDArray[np.float32]
#: uint8 [height, width, 3]
Colours = NDArray[np.uint8]

#: Side of the square that recognisers want a face in.
SIDE: Final = 112
#: Where both eyes, the nose and both corners of the mouth are in it. Source: ArcFace, Deng et al. 2019.
TEMPLATE: Final[NDArray[np.float64]] = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def fitted(image: Image.Image, side: int, canvas: int) -> tuple[Colours, float]:
    """A picture scaled into the upper left corner of a black square, and how much smaller it became.

    side    most pixels of its longer side
    canvas  side of the square
    """
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    found = np.zeros((canvas, canvas, 3), np.uint8)
    found[: size[1], : size[0]] = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    return found, scale


def cells(side: int, stride: int) -> Numbers:
    """The corners of the squares that a feature map stands for, row by row: float [cells, 2], x and y."""
    at = np.arange(0, side, stride, dtype=np.float32)
    return np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2)


def distinct(boxes: Numbers, scores: Numbers, overlap: float, edge: float = 0.0) -> NDArray[np.intp]:
    """Indexes of boxes that are no other view of a better one, the best first (non-maximum suppression).

    boxes    float [n, 4]: left, top, right, bottom
    overlap  the largest that two may have: what they share, of what they cover together
    edge     by how much a box is wider and higher than the difference of its corners
    """
    areas = (boxes[:, 2:] - boxes[:, :2] + edge).prod(axis=1)
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(int(best))
        sides = np.minimum(boxes[best, 2:], boxes[left, 2:]) - np.maximum(boxes[best, :2], boxes[left, :2])
        shared = np.clip(sides + edge, 0, None).prod(axis=1)
        left = left[shared <= overlap * (areas[best] + areas[left] - shared)]
    return np.array(kept, np.intp)


def similarity(points: NDArray[np.floating], onto: NDArray[np.floating]) -> NDArray[np.float64]:
    """The rotation, scaling and shift that brings points nearest to others: float64 [2, 3].

    Source: Umeyama 1991, Least-squares estimation of transformation parameters between two point patterns.
    """
    source, target = points.astype(np.float64), onto.astype(np.float64)
    middle, there = source.mean(axis=0), target.mean(axis=0)
    centred, aimed = source - middle, target - there
    u, strengths, v = np.linalg.svd(aimed.T @ centred / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(u @ v)) or 1.0])  # no mirror image
    turned = (u * signs) @ v
    spread = centred.var(axis=0).sum()
    scale = float(strengths @ signs) / spread if spread else 1.0
    return np.column_stack([scale * turned, there - scale * turned @ middle])


def warped(image: Image.Image, matrix: NDArray[np.float64], side: int) -> Colours:
    """A square that a matrix takes points of a picture to, mixed from four pixels each; black outside."""
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    grid = np.stack([*np.meshgrid(np.arange(side), np.arange(side)), np.ones((side, side))], axis=-1)
    points = grid @ back.T
    # Only the part that is looked at becomes numbers, with two black pixels around the picture.
    low = np.clip(np.floor(points.min(axis=(0, 1))), -2, image.size).astype(int)
    high = np.clip(np.ceil(points.max(axis=(0, 1))), low, image.size).astype(int) + 2
    part = np.asarray(image.crop((*low, *high)), dtype=np.float32)
    points = np.clip(points - low, 0, high - low - 1)
    x, y = np.moveaxis(np.minimum(points.astype(int), high - low - 2), -1, 0)
    right, down = np.moveaxis(points - np.stack([x, y], axis=-1), -1, 0)[..., None]
    above = part[y, x] * (1 - right) + part[y, x + 1] * right
    below = part[y + 1, x] * (1 - right) + part[y + 1, x + 1] * right
    found: Colours = (above * (1 - down) + below * down).round().astype(np.uint8)
    return found


def upright(image: Image.Image, landmarks: Numbers, side: int = SIDE) -> Colours:
    """A face, with its eyes, nose and mouth where recognisers expect them."""
    return warped(image, similarity(landmarks, TEMPLATE * (side / SIDE)), side)


def around(image: Image.Image, box: Numbers, side: int) -> Colours:
    """A face with a quarter of its size around it, as models of age and gender want it."""
    left, top, right, bottom = (float(each) for each in box)
    scale = side / (max(right - left, bottom - top) * 1.5)
    x, y = (left + right) / 2, (top + bottom) / 2
    matrix = np.array([[scale, 0, side / 2 - x * scale], [0, scale, side / 2 - y * scale]])
    return warped(image, matrix, side)
