"""Arguments that say which model, and how it scores."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from engine_builder.arguments import digest, number
from engine_builder.errors import UsageError
from engine_builder.facts import MIN_LENGTH, USUAL_LENGTH
from reranker_contracts import Scoring
from reranker_contracts.model import TEMPLATE_LIMIT

if TYPE_CHECKING:
    from engine_builder.stages.resolve import AdapterSource
    from engine_builder.user_probes import UserProbes


def add_source(parser: argparse.ArgumentParser) -> None:
    """Where the model's files are."""
    parser.add_argument(
        "--source",
        required=True,
        metavar="URI",
        help="hf://org/name[@revision], ngc://org/model:version, s3://bucket/path, "
        "https://host/model.tar.gz, oci://…, pvc://claim/path, or a directory",
    )
    parser.add_argument(
        "--source-dir",
        type=Path,
        metavar="DIR",
        help="where an oci:// source's files lie, or a pvc:// source's claim is mounted",
    )


def add_length(parser: argparse.ArgumentParser) -> None:
    """The longest input to build for."""
    parser.add_argument(
        "--max-length",
        type=number(MIN_LENGTH, 1 << 24),
        metavar="N",
        help="longest input in tokens (default: the model's own limit, but at most "
        f"{USUAL_LENGTH})",
    )


def add_scoring(parser: argparse.ArgumentParser) -> None:
    """What a user says of how the model scores; see `scoring`."""
    group = parser.add_argument_group(
        "how the model scores", "Default: as its own files and its family's model card say."
    )
    group.add_argument(
        "--template",
        type=_template,
        metavar="TEXT",
        help="text around {query} and {passage}, each once",
    )
    group.add_argument(
        "--label",
        dest="labels",
        action="append",
        metavar="WORD",
        help="of a language model: the word that means relevant; once more for the one that does "
        "not",
    )
    group.add_argument(
        "--pooling",
        choices=["cls", "last", "mean"],
        help="which hidden states are scored",
    )
    group.add_argument("--activation", choices=["none", "sigmoid"], help="from logit to score")


def scoring(args: argparse.Namespace) -> Scoring | None:
    """What the arguments say; None when they say nothing, so that identities are equal."""
    values = {name: getattr(args, name) for name in Scoring.model_fields}
    said = {name: value for name, value in values.items() if value is not None}
    try:
        return Scoring.model_validate(said) if said else None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"--{first['loc'][0]}: {first['msg']}") from error


def _template(text: str) -> str:
    if len(text) > TEMPLATE_LIMIT:
        raise argparse.ArgumentTypeError(f"at most {TEMPLATE_LIMIT} characters are allowed")
    return text


def add_probes(parser: argparse.ArgumentParser, *, fixed: bool = False) -> None:
    """A probe set of the user's own; with `fixed` also which one it must be."""
    parser.add_argument(
        "--probes",
        type=Path,
        metavar="FILE",
        help="measure engines on these queries, too: a JSON object a line with query and passages",
    )
    if fixed:
        parser.add_argument(
            "--probes-digest", type=digest, metavar="HEX", help="sha256 that FILE must have"
        )


def probes(args: argparse.Namespace) -> "UserProbes | None":
    """The user's own probe set, if one was named. Raises StageError or UsageError."""
    if args.probes is None:
        return None
    from engine_builder.user_probes import read_user_probes  # noqa: PLC0415

    return read_user_probes(args.probes, getattr(args, "probes_digest", None))


def add_adapter(parser: argparse.ArgumentParser) -> None:
    """Where a LoRA adapter's files are; see `adapter`."""
    group = parser.add_argument_group("LoRA adapter, merged into the model")
    group.add_argument("--adapter", metavar="URI", help="as --source, of a PEFT adapter")
    group.add_argument("--adapter-source-dir", type=Path, metavar="DIR", help="as --source-dir")
    group.add_argument("--adapter-revision", metavar="R", help="as --revision")


def adapter(args: argparse.Namespace) -> "AdapterSource | None":
    """The adapter that was named, if any."""
    # Its module reads models, which most commands need not load.
    from engine_builder.stages.resolve import AdapterSource  # noqa: PLC0415

    if args.adapter is None:
        return None
    return AdapterSource(args.adapter, args.adapter_source_dir, args.adapter_revision)
