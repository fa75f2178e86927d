"""What does insightface's own library give for the packs that our tests make?

    python scripts/insightface_reference.py

writes `tests/assets/insightface-2.1.json`, which ours is compared with. It needs insightface 2.1 and its
OpenCV, which nothing else here does: run it where they are installed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from insightface.app import FaceAnalysis
from skimage import data

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests import onnx_files

OUT = Path(onnx_files.__file__).parent / "assets" / "insightface-2.1.json"
#: The photo is as large as the square, so that nobody resizes it in a way of his own.
SIDE = 512


def faces_of(folder: Path) -> list[dict[str, Any]]:
    """What the library finds on the photo of the astronaut."""
    analysis = FaceAnalysis(str(folder), providers=["CPUExecutionProvider"])
    analysis.prepare(-1, det_thresh=onnx_files.PACK_THRESHOLD, det_size=(SIDE, SIDE))
    photo = data.astronaut()  # type: ignore[no-untyped-call]
    found = analysis.get(photo[:, :, ::-1].copy())
    return [
        {
            "box": face.bbox.tolist(),
            "score": float(face.det_score),
            "landmarks": face.kps.tolist(),
            "embedding": face.embedding.tolist(),
            **({} if face.gender is None else {"gender": int(face.gender), "age": int(face.age)}),
        }
        for face in found
    ]


def main() -> None:
    """Write what the library gives for each pack."""
    warnings.simplefilter("ignore")
    found = {}
    for name in onnx_files.PACKS:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = faces_of(onnx_files.pack(Path(folder), name))
        print(name, len(found[name]), "faces")
    rounded = json.loads(json.dumps(found), parse_float=lambda text: round(float(text), 4))
    OUT.write_text(json.dumps(rounded) + "\n")


if __name__ == "__main__":
    main()
