"""Checks that the merged model ranks as it was judged.

The evaluation makes its inputs by its own code; users load the merged directory with
transformers, its tokenizer and its pair template. Run it after a training run and after any
change of merge.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from demo_model.evaluate import PASSAGE_TOKENS, Scorer
from demo_model.weights import merge

TOLERANCE = 1e-4
# Longer passages are cut by the evaluation but not by the merged model's tokenizer.
_CHARACTERS = PASSAGE_TOKENS * 2


def sample_pairs(here: Path) -> list[tuple[str, str]]:
    """Pairs from the questions of the demo."""
    items = yaml.safe_load((here / "questions.yaml").read_text(encoding="utf-8"))
    return [(item["question"], p["text"][:_CHARACTERS]) for item in items for p in item["passages"]]


@torch.inference_mode()
def ordinary_scores(directory: Path, pairs: list[tuple[str, str]]) -> torch.Tensor:
    """Scores of shape (pairs,), with nothing but what is in `directory`."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    inputs = tokenizer(
        [q for q, _ in pairs], [p for _, p in pairs], padding=True, return_tensors="pt"
    )
    logits: torch.Tensor = model(**inputs).logits
    return logits.squeeze(-1)


def main() -> int:
    """Command line: `python -m demo_model.check WEIGHTS [--merged DIRECTORY]`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument(
        "--merged",
        type=Path,
        help="a merged model, such as /models of the image (default: merge now)",
    )
    arguments = parser.parse_args()
    pairs = sample_pairs(Path(__file__).resolve().parent.parent)
    with tempfile.TemporaryDirectory() as temporary:
        merged = arguments.merged or Path(temporary)
        if arguments.merged is None:
            merge(arguments.weights, merged)
        judged = torch.from_numpy(Scorer(merged).scores(pairs))
        difference = (ordinary_scores(merged, pairs) - judged).abs().max().item()
    print(f"{len(pairs)} pairs, largest difference of a score: {difference}")
    return int(difference > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
