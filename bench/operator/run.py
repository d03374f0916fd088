"""The operator with a thousand services on a control plane without kubelets.

    .venv/bin/python bench/operator/run.py [--services 1000] [--json FILE]

Starts etcd, an API server, a controller manager, a scheduler and KWOK on loopback, with 500 nodes
of eight GPUs that nobody has, 20 namespaces and engines that are built already, and the operator
from the sources beside it. Every row of the table is measured once, in the order of the table; the
control plane shares the machine's cores with the operator. `make cluster` must have built the
control plane's programs; KWOK is built by the first run. About ten minutes.

Beside our figures stand those of the NIM Operator (main of August 2026) with 1,000 NIMServices on
such a control plane on two cores, and the bar for ours. Machines differ: with `--nim-operator DIR`,
a checkout of it, it gets as many services first, on a control plane of its own on this machine.
"""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

# What a test's operator talks through is of use here, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import fixtures
import nim
from control_plane import ROOT, ControlPlane, build_kwok
from process import OperatorProcess
from report import table
from scenarios import Bench, Results


async def measure(
    arguments: argparse.Namespace, results: Results, beside: dict[str, float]
) -> None:
    """All rows."""
    # Nothing that was started may be left behind.
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    build_kwok(arguments.binaries)
    spaces = fixtures.namespaces(arguments.namespaces)
    if arguments.nim_operator:
        _say("the NIM Operator")
        beside.update(await _measure_nim(arguments, spaces))
    async with ControlPlane(arguments.binaries, arguments.qps) as plane:
        settings = {"lease_namespace": "default", "log_format": "text"}
        operator = OperatorProcess(
            plane.kubeconfig, plane.logs / "operator.log", arguments.port, settings
        )
        bench = Bench(plane, operator, spaces, arguments.models, results)
        try:
            _say("nodes, namespaces and engines")
            await fixtures.prepare(plane.api, arguments.nodes, spaces, arguments.models)
            operator.start()
            await operator.until_calm(300)
            await _rows(bench, arguments.services, only_apply=arguments.only_apply)
        finally:
            operator.stop()
            if arguments.logs:
                shutil.copytree(plane.logs, arguments.logs, dirs_exist_ok=True)


async def _measure_nim(arguments: argparse.Namespace, spaces: list[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        async with ControlPlane(arguments.binaries, arguments.qps) as plane:
            await fixtures.add_nodes(plane.api, arguments.nodes)
            found = await nim.measure(
                plane, arguments.nim_operator.resolve(), Path(folder), spaces, arguments.services
            )
    return {name: round(value, 3) for name, value in found.items()}


async def _rows(bench: Bench, services: int, *, only_apply: bool) -> None:
    steps = {
        f"apply {services} services": lambda: bench.apply(services),
        "steady state": bench.steady,
        "changes": lambda: bench.changes("change_p95_seconds"),
        "pods that stop answering": bench.silent_pods,
        "drift": bench.drift,
        "restart": bench.restart,
        "changes beside services that are not ready": bench.changes_beside_the_unready,
        "changes beside one that hangs": bench.changes_beside_one_that_hangs,
        "an API server that is ill for two minutes": bench.bad_api_server,
        f"delete {services} services": bench.delete,
    }
    for name, step in steps.items():
        _say(name)
        await step()
        if only_apply:
            return


def _say(text: str) -> None:
    sys.stderr.write(f"{text} …\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--namespaces", type=int, default=20)
    parser.add_argument("--models", type=int, default=5, help="engines in each namespace")
    parser.add_argument("--qps", type=int, default=200, help="of the controllers to the API server")
    parser.add_argument("--port", type=int, default=18080, help="of the operator's metrics")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--logs", type=Path, help="keep the programs' logs there")
    parser.add_argument("--nim-operator", type=Path, help="a checkout of it to measure first")
    parser.add_argument("--only-apply", action="store_true", help="end after the first step")
    parser.add_argument("--binaries", type=Path, default=ROOT / ".cluster/bin")
    arguments = parser.parse_args()
    results, beside = Results(), dict[str, float]()
    try:
        asyncio.run(measure(arguments, results, beside))
    finally:
        # Of what was measured before something went wrong, too.
        if arguments.json:
            figures = results.values | {f"nim_{name}": value for name, value in beside.items()}
            arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
        text, passed = table(results.values, beside)
        sys.stdout.write(text)
    raise SystemExit(0 if passed else 1)


if __name__ == "__main__":
    main()
