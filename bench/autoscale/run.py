"""`make bench-autoscale`: four rules on the same loads, without a cluster.

Prints a table of replica-hours and of answers that were late, and writes a picture. Ends with
status 1 when ours is not on the Pareto front of some trace: another rule took less and was late
less often.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from picture import draw
from rules import HpaCpu, KedaRequests, KubeAi, Ours
from simulate import Result, Rule, simulate
from traces import TRACES, Trace

_RULES: tuple[Callable[[], Rule], ...] = (
    Ours,
    KubeAi,
    lambda: HpaCpu(50),
    lambda: HpaCpu(80),
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
    parser.add_argument("--only", help="the trace of this name")
    options = parser.parse_args()
    results = [
        play(trace, start)
        for trace in TRACES
        if options.only in (None, trace.name)
        for start in _STARTS
    ]
    print(table(results))
    if options.picture:
        options.picture.write_text(draw(results), encoding="utf-8")
    status = 0
    for row in results:
        ours = row[0]
        if better := beaten_by(ours, row[1:]):
            status = 1
            print(f"{ours.trace}, {ours.start_seconds:.0f} s: beaten by {', '.join(better)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
