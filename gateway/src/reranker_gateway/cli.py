"""`reranker-gateway serve`, `verify`, `measure` and `activate`.

Exit codes: 0 done, 1 failed for the reason that is printed, 2 wrong usage or settings.
"""

import argparse
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from reranker_contracts import StageResult
from reranker_contracts.parity import Thresholds
from reranker_gateway import VERSION
from reranker_gateway.verify import verify_engine

if TYPE_CHECKING:
    from reranker_gateway.settings import Settings

S = TypeVar("S", bound="Settings")

#: Seconds for one batch, as the server has it.
_MEASURE_TIMEOUT = 300

_SERVE_HELP = """\
Serves until SIGTERM, then drains. Settings are environment variables; the most important:
  RERANKER_ENGINE_DIR   a published engine (default /engine)
  RERANKER_TRITON_URL   Triton's gRPC address (default 127.0.0.1:9001)
  RERANKER_HTTP_PORT    API (default 8000); RERANKER_METRICS_PORT (default 8002)
All of them: docs/architecture.md, "The serving pod".
"""

_ACTIVATE_HELP = """\
Holds requests while no pod serves, and hands them on to the first one that does, until SIGTERM.
Settings are environment variables; of its own:
  RERANKER_BACKEND_URL   where the pods answer, http(s)://host:port
  RERANKER_BACKEND_GRPC  the same for gRPC, host:port
  RERANKER_HOLD_SECONDS  longest time that a request is held (default 120)
All of them: docs/scale-to-zero.md.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "verify":
        return _tell(verify_engine(arguments.engine, arguments.digest), arguments.result)
    if arguments.command == "measure":
        return _measure(arguments)
    return _activate() if arguments.command == "activate" else _serve()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reranker-gateway", description="HTTP front of a reranker served by Triton."
    )
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "serve",
        help="answer ranking requests",
        description=_SERVE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands.add_parser(
        "activate",
        help="hold requests until a pod serves",
        description=_ACTIVATE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify = commands.add_parser("verify", help="check an engine's files against its manifest")
    verify.add_argument(
        "--engine", type=Path, required=True, metavar="DIR", help="a published engine"
    )
    verify.add_argument("--digest", metavar="HEX", help="the engine that this should be")
    measure = commands.add_parser(
        "measure", help="score an engine's probe pairs through Triton, if it has no parity report"
    )
    measure.add_argument(
        "--engine", type=Path, required=True, metavar="DIR", help="a published engine"
    )
    measure.add_argument(
        "--triton", default="127.0.0.1:9001", metavar="HOST:PORT", help="(default: %(default)s)"
    )
    measure.add_argument(
        "--min-kendall-tau",
        type=_within(-1, 1),
        default=Thresholds.min_kendall_tau,
        metavar="N",
        help="(default: %(default)s)",
    )  # fmt: skip
    measure.add_argument(
        "--max-ndcg-delta",
        type=_within(0, 1),
        default=Thresholds.max_ndcg_delta,
        metavar="N",
        help="(default: %(default)s)",
    )  # fmt: skip
    for command in (verify, measure):
        command.add_argument(
            "--result", type=Path, metavar="FILE", help="also write the result there, as JSON"
        )
    return parser


def _within(least: float, most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        # Nothing is less than what is no number, so that nothing would be refused.
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least:g} and {most:g}")
        return value

    return number


def _tell(result: StageResult, result_file: Path | None) -> int:
    print(result.message, file=sys.stdout if result.ok else sys.stderr)
    if result_file is not None:
        try:
            result_file.write_text(result.to_message(), encoding="utf-8")
        except OSError as error:
            print(f"--result {result_file}: {error.strerror}", file=sys.stderr)
            return 1
    return 0 if result.ok else 1


def _measure(arguments: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415

    from reranker_gateway.engine_files import EngineInvalidError, load_engine  # noqa: PLC0415
    from reranker_gateway.errors import EngineError  # noqa: PLC0415
    from reranker_gateway.measure import measure_engine  # noqa: PLC0415
    from reranker_gateway.triton import TritonEngine  # noqa: PLC0415

    async def run() -> StageResult:
        files = load_engine(arguments.engine)
        triton = TritonEngine(
            url=arguments.triton, metrics_url="", model=files.model, infer_timeout=_MEASURE_TIMEOUT
        )
        thresholds = Thresholds(arguments.min_kendall_tau, arguments.max_ndcg_delta)
        try:
            return await measure_engine(files, triton, thresholds)
        finally:
            await triton.close()

    try:
        return _tell(asyncio.run(run()), arguments.result)
    except (EngineInvalidError, EngineError) as error:
        print(error, file=sys.stderr)
        return 1


def _serve() -> int:
    # Imported here: `verify` runs at every pod start and needs none of it.
    from reranker_gateway.engine_files import load_engine  # noqa: PLC0415
    from reranker_gateway.server import serve  # noqa: PLC0415
    from reranker_gateway.settings import Settings  # noqa: PLC0415

    async def run(settings: Settings) -> None:
        await serve(settings, load_engine(settings.engine_dir))

    return _run(Settings, run)


def _activate() -> int:
    from reranker_gateway.activator.server import activate  # noqa: PLC0415
    from reranker_gateway.activator.settings import ActivatorSettings  # noqa: PLC0415

    return _run(ActivatorSettings, activate)


def _run(kind: "type[S]", program: "Callable[[S], Coroutine[Any, Any, None]]") -> int:
    """Run a server with the settings of the environment; the exit code."""
    import asyncio  # noqa: PLC0415

    from prometheus_client import disable_created_metrics  # noqa: PLC0415

    from reranker_gateway.api_keys import ApiKeysError  # noqa: PLC0415
    from reranker_gateway.engine_files import EngineInvalidError  # noqa: PLC0415
    from reranker_gateway.listeners import ListenError  # noqa: PLC0415
    from reranker_gateway.logs import configure_logs  # noqa: PLC0415
    from reranker_gateway.settings import SettingsError, read_settings  # noqa: PLC0415
    from reranker_gateway.tls import TlsError  # noqa: PLC0415

    try:
        settings = read_settings(kind)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    configure_logs(settings.log_level)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        asyncio.run(program(settings))
    except (EngineInvalidError, ListenError, ApiKeysError, TlsError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
