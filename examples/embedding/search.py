"""Which sentences are near a question?  python3 search.py URL QUESTION"""

import json
import sys
import urllib.request

SENTENCES = [
    "A kitten sleeps on the sofa.",
    "Stock prices fell sharply today.",
    "The train to Busan leaves at nine.",
]


def embed(url: str, texts: list[str]) -> list[list[float]]:
    """The vectors of some texts, in one request."""
    body = json.dumps({"input": {"text": texts}, "output_only": True}).encode()
    request = urllib.request.Request(f"{url}/api/workflows/runs", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        vectors: list[list[float]] = json.load(response)
    return vectors


def main() -> None:
    """Print the sentences, the nearest first."""
    url, question = sys.argv[1:]
    wanted, *vectors = embed(url, [question, *SENTENCES])
    # All have length 1, so the product is the cosine of the angle between them.
    near = [sum(a * b for a, b in zip(wanted, each, strict=True)) for each in vectors]
    for cosine, sentence in sorted(zip(near, SENTENCES, strict=True), reverse=True):
        print(f"{cosine:.2f}  {sentence}")


if __name__ == "__main__":
    main()
