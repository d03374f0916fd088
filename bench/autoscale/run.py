"""`make bench-autoscale`: four rules on the same loads, without a cluster.

Prints a table of replica-hours and of answers that were late, and writes a picture. Ends with
status 1 when ours is not on the Pareto front of some trace: another rule took less and was late
less often.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import astuple
from pathlib import Path

from picture import draw
from rules import HpaCpu, KedaRequests, KubeAi, Ours
from simulate import Result, Rule, simulate
from traces import TRACES, Trace

_RULES: tuple[Callable[[], Rule], ...] = (
    Ours,
    lambda: KubeAi(1.5),
    lambda: KubeAi(3),
    lambda: HpaCpu(50),
    lambda: HpaCpu(65),
    lambda: HpaCpu(80),
    lambda: KedaRequests(6),
    lambda: KedaRequests(10),
)
_STARTS = (20.0, 60.0)


def play(trace: Trace, start_seconds: float) -> list[Result]:
    """All rules on one trace."""
    requests = list(trace.requests())
    return [simulate(trace.name, requests, trace.seconds, make(), start_seconds) for make in _RULES]


def beaten_by(result: Result, others: Iterable[Result]) -> list[str]:
    """Rules that took less and were late less often, or one of both and the other alike."""
    mine = (round(result.replica_hours, 2), round(result.late, 4))
    return [
        other.rule
        for other in others
        if (theirs := (round(other.replica_hours, 2), round(other.late, 4))) != mine
        and theirs[0] <= mine[0]
        and theirs[1] <= mine[1]
    ]


def table(results: list[list[Result]]) -> str:
    """Markdown: a row for each trace, a column for each rule."""
    names = [result.rule for result in results[0]]
    lines = [
        "| load | pod start | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for row in results:
        cells = []
        for result in row:
            dominated = beaten_by(result, row)
            text = f"{result.replica_hours:.2f} h, {result.late:.2%}"
            cells.append(text if dominated else f"**{text}**")
        lines.append(
            f"| {row[0].trace} | {row[0].start_seconds:.0f} s | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, help="write an SVG there")
    parser.add_argument("--only", help="the load of this name")
    parser.add_argument("--keep", type=Path, help="results; what is in there is not played again")
    options = parser.parse_args()
    kept = _read(options.keep)
    results = []
    for trace in TRACES:
        for start in _STARTS if options.only in (None, trace.name) else ():
            title = f"{trace.name}, {start:.0f} s"
            kept[title] = kept.get(title) or play(trace, start)
            results.append(kept[title])
            _write(options.keep, kept)
    print(table(results))
    if options.picture:
        options.picture.write_text(draw(results), encoding="utf-8")
    status = 0
    for ours, *others in results:
        if better := beaten_by(ours, others):
            status = 1
            print(f"{ours.trace}, {ours.start_seconds:.0f} s: beaten by {', '.join(better)}")
    return status


def _read(path: Path | None) -> dict[str, list[Result]]:
    if path is None or not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {title: [Result(*row) for row in rows] for title, rows in found.items()}


def _write(path: Path | None, kept: dict[str, list[Result]]) -> None:
    if path is not None:
        rows = {title: [astuple(row) for row in found] for title, found in kept.items()}
        path.write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
