"""Builds a tiny random model of every family for every target and prints one table.

Runs in the builder's image, by `hack/model-table`. Families and targets are those of the
registries; a runtime that the image does not have is left out.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.references import LLAMA_TEMPLATE
from support.tiny_models import family_of, save_tiny_model, tokenizer_kind
from support.tiny_tokenizers import MAKERS

from engine_builder import cli
from engine_builder.families import FAMILIES
from engine_builder.toolchain import installed_runtimes
from reranker_contracts import StageReason, StageResult
from reranker_contracts.parity import Thresholds
from reranker_contracts.targets import COMPILED, PRECISIONS

#: What families whose files say nothing about pairs are told.
SAID = {
    "llama": ["--template", LLAMA_TEMPLATE, "--label", "yes", "--label", "no"],
    "llama-classifier": ["--template", LLAMA_TEMPLATE],
}
#: Targets that compile for a kind of GPU need one named; this is NVIDIA's L4.
_CAPABILITY = "8.9"
#: Failures that say nothing of the family.
_NOT_HERE = {StageReason.TARGET_ABSENT}
_HEADER = (
    "| family | target | builds | largest logit difference | Kendall tau | size | seconds |\n"
    "|---|---|---|---|---|---|---|"
)


def targets() -> Iterator[list[str]]:
    """Arguments of `build` for each target that the image has a runtime for."""
    runtimes = installed_runtimes()
    for (runtime, accelerator), precisions in PRECISIONS.items():
        if runtimes.version_of(runtime) is None:
            continue
        for precision in precisions:
            arguments: dict[str, str] = {
                "accelerator": accelerator,
                "runtime": runtime,
                "precision": precision,
            }
            if runtime in COMPILED:
                arguments["compute-capability"] = _CAPABILITY
            yield [f"--{name}={value}" for name, value in arguments.items()]


def build(model: Path, store: Path, arguments: list[str]) -> StageResult:
    """What the command left. In this process: torch is loaded once."""
    result = store.with_suffix(".json")
    result.unlink(missing_ok=True)
    # The table has what an engine under the thresholds ranks like, too.
    loose = ("--min-kendall-tau=-1", "--max-ndcg-delta=1")
    where = (f"--source={model}", f"--out={store}", f"--result={result}")
    with contextlib.redirect_stdout(sys.stderr):
        cli.main(["build", *where, *arguments, *loose])
    return StageResult.model_validate_json(result.read_bytes())


def name_of(arguments: list[str]) -> str:
    """As in the table."""
    accelerator, *target = (argument.partition("=")[2] for argument in arguments)
    return " ".join([*target, "GPU" if accelerator == "nvidia" else "CPU"])


def row(family: str, arguments: list[str], result: StageResult) -> str:
    cells = [family, name_of(arguments)]
    parity, unknown = result.parity, "in the pod" if result.ok else ""
    if parity and not Thresholds().are_met(parity):
        cells.append("below the gate")
    else:
        cells.append("yes" if result.ok else f"no: {result.reason}")
    cells.append(f"{parity.max_abs_diff:.1e}" if parity else unknown)
    cells.append(f"{parity.kendall_tau:.4f}" if parity else unknown)
    cells.append(f"{result.size_bytes / 1e6:.1f} MB" if result.size_bytes else "")
    cells.append(f"{result.seconds:.1f}")
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """1 when a family has no engine for any target that this machine has the hardware for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", action="append", help="only this one (default: all)")
    parser.add_argument("--target", action="append", help="as in the table (default: all)")
    parser.add_argument("--list", choices=("families", "targets"), help="print names and end")
    args = parser.parse_args()
    if args.list:
        names = [family.name for family in FAMILIES]
        print("\n".join(names if args.list == "families" else map(name_of, targets())))
        return 0
    # Threads wait for each other longer than a tiny model computes.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(_HEADER, flush=True)
    missing = 0
    for name in args.family or [family.name for family in FAMILIES]:
        family = family_of(name)
        with tempfile.TemporaryDirectory() as scratch:
            model = Path(scratch) / f"tiny-{name}"
            save_tiny_model(family, MAKERS[tokenizer_kind(family)](), model)
            results = []
            for arguments in targets():
                if args.target and name_of(arguments) not in args.target:
                    continue
                said = SAID.get(name, [])
                results.append(build(model, Path(scratch) / "store", [*arguments, *said]))
                print(row(name, arguments, results[-1]), flush=True)
            tried = [result.ok for result in results if result.reason not in _NOT_HERE]
            missing += bool(tried) and not any(tried)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
