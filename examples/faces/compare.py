"""How near are the largest faces of two photos?"""

from __future__ import annotations

import base64
import json
import sys
import urllib.request
from pathlib import Path


def embedding(service: str, photo: str) -> list[float]:
    """The vector of the largest face of a photo."""
    image = base64.b64encode(Path(photo).read_bytes()).decode()
    body = json.dumps({"input": {"image": image}, "output_only": True}).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{service}/api/workflows/runs", body, headers)
    ) as response:
        found = json.load(response)
    if not found["faces"]:
        sys.exit(f"{photo} shows no face")
    return list(found["embedding"])


first, second = (embedding(sys.argv[1], photo) for photo in sys.argv[2:4])
print(f"{sum(a * b for a, b in zip(first, second, strict=True)):.2f}")
