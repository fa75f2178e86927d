"""face-embedding: YuNet and SFace on a real photo, and packs of insightface that see by chance."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests import models, onnx_files
from tests.tasks.batches import load_options, outcomes, started

from model_compose.drivers.alone import Alone
from model_compose.errors import EngineError, InvalidInput, ModelLoadError
from model_compose.tasks.face_embedding.geometry import (
    SIDE,
    TEMPLATE,
    cells,
    distinct,
    fitted,
    similarity,
    upright,
    warped,
)
from model_compose.tasks.face_embedding.insightface import InsightFace
from model_compose.tasks.face_embedding.opencv_zoo import YuNetSFace
from model_compose.tasks.face_embedding.spec import FaceEmbedding, Faces
from model_compose.types import Blob

REFERENCE: Final = Path(models.__file__).parent / "assets" / "insightface-2.1.json"


def photo(image: Image.Image, kind: str = "PNG", **more: Any) -> Blob:
    file = io.BytesIO()
    image.save(file, kind, **{"compress_level": 1, **more})
    return Blob(f"image/{kind.lower()}", file.getvalue())


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    from skimage import data

    return Image.fromarray(data.astronaut())  # type: ignore[no-untyped-call]


def load(model: Any, folder: Path, **more: Any) -> Any:
    return started(model, load_options(folder, "face-embedding", **more))


def faces(model: Any, *images: Image.Image, **more: Any) -> list[Faces]:
    requests = [FaceEmbedding(image=photo(image), **more) for image in images]
    return [outcome.result for outcome in outcomes(model, requests)]


# Geometry


@given(
    angle=st.floats(-3, 3),
    scale=st.floats(0.1, 9),
    x=st.floats(-500, 500),
    y=st.floats(-500, 500),
)
def test_rotation_scale_and_shift_are_found_again(angle: float, scale: float, x: float, y: float) -> None:
    turned = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.column_stack([turned, [x, y]])
    moved = TEMPLATE @ turned.T + [x, y]
    assert np.abs(similarity(TEMPLATE, moved) - matrix).max() < 1e-6


def test_a_face_is_never_turned_into_its_mirror_image() -> None:
    mirrored = TEMPLATE * [-1, 1]
    assert np.linalg.det(similarity(mirrored, TEMPLATE)[:, :2]) > 0
    same = np.tile([5.0, 5.0], (5, 1))  # all landmarks in one place
    assert np.isfinite(similarity(same, TEMPLATE)).all()


def test_a_picture_is_moved_by_whole_pixels_without_a_trace() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    moved = warped(Image.fromarray(pixels), np.array([[1.0, 0, -7], [0, 1.0, -3]]), 30)
    assert (moved == pixels[3:33, 7:37]).all()
    outside = warped(Image.fromarray(pixels), np.array([[1.0, 0, 500], [0, 1.0, 0]]), 30)
    assert not outside.any()


def test_landmarks_come_to_lie_where_recognisers_want_them() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    landmarks = (TEMPLATE * 1.3 + [60, 20]).round()
    for x, y in landmarks.astype(int):
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    crop = upright(Image.fromarray(image), landmarks.astype(np.float32))
    assert crop.shape == (SIDE, SIDE, 3)
    for x, y in TEMPLATE.round().astype(int):
        assert crop[y, x, 0] > 200


@given(seed=st.integers(0, 2**31), count=st.integers(0, 30), overlap=st.floats(0.1, 0.9))
def test_of_views_of_one_face_the_best_is_kept(seed: int, count: int, overlap: float) -> None:
    chance = np.random.default_rng(seed)
    corners = chance.random((count, 2)).astype(np.float32) * 20
    sizes = chance.random((count, 2), np.float32) * 20 + 1
    boxes = np.concatenate([corners, corners + sizes], axis=1)
    scores = chance.random(count, np.float32)
    kept = distinct(boxes, scores, overlap)

    def shared(a: Any, b: Any) -> float:
        sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
        both = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - sides.prod()
        return float(sides.prod() / both)

    assert list(scores[kept]) == sorted(scores[kept], reverse=True)
    for n, i in enumerate(kept):
        assert all(shared(boxes[i], boxes[j]) <= overlap + 1e-6 for j in kept[:n])
    for i in set(range(count)) - set(kept.tolist()):
        better = [j for j in kept if scores[j] >= scores[i]]
        assert any(shared(boxes[i], boxes[j]) > overlap - 1e-6 for j in better)


def test_a_photo_is_scaled_into_the_corner_of_a_square() -> None:
    square, scale = fitted(Image.new("RGB", (200, 100), "white"), 64, 96)
    assert (square.shape, scale) == ((96, 96, 3), 0.32)
    assert (square[:32, :64] == 255).all()
    assert square.sum() == 255 * 3 * 32 * 64
    assert cells(64, 32).tolist() == [[0, 0], [32, 0], [0, 32], [32, 32]]


# Packs of insightface


@pytest.fixture(scope="module", params=list(onnx_files.PACKS))
def pack(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, onnx_files.pack(tmp_path_factory.mktemp("pack"), request.param)


def test_packs_give_what_the_library_gives(pack: tuple[str, Path], astronaut: Image.Image) -> None:
    name, folder = pack
    wanted = {"detection_threshold": onnx_files.PACK_THRESHOLD, "detection_size": 512}
    (found,) = faces(load(InsightFace(), folder), astronaut, normalize_embeddings=False, **wanted)
    expected = json.loads(REFERENCE.read_text())[name]
    assert len(found.faces) == len(expected) > 5
    by_score = sorted(found.faces, key=lambda face: -face.score)
    for face, other in zip(by_score, sorted(expected, key=lambda each: -each["score"]), strict=True):
        box = face.bounding_box
        corners = [box.x, box.y, box.x + box.width, box.y + box.height]
        assert corners == pytest.approx(other["box"], abs=0.01)
        assert face.score == pytest.approx(other["score"], abs=1e-3)
        assert np.array(face.landmarks) == pytest.approx(np.array(other["landmarks"]), abs=0.01)
        # OpenCV rounds colours between pixels by other numbers: one in 400 differs by one of 255.
        assert np.array(face.embedding) == pytest.approx(np.array(other["embedding"]), abs=0.01)
        assert face.gender == {None: None, 0: "female", 1: "male"}[other.get("gender")]
        assert face.age == (None if "age" not in other else pytest.approx(other["age"], abs=1))


def cosine(a: Any, b: Any) -> float:
    a, b = np.array(a), np.array(b)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.fixture(scope="module")
def insightface(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(InsightFace(), onnx_files.pack(tmp_path_factory.mktemp("pack"), "from mxnet"))


def test_faces_come_with_the_largest_first(insightface: Any, astronaut: Image.Image) -> None:
    (found,) = faces(insightface, astronaut, detection_threshold=0.997)
    sizes = [face.bounding_box.width * face.bounding_box.height for face in found.faces]
    assert len(sizes) > 5
    assert all(size >= after - 0.01 for size, after in itertools.pairwise(sizes))
    assert found.embedding == found.faces[0].embedding
    assert np.linalg.norm(found.faces[0].embedding) == pytest.approx(1)
    plain = found.plain()
    assert plain["embedding"] == plain["faces"][0]["embedding"]
    assert (plain["width"], plain["height"]) == (512, 512)


def test_limits_of_the_request_hold(insightface: Any, astronaut: Image.Image) -> None:
    (everything,) = faces(insightface, astronaut, detection_threshold=0.995)
    (few,) = faces(insightface, astronaut, detection_threshold=0.995, max_num_faces=2)
    assert few.faces == everything.faces[:2]
    least = int(min(everything.faces[3].bounding_box.width, everything.faces[3].bounding_box.height))
    (large,) = faces(insightface, astronaut, detection_threshold=0.995, min_face_size=least)
    assert large.faces == [
        face for face in everything.faces if min(face.bounding_box.width, face.bounding_box.height) >= least
    ]
    (sure,) = faces(insightface, astronaut, detection_threshold=0.997)
    assert sure.faces == [face for face in everything.faces if face.score >= 0.997]
    assert 0 < len(sure.faces) < len(everything.faces)
    (none,) = faces(insightface, astronaut, detection_threshold=1.0)
    assert (none.faces, none.embedding) == ([], None)
    assert none.plain() == {"faces": [], "embedding": None, "width": 512, "height": 512}


def test_photos_of_several_callers_share_passes_of_the_recogniser(
    insightface: Any, astronaut: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = astronaut.resize((100, 60))
    blank = Image.new("RGB", (64, 64))
    sure: dict[str, Any] = {"detection_threshold": 0.997, "max_num_faces": 20}
    alone = [faces(insightface, image, **sure)[0] for image in (astronaut, small, blank)]
    sizes: list[int] = []
    compute = insightface._recogniser.run

    def run(pictures: Any) -> Any:
        sizes.append(len(pictures))
        return compute(pictures)

    monkeypatch.setattr(insightface._recogniser, "run", run)
    together = faces(insightface, astronaut, small, blank, **sure)
    for one, other in zip(alone, together, strict=True):
        assert len(one.faces) == len(other.faces)
        for a, b in zip(one.faces, other.faces, strict=True):
            assert a.embedding == pytest.approx(b.embedding, abs=1e-5)
            assert a.bounding_box == b.bounding_box
    total = sum(len(each.faces) for each in alone)
    assert sizes == [32] * (total // 32) + ([total % 32] if total % 32 else [])


def test_a_photo_fails_alone(
    insightface: Any, astronaut: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = (astronaut, astronaut.resize((64, 64)))
    requests = [FaceEmbedding(image=photo(image), max_num_faces=1) for image in images]
    items = [item for request in requests for item in insightface.prepare(request)]
    look = insightface._detector.candidates

    def candidates(square: Any, threshold: float) -> Any:
        if square is items[0].payload.square:
            raise EngineError("no")
        return look(square, threshold)

    monkeypatch.setattr(insightface._detector, "candidates", candidates)
    first, second = insightface.forward(items, Alone(1))
    assert isinstance(first, EngineError)
    assert insightface.finish(requests[1], [second]).result.width == 64


def test_a_photo_is_upright_before_anything_is_measured(insightface: Any, astronaut: Image.Image) -> None:
    wide = astronaut.crop((0, 0, 512, 300))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    turned = photo(wide.transpose(Image.Transpose.ROTATE_90), exif=exif.tobytes())
    (found,) = outcomes(
        insightface, [FaceEmbedding(image=turned, detection_threshold=0.997, max_num_faces=20)]
    )
    (expected,) = faces(insightface, wide, detection_threshold=0.997, max_num_faces=20)
    assert found.result == expected
    assert (found.result.width, found.result.height) == (512, 300)


def test_a_detector_of_one_size_takes_no_other(tmp_path: Path, astronaut: Image.Image) -> None:
    folder = onnx_files.pack(tmp_path, "from torch")
    onnx_files.scrfd(folder / "det_10g.onnx", sizes=(1, 3, 320, 320))
    model = load(InsightFace(), folder)
    assert faces(model, astronaut, max_num_faces=1)[0].width == 512
    assert faces(model, astronaut, max_num_faces=1, detection_size=320)
    with pytest.raises(InvalidInput, match="the detector takes 320 x 320 pixels") as caught:
        faces(model, astronaut, detection_size=640)
    assert caught.value.field == "detection_size"


def test_sizes_that_are_no_multiples_are_filled_up(insightface: Any, astronaut: Image.Image) -> None:
    (item,) = insightface.prepare(FaceEmbedding(image=photo(astronaut), detection_size=100))
    assert item.payload.square.shape == (128, 128, 3)
    assert item.payload.square[100:].sum() == 0
    assert faces(insightface, astronaut, detection_size=100, max_num_faces=1)


def test_a_recogniser_that_takes_two_at_a_time_gives_the_same(tmp_path: Path, astronaut: Image.Image) -> None:
    folder = onnx_files.pack(tmp_path, "from torch")
    (expected,) = faces(load(InsightFace(), folder), astronaut, detection_threshold=0.99, max_num_faces=5)
    onnx_files.of_faces(folder / "w600k_r50.onnx", numbers=16, rows=2, first=("Conv_0",))
    (found,) = faces(load(InsightFace(), folder), astronaut, detection_threshold=0.99, max_num_faces=5)
    for a, b in zip(expected.faces, found.faces, strict=True):
        assert a.embedding == pytest.approx(b.embedding, abs=1e-5)


def test_what_a_pack_lacks_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="has no ONNX files: it is empty"):
        load(InsightFace(), tmp_path)
    onnx_files.scrfd(tmp_path / "det.onnx")
    with pytest.raises(ModelLoadError, match=r"has no ArcFace recogniser: there are `det\.onnx`"):
        load(InsightFace(), tmp_path)
    onnx_files.of_faces(tmp_path / "rec.onnx")
    assert load(InsightFace(), tmp_path)
    onnx_files.of_faces(tmp_path / "rec2.onnx")
    with pytest.raises(ModelLoadError, match="has more than one ArcFace recogniser"):
        load(InsightFace(), tmp_path)
    (tmp_path / "rec2.onnx").unlink()
    onnx_files.scrfd(tmp_path / "det.onnx", landmarks=False)
    with pytest.raises(ModelLoadError, match=r"`det\.onnx` finds no landmarks"):
        load(InsightFace(), tmp_path)


def test_a_pack_that_is_not_there_says_where_to_put_it(tmp_path: Path) -> None:
    from msgspec.structs import replace

    from model_compose.sources.spec import LoadedSource

    options = load_options(tmp_path, "face-embedding")
    path = tmp_path / "buffalo_l"
    away = LoadedSource(path=str(path), format=None, revision=None, origin="buffalo_l", size_bytes=0)
    for source, message in ((away, "is not there"), (None, "`model` is missing")):
        with pytest.raises(ModelLoadError, match=message) as caught:
            started(InsightFace(), replace(options, source=source))
        assert "~/.insightface/models/" in (caught.value.hint or "")
    file = onnx_files.scrfd(tmp_path / "det.onnx")
    with pytest.raises(ModelLoadError, match="is a file, and a model of faces is a folder"):
        load(InsightFace(), file)


@pytest.mark.parametrize(
    "more", [{"max_seq_length": 5}, {"options": {"max_batch_tokens": 5}}, {"precision": "float16"}], ids=str
)
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(ModelLoadError, match=r"means nothing|cannot be chosen"):
        load(InsightFace(), onnx_files.pack(tmp_path, "from torch"), **more)


def test_warm_up_and_details_are_told(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    options = load_options(onnx_files.pack(tmp_path, "from mxnet"), "face-embedding", warmup=True)
    info = InsightFace().load(options, lambda *report: seen.append(report))
    assert seen[-1] == ("warm-up", 1, 1)
    assert info.details["file"] == "det_10g.onnx, w600k_r50.onnx, genderage.onnx"
    assert not info.elastic


def test_other_networks_are_no_yunet(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="has no YuNet detector"):
        load(YuNetSFace(), onnx_files.pack(tmp_path, "from torch"))


# YuNet and SFace


def test_points_of_yunet_are_decoded_as_opencv_does(tmp_path: Path) -> None:
    model = load(YuNetSFace(), onnx_files.zoo(tmp_path))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8))
    (found,) = faces(model, image, detection_threshold=0.0, max_num_faces=3)
    blue_first = np.asarray(image, np.float32)[None, :, :, ::-1].transpose(0, 3, 1, 2)
    detector = model._detector.network.session
    outputs = detector.run({"input": blue_first}, list(detector.outputs))
    for face in found.faces:
        assert any(_is_point(face, outputs, stride) for stride in (8, 16, 32))


def _is_point(face: Any, outputs: Any, stride: int) -> bool:
    """Whether a face is a point of a feature map, as `face_detect.cpp` of OpenCV decodes one."""
    columns = 640 // stride
    for i in range(columns * columns):
        score = float(np.sqrt(outputs[f"cls_{stride}"][0, i, 0] * outputs[f"obj_{stride}"][0, i, 0]))
        if abs(score - face.score) > 1e-5:
            continue
        row, column = divmod(i, columns)
        x, y, width, height = (float(each) for each in outputs[f"bbox_{stride}"][0, i])
        width, height = np.exp(width) * stride, np.exp(height) * stride
        left, top = (x + column) * stride - width / 2, (y + row) * stride - height / 2
        points = outputs[f"kps_{stride}"][0, i].reshape(5, 2) * stride + np.array([column, row]) * stride
        box = face.bounding_box
        same = [box.x, box.y, box.width, box.height] == pytest.approx([left, top, width, height], abs=0.01)
        if same and np.array(face.landmarks) == pytest.approx(points, abs=0.01):
            return True
    return False


@pytest.fixture(scope="module")
def zoo() -> Any:
    return load(YuNetSFace(), models.yunet_sface())


@pytest.mark.model
def test_the_face_of_the_astronaut_is_found(zoo: Any, astronaut: Image.Image) -> None:
    (found,) = faces(zoo, astronaut)
    (face,) = found.faces
    box = face.bounding_box
    assert (box.x, box.y, box.width, box.height) == pytest.approx((178, 63, 90, 110), abs=3)
    assert face.score == pytest.approx(0.943, abs=0.01)
    assert len(face.embedding) == 128
    right_eye, left_eye, nose, *mouth = np.array(face.landmarks)
    assert right_eye[0] < nose[0] < left_eye[0]
    assert all(nose[1] < corner[1] < box.y + box.height for corner in mouth)


@pytest.mark.model
def test_the_same_person_is_near_and_others_are_far(zoo: Any, astronaut: Image.Image) -> None:
    dark = Image.fromarray((np.asarray(astronaut) * 0.55).astype(np.uint8))
    flipped = astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    (same,) = faces(zoo, astronaut)
    for image in (dark, flipped, astronaut.resize((256, 256)), astronaut.rotate(20)):
        (other,) = faces(zoo, image)
        assert cosine(same.embedding, other.embedding) > 0.85
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    strangers = np.stack([noise, np.asarray(astronaut.resize((SIDE, SIDE)))])
    for vector in zoo._recogniser.rows(strangers):
        assert cosine(same.embedding, vector) < 0.4


@pytest.mark.model
def test_several_faces_of_a_photo_are_told_apart(zoo: Any, astronaut: Image.Image) -> None:
    group = Image.new("RGB", (900, 512), "grey")
    group.paste(astronaut, (0, 0))
    group.paste(astronaut.resize((340, 340)), (540, 100))
    (found,) = faces(zoo, group)
    large, small = found.faces
    assert large.bounding_box.width == pytest.approx(90, abs=5)
    assert small.bounding_box.x == pytest.approx(540 + 178 * 340 / 512, abs=5)
    assert cosine(large.embedding, small.embedding) > 0.85
    (one,) = faces(zoo, group, max_num_faces=1)
    assert one.faces == [large]
    (none,) = faces(zoo, Image.new("RGB", (300, 200), "grey"))
    assert none.faces == []


@pytest.mark.model
def test_the_size_of_yunet_is_fixed(zoo: Any, astronaut: Image.Image) -> None:
    assert faces(zoo, astronaut, detection_size=640)
    with pytest.raises(InvalidInput, match="640 x 640"):
        faces(zoo, astronaut, detection_size=320)
