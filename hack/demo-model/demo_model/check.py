"""Checks that three ways to load the model give the same scores.

The adapter as it was trained (`adapter.Reranker`), the merged directory that
the image holds (loaded by transformers), and PEFT's own loader. Run it after a
training run and after any change of merge.py.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import peft
import torch
import yaml
from transformers import AutoTokenizer, BertForSequenceClassification

from demo_model.encoder import base_model_directory
from demo_model.evaluate import PASSAGE_TOKENS, Scorer

TOLERANCE = 1e-4
# Longer passages are cut by the evaluation but not by the merged model's tokenizer.
_CHARACTERS = PASSAGE_TOKENS * 2


def sample_pairs(here: Path) -> list[tuple[str, str]]:
    """Pairs from the questions of the demo."""
    items = yaml.safe_load((here / "questions.yaml").read_text(encoding="utf-8"))
    return [(item["question"], p["text"][:_CHARACTERS]) for item in items for p in item["passages"]]


@torch.inference_mode()
def scores(model: torch.nn.Module, directory: Path, pairs: list[tuple[str, str]]) -> torch.Tensor:
    """Scores of shape (pairs,) with the tokenizer in `directory`."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    inputs = tokenizer(
        [q for q, _ in pairs], [p for _, p in pairs], padding=True, return_tensors="pt"
    )
    logits: torch.Tensor = model.eval()(**inputs).logits
    return logits.squeeze(-1)


def main() -> int:
    """Command line: `python -m demo_model.check ADAPTER [--merged DIRECTORY]`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("adapter", type=Path)
    parser.add_argument(
        "--merged",
        type=Path,
        help="a merged model, such as /models of the image (default: merge now)",
    )
    arguments = parser.parse_args()
    here = Path(__file__).resolve().parent.parent
    base = base_model_directory()
    pairs = sample_pairs(here)
    with tempfile.TemporaryDirectory() as temporary:
        merged = arguments.merged or Path(temporary)
        if arguments.merged is None:
            subprocess.run(
                [sys.executable, here / "merge.py", base, arguments.adapter, merged], check=True
            )
        expected = torch.from_numpy(Scorer(arguments.adapter).scores(pairs))
        ordinary = BertForSequenceClassification.from_pretrained(merged)
        adapted = peft.PeftModel.from_pretrained(
            BertForSequenceClassification.from_pretrained(base, num_labels=1), arguments.adapter
        )
        differences = {
            "merged": (scores(ordinary, merged, pairs) - expected).abs().max().item(),
            "peft": (scores(adapted, merged, pairs) - expected).abs().max().item(),
        }
    print(f"{len(pairs)} pairs, largest difference of a score: {differences}")
    return int(max(differences.values()) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
