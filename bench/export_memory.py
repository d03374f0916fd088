"""Peak memory of `engine-builder export` on a random XLM-RoBERTa of 568 M parameters.

Runs in the builder's image: `engine-builder/run-in-image bench/export_memory.py`. The shape is that
of BAAI/bge-reranker-v2-m3. Exits with 1 when the peak is over the bar.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

#: Peak resident memory of the process, mapped files counted, over the weights' size in FP32.
BAR = 3.0
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
    """In a process of its own, so that the measured one begins small."""
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


def export_model(model: Path, out: Path) -> None:
    """The stage with few of the probe pairs: more of them take time, not memory."""
    from engine_builder.probes import load_probes  # noqa: PLC0415
    from engine_builder.progress import Progress  # noqa: PLC0415
    from engine_builder.stages.export import export  # noqa: PLC0415
    from reranker_contracts.parity import ProbeSet  # noqa: PLC0415

    few = tuple(
        entry.model_copy(update={"passages": entry.passages[:2]})
        for entry in load_probes().queries[:6]
    )
    with mock.patch("engine_builder.stages.export.load_probes", lambda: ProbeSet(queries=few)):
        export(model, out, max_length=96, progress=Progress("export"))


def measure(model: Path, out: Path) -> dict[str, float]:
    """Run export on it and look at the process that has ended."""
    command = [sys.executable, __file__, "--export", str(model), str(out)]
    began = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"export failed with {process.returncode}")
    weights = sum(entry.stat().st_size for entry in model.glob("*.safetensors"))
    return {
        "parameters": weights / 4,
        "weights_bytes": weights,
        "peak_bytes": usage.ru_maxrss * 1024,
        "ratio": usage.ru_maxrss * 1024 / weights,
        "seconds": time.monotonic() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=24, help="fewer make a smaller model")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--export", type=Path, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.export is not None:
        export_model(*args.export)
        return 0
    if args.make is not None:
        make_model(args.make, args.layers)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        again = [sys.executable, __file__, "--make", str(model), "--layers", str(args.layers)]
        subprocess.run(again, check=True)
        found = measure(model, Path(scratch) / "out")
    print(json.dumps({key: round(value, 3) for key, value in found.items()}, indent=2))
    return 0 if found["ratio"] <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
