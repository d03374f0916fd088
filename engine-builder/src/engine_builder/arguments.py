"""What commands are made of, and the checks of their arguments."""

import argparse
import datetime
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine_builder.outcome import Outcome
from engine_builder.progress import Progress
from reranker_contracts import Stage

if TYPE_CHECKING:
    from engine_builder.provenance import PublicKey, SigningKey

#: Names the public key without whose signature nothing is trusted.
REQUIRE_SIGNED = "ENGINE_BUILDER_REQUIRE_SIGNED"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Command:
    """One subcommand. A stage's standard output is its log, unless it `answers` there as tools do.

    Those that Jobs run have a stage, and leave a StageResult.
    """

    stage: Stage | None
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Progress], Outcome]
    answers: bool = False


def number(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r}: give a number from {low} to {high}")
        return value

    return parse


def fraction(low: float, high: float) -> Callable[[str], float]:
    """A parser of numbers from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r}: give a number from {low:g} to {high:g}")
        return value

    return parse


def digest(text: str) -> str:
    """64 hex digits."""
    if not _DIGEST.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: a digest is 64 hex digits")
    return text


def moment(text: str) -> datetime.datetime:
    """A time with its zone."""
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r}: give a time as 2026-01-31T12:00:00Z")
    return found


def directory(text: str) -> Path:
    """A directory that is there."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: there is no such directory")
    return Path(text)


def add_public_key(parser: argparse.ArgumentParser) -> None:
    """`--key`."""
    required = os.environ.get(REQUIRE_SIGNED)
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        default=Path(required) if required else None,
        help="require a signature by this public key (PEM, as cosign.pub; default: "
        f"${REQUIRE_SIGNED})",
    )


def public_key(args: argparse.Namespace) -> "PublicKey | None":
    """The key of `--key`."""
    from engine_builder.provenance import load_public_key  # noqa: PLC0415

    return load_public_key(args.key) if args.key else None


def add_signing_key(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """`--sign-key`."""
    parser.add_argument(
        "--sign-key",
        type=Path,
        required=required,
        metavar="FILE",
        help="sign the provenance with this private key (PEM); its password is COSIGN_PASSWORD",
    )


def signing_key(args: argparse.Namespace) -> "SigningKey | None":
    """The key of `--sign-key`."""
    if not args.sign_key:
        return None
    from engine_builder.provenance import load_signing_key  # noqa: PLC0415

    return load_signing_key(args.sign_key, os.environ.get("COSIGN_PASSWORD"))
