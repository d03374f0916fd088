"""Tokenisers for BERT's vocabulary on one thread: tokens per second, and whether the ids are right.

    DIR/peers/bin/python bench/serving/tokenisers.py ENGINE

Texts are the passages of W3, which have few words, so that a library that remembers words is at its
best, and those of the probe pairs, in sixteen languages. What the gateway uses, `tokenizers`, comes
first; `equal` is the share of texts that get the same ids as there. BlingFire has the vocabulary of
BERT (uncased) built in, the others read that of the engine.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import blingfire
import tokie
from tokenizers import Tokenizer
from workloads import requests

_PROBES = Path(__file__).parents[2] / "engine-builder/src/engine_builder/probes.json"
_ROUNDS = 3
#: As many as a request has.
_BATCH = 50

Ids = list[list[int]]
Encode = Callable[[list[str]], Ids]


def ways(engine: Path) -> dict[str, Encode]:
    """Each library as it is fastest for lists of ids."""
    file = str(engine / "tokenizer.json")
    reference = Tokenizer.from_file(file)
    reference.no_padding()
    reference.no_truncation()
    fast = tokie.Tokenizer.from_json(file)
    finite = blingfire.load_model(str(Path(blingfire.__file__).with_name("bert_base_tok.bin")))

    def by_tokenizers(texts: list[str]) -> Ids:
        return [one.ids for one in reference.encode_batch_fast(texts, add_special_tokens=False)]

    def by_tokie(texts: list[str]) -> Ids:
        return [list(one.ids) for one in fast.encode_batch(texts, add_special_tokens=False)]

    def by_blingfire(texts: list[str]) -> Ids:
        # The longest any text here gets; 100 is [UNK].
        found = [blingfire.text_to_ids(finite, text, 2048, 100, no_padding=True) for text in texts]
        return [ids.tolist() for ids in found]

    return {"tokenizers": by_tokenizers, "tokie": by_tokie, "blingfire": by_blingfire}


def seconds(encode: Encode, texts: Sequence[str]) -> float:
    """Processor time of the process for all of them, a batch at a time; the least of the rounds."""
    batches = [list(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
    taken = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        for batch in batches:
            encode(batch)
        taken.append(time.process_time() - began)
    return min(taken)


def measure(engine: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Texts → library → tokens per second, how many times as fast as `tokenizers`, share equal."""
    probes = json.loads(_PROBES.read_text())["queries"]
    libraries = ways(engine)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, texts in {
        "W3": [text for request in requests("W3", 20) for text in request.passages],
        "probes": [str(text) for query in probes for text in query["passages"]],
    }.items():
        rows: dict[str, dict[str, float]] = {}
        right: Ids = []
        for library, encode in libraries.items():
            ids = encode(texts)
            right = right or ids
            tokens = sum(map(len, right))
            rate = tokens / seconds(encode, texts)
            rows[library] = {
                "tokens/s": round(rate),
                "times": round(rate / rows["tokenizers"]["tokens/s"], 2) if rows else 1.0,
                "equal": sum(map(list.__eq__, right, ids)) / len(texts),
            }
        found[name] = rows
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("engine", type=Path)
    print(json.dumps(measure(parser.parse_args().engine), indent=2))


if __name__ == "__main__":
    main()
