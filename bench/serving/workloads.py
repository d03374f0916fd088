"""Texts and requests of the workloads, from fixed seeds.

    W1  100 passages of 128 tokens
    W2  40 passages of 512 tokens
    W3  10 to 200 passages, lengths log-normal with median 120 and 95th percentile 480
    W4  one passage of 128 tokens

W5, twice the load that W3 can take, is W3 at another rate. Lengths are of whole pairs; a word is a
token for the demo model, or nearly. Every passage is drawn anew, so that no two pairs are equal.
"""

import json
import math
import random
from dataclasses import dataclass

WORDS = [
    "tool", "image", "file", "network", "server", "library", "text", "editor", "system", "data",
    "format", "view", "convert", "print", "search", "index", "package", "build", "test",
    "secure", "mail", "sound", "video", "graph", "table", "query", "cache", "log", "user",
]  # fmt: skip
QUERY = "which tool converts many images"
#: Others of the same length.
QUERIES = (QUERY, *(f"which tool converts many {word}" for word in WORDS[1:17]))
#: Of query and template.
_QUERY_TOKENS = 8
_LONGEST = 512
_MEDIAN, _P95 = 120, 480
#: 1.645 standard deviations are the 95th percentile.
_SIGMA = math.log(_P95 / _MEDIAN) / 1.645


@dataclass(frozen=True)
class Asked:
    """One request: a query and its passages."""

    query: str
    passages: list[str]

    def ranking(self, model: str) -> bytes:
        """As NIM's API takes it."""
        return json.dumps(
            {
                "model": model,
                "query": {"text": self.query},
                "passages": [{"text": passage} for passage in self.passages],
                "truncate": "END",
            }
        ).encode()

    def rerank(self, model: str) -> bytes:
        """As Cohere's and infinity's API take it."""
        return json.dumps(
            {"model": model, "query": self.query, "documents": self.passages}
        ).encode()

    def tei(self) -> bytes:
        """As text-embeddings-inference takes it."""
        return json.dumps({"query": self.query, "texts": self.passages, "truncate": True}).encode()


def requests(workload: str, count: int, seed: int = 20260101) -> list[Asked]:
    """`count` requests of W1 to W4. Raises KeyError for another workload."""
    chance = random.Random(f"{workload}-{seed}")  # noqa: S311 - texts, no secrets
    draw = {"W1": _w1, "W2": _w2, "W3": _w3, "W4": _w4}[workload]
    return [Asked(QUERY, [_passage(chance, n) for n in draw(chance)]) for _ in range(count)]


def _w1(_: random.Random) -> list[int]:
    return [128] * 100


def _w2(_: random.Random) -> list[int]:
    return [512] * 40


def _w3(chance: random.Random) -> list[int]:
    lengths = (
        round(chance.lognormvariate(math.log(_MEDIAN), _SIGMA))
        for _ in range(chance.randint(10, 200))
    )
    return [min(max(length, _QUERY_TOKENS + 2), _LONGEST) for length in lengths]


def _w4(_: random.Random) -> list[int]:
    return [128]


def _passage(chance: random.Random, tokens: int) -> str:
    return " ".join(chance.choices(WORDS, k=max(1, tokens - _QUERY_TOKENS)))
