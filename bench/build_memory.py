"""Peak memory of the builder on a random XLM-RoBERTa of 568 M parameters.

Runs in the builder's image: `engine-builder/run-in-image bench/build_memory.py`. The shape is that
of BAAI/bge-reranker-v2-m3. `build` has all stages in one process, which in a cluster are one each.
Exits with 1 when a peak is over the bar.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

#: Peak resident memory of a process, mapped files counted, over the weights' size in FP32.
BAR = 3.0
#: Tokens: about what the longest probe pairs have in a vocabulary of 250,000. The tokenizer here is
#: tiny and makes more of the same texts.
LENGTH = 1024
#: The first one also exports. Engines in INT8 rarely pass the gate of `build`: see `_COMPILED`.
_BUILT = ("onnxruntime fp32", "openvino fp32")
_COMPILED = ("onnxruntime int8", "openvino int8")
SHAPE = {
    "vocab_size": 250_002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 8194,
    "type_vocab_size": 1,
    "num_labels": 1,
    "pad_token_id": 1,
}


def make_model(directory: Path, layers: int) -> None:
    """In a process of its own, so that the measured ones begin small."""
    import torch  # noqa: PLC0415 - in the image alone
    from support.tiny_tokenizers import MAKERS, tokenizer_config  # noqa: PLC0415
    from transformers import AutoConfig, AutoModelForSequenceClassification  # noqa: PLC0415

    torch.manual_seed(7)
    config = AutoConfig.for_model("xlm-roberta", **(SHAPE | {"num_hidden_layers": layers}))
    model = AutoModelForSequenceClassification.from_config(config)
    # Random states differ little between pairs; export refuses a model that ranks nothing.
    with torch.no_grad():
        model.classifier.out_proj.weight.mul_(200)
    model.save_pretrained(directory)
    MAKERS["xlm-roberta"]().save(str(directory / "tokenizer.json"))
    told = json.dumps(tokenizer_config("xlm-roberta"))
    (directory / "tokenizer_config.json").write_text(told)


def run_stage(arguments: list[str]) -> int:
    """One command with few of the probe pairs, all of them long.

    More of them take time, not memory: a full batch of the longest decides about that.
    """
    from engine_builder import cli  # noqa: PLC0415
    from engine_builder.probes import load_probes  # noqa: PLC0415
    from reranker_contracts.parity import ProbeSet  # noqa: PLC0415

    few = tuple(
        entry.model_copy(update={"passages": tuple(sorted(entry.passages, key=len)[-2:])})
        for entry in load_probes().queries[:4]
    )
    with mock.patch("engine_builder.probes.load_probes", lambda: ProbeSet(queries=few)):
        return cli.main(arguments)


def commands(model: Path, work: Path, length: int) -> Iterator[tuple[str, list[str]]]:
    """What is measured, and its arguments. Engines are removed when they are done."""
    store, engine = work / "store", work / "engine"
    source = ["--source", str(model), "--max-length", str(length)]
    for target in _BUILT:
        found = ", prepared before" if store.exists() else ", all stages"
        yield f"`build`, {target}{found}", ["build", *source, "--out", str(store), *_asked(target)]
        shutil.rmtree(store / "engines")
    (prepared,) = (store / "prepared").iterdir()
    for target in _COMPILED:
        given = ["--prepared", str(prepared), "--out", str(engine)]
        yield f"`compile`, {target}", ["compile", *given, *_asked(target)]
        shutil.rmtree(engine)


def _asked(target: str) -> list[str]:
    runtime, precision = target.split()
    return ["--runtime", runtime, "--precision", precision]


def peak(name: str, arguments: list[str]) -> tuple[int, float]:
    """Bytes and processor seconds of one command, of the process that has ended."""
    process = subprocess.Popen([sys.executable, __file__, "--stage", *arguments], stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{name} failed with {process.returncode}")
    return usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime


def measure(model: Path, work: Path, length: int) -> float:
    """Print a row for each command; returns the largest ratio."""
    weights = sum(entry.stat().st_size for entry in model.glob("*.safetensors"))
    print(f"{weights // 4} parameters, {weights / 1e9:.2f} GB in FP32\n", flush=True)
    print("| command | peak GB | of the weights | processor s |\n|---|---:|---:|---:|", flush=True)
    worst = 0.0
    for name, arguments in commands(model, work, length):
        size, cpu = peak(name, arguments)
        worst = max(worst, size / weights)
        cells = name, f"{size / 1e9:.2f}", f"{size / weights:.2f}", f"{cpu:.0f}"
        print(f"| {' | '.join(cells)} |", flush=True)
    return worst


def main() -> int:
    if sys.argv[1:2] == ["--stage"]:
        return run_stage(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=24, help="fewer make a smaller model")
    parser.add_argument("--length", type=int, default=LENGTH, help="longest pair, in tokens")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make is not None:
        make_model(args.make, args.layers)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        again = [sys.executable, __file__, "--make", str(model), "--layers", str(args.layers)]
        subprocess.run(again, check=True)
        worst = measure(model, Path(scratch) / "work", args.length)
    print(f"\nlargest: {worst:.2f} of the weights, bar {BAR}")
    return 0 if worst <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
