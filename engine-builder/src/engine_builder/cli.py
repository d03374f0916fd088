"""The command line: runs one stage, prints its progress, leaves its StageResult.

A tool's answer goes to standard output and its progress to standard error. Exit codes: those of
`exit_codes`, 130 interrupted, 143 terminated.
"""

import argparse
import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT, SIGTERM
from types import FrameType
from typing import TextIO

from engine_builder import __version__
from engine_builder.arguments import Command
from engine_builder.commands import COMMANDS
from engine_builder.errors import StageError, UsageError, write_failure
from engine_builder.exit_codes import DEFECT, DONE, EXIT_CODES, USAGE
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress
from reranker_contracts import Stage, StageReason, StageResult


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv`; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # In a plain C locale not even the help could be printed.
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    args = parser.parse_args(argv)
    command: Command = args.command
    answers = command.answers or command.stage is None
    progress = _progress(args.name, sys.stderr if answers else sys.stdout)
    try:
        with _terminable():
            outcome = _run(command, args, progress)
    except UsageError as error:
        print(f"engine-builder {args.name}: error: {error}", file=sys.stderr)
        return USAGE
    # What is only measured later was done here.
    done = isinstance(outcome, Outcome)
    progress.say(f"{StageReason.SUCCEEDED if done else outcome.reason}: {outcome.message}")
    if command.stage is not None and args.result is not None:
        result = _result(command.stage, outcome, progress)
        if not _leave(args.result, result):
            return DEFECT
    return DONE if done else EXIT_CODES.get(outcome.reason, DEFECT)


def _progress(name: str, stream: TextIO) -> Progress:
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        # A tenth of a second of imports that no Job need pay for.
        from engine_builder.bars import TerminalProgress  # noqa: PLC0415

        return TerminalProgress(name, stream=stream)
    return Progress(name, stream=stream)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="engine-builder",
        description="Turns a reranker's model files into an engine that Triton serves.",
        epilog="Exit codes: 0 done, 1 a defect, 2 wrong usage, 3 the source, 4 it can't be "
        "reached (try again), 5 the model is refused, 6 the build failed, 7 parity, 8 damaged or "
        "not signed, 9 no room or not writable.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.help, description=f"{name}: {command.help}.")
        command.arguments(sub)
        if command.stage is not None:
            sub.add_argument(
                "--result", type=Path, metavar="FILE", help="where to leave the StageResult (JSON)"
            )
        sub.set_defaults(command=command, name=name)
    return parser


def _run(command: Command, args: argparse.Namespace, progress: Progress) -> Outcome | StageError:
    try:
        return command.run(args, progress)
    except UsageError:
        raise
    except StageError as failure:
        return failure
    except SystemExit:
        raise
    # The last line of defence: whatever a library raises becomes a result, not a lost Job. Panics
    # of Rust libraries are no Exception.
    except BaseException as error:
        known = None
        if isinstance(error, OSError):
            known = write_failure(error, Path(error.filename or getattr(args, "out", None) or "."))
        if isinstance(error, ModuleNotFoundError):
            known = StageError(
                StageReason.INTERNAL_ERROR,
                f"{error.name} is not installed; run this in the engine-builder image",
            )
        if known is None:
            traceback.print_exc()
            known = StageError(
                StageReason.INTERNAL_ERROR,
                f"unexpected {type(error).__name__} in {args.name}; the traceback is in the log of "
                "this container, please report it",
            )
        return known


def _result(stage: Stage, outcome: Outcome | StageError, progress: Progress) -> StageResult:
    if isinstance(outcome, StageError):
        return StageResult(
            stage=stage,
            ok=False,
            reason=outcome.reason,
            message=outcome.message,
            seconds=progress.seconds,
        )
    return StageResult(
        stage=stage,
        ok=True,
        reason=outcome.reason,
        message=outcome.message,
        seconds=progress.seconds,
        resolved=outcome.resolved,
        parity=outcome.parity,
        shapes=outcome.shapes,
        size_bytes=outcome.size_bytes,
    )


def _leave(path: Path, result: StageResult) -> bool:
    """Write in place: a termination message is a mounted file that cannot be replaced."""
    try:
        path.write_text(result.to_message(), encoding="utf-8")
    except OSError as error:
        print(f"engine-builder: --result {path}: {error.strerror}", file=sys.stderr)
        return False
    return True


@contextmanager
def _terminable() -> Iterator[None]:
    """As process 1 of a container, a signal without a handler would be ignored."""
    before = {number: signal.signal(number, _terminate) for number in (SIGTERM, SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(number: int, _frame: FrameType | None) -> None:
    """Leave through `finally` blocks, so that what was being written is removed."""
    raise SystemExit(128 + number)
