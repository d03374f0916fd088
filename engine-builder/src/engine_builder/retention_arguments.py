"""Arguments that say what a store may lose before something is written into it."""

import argparse
from typing import TYPE_CHECKING

from engine_builder.arguments import digest, moment, number
from engine_builder.errors import UsageError

if TYPE_CHECKING:
    from engine_builder.retention import Retention


def add_retention(parser: argparse.ArgumentParser) -> None:
    """`--keep` and what goes with it; see `retention`."""
    parser.add_argument(
        "--keep",
        nargs="*",
        type=digest,
        metavar="D",
        help="first delete all other artefacts of the store that are older than --made-before",
    )
    parser.add_argument(
        "--made-before",
        type=moment,
        metavar="TIME",
        help="with --keep, as 2026-01-31T12:00:00Z",
    )
    parser.add_argument(
        "--keep-hours",
        type=number(0, 87_600),
        default=0,
        metavar="N",
        help="with --keep: leave others so long after they were needed last (default: %(default)s)",
    )
    parser.add_argument(
        "--high-water",
        type=number(1, 100),
        default=85,
        metavar="PERCENT",
        help="with --keep-hours: but not while the volume is fuller (default: %(default)s)",
    )


def retention(args: argparse.Namespace) -> "Retention | None":
    """What is deleted first; None for nothing. Raises UsageError."""
    from engine_builder.retention import Retention  # noqa: PLC0415

    if (args.keep is None) != (args.made_before is None):
        raise UsageError("--keep and --made-before go together: give both or none")
    if args.keep is None:
        return None
    return Retention(
        frozenset(args.keep),
        args.made_before,
        keep_seconds=args.keep_hours * 3600.0,
        high_water=args.high_water / 100,
    )
