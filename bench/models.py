"""Builds a tiny random model of every family for every target and prints one table.

Runs in the builder's image, by `hack/model-table`. Families are those of the registry, targets
those that the command line offers: what it refuses as wrong usage does not exist.
"""

import argparse
import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.references import LLAMA_TEMPLATE
from support.tiny_models import family_of, save_tiny_model, tokenizer_kind
from support.tiny_tokenizers import MAKERS

from engine_builder import cli
from engine_builder.commands import COMMANDS
from engine_builder.families import FAMILIES
from reranker_contracts import StageResult

#: What families whose files say nothing about pairs are told.
SAID = {
    "llama": ["--template", LLAMA_TEMPLATE, "--label", "yes", "--label", "no"],
    "llama-classifier": ["--template", LLAMA_TEMPLATE],
}
_WRONG_USAGE = 2
#: Targets that compile for a kind of GPU need one named; this is NVIDIA's L4.
_CAPABILITY = "8.9"
_HEADER = (
    "| family | target | builds | largest logit difference | Kendall tau | size | seconds |\n"
    "|---|---|---|---|---|---|---|"
)


def targets() -> Iterator[list[str]]:
    """Arguments of `build` for each target that the command line may offer."""
    parser = argparse.ArgumentParser()
    COMMANDS["build"].arguments(parser)
    options = {action.dest: action.choices for action in parser._actions}
    names = ("accelerator", "runtime", "precision")
    choices = [[choice for choice in options[name] or () if choice != "auto"] for name in names]
    for values in itertools.product(*choices):
        arguments = [f"--{name}={value}" for name, value in zip(names, values, strict=True)]
        if "compute_capability" in options and values[0] == "nvidia":
            yield [*arguments, f"--compute-capability={_CAPABILITY}"]
        yield arguments


def build(model: Path, store: Path, arguments: list[str]) -> StageResult | None:
    """The result; None for what is wrong usage. In this process: torch is loaded once."""
    result = store.with_suffix(".json")
    result.unlink(missing_ok=True)
    command = ["build", f"--source={model}", f"--out={store}", f"--result={result}", *arguments]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            code: int | str | None = cli.main(command)
    except SystemExit as ended:
        code = ended.code
    if code == _WRONG_USAGE:
        return None
    return StageResult.model_validate_json(result.read_bytes())


def row(family: str, arguments: list[str], result: StageResult) -> str:
    target = " ".join(argument.partition("=")[2] for argument in arguments)
    cells = [family, target, "yes" if result.ok else f"no: {result.reason}"]
    parity = result.parity
    cells.append(f"{parity.max_abs_diff:.1e}" if parity else "")
    cells.append(f"{parity.kendall_tau:.4f}" if parity else "")
    cells.append(f"{result.size_bytes / 1e6:.1f} MB" if result.size_bytes else "")
    cells.append(f"{result.seconds:.1f}")
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """1 when the FP32 engine of a family is not made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", action="append", help="only this one (default: all)")
    parser.add_argument("--list", action="store_true", help="print the families' names and end")
    args = parser.parse_args()
    if args.list:
        print("\n".join(family.name for family in FAMILIES))
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
            made = 0
            for arguments in targets():
                said = SAID.get(name, [])
                result = build(model, Path(scratch) / "store", [*arguments, *said])
                if result is not None:
                    print(row(name, arguments, result), flush=True)
                    made += result.ok
            missing += made == 0
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
