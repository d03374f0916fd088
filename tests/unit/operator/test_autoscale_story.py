"""The decision in its loop, on loads with all their noise: as in `bench/autoscale`, but shorter."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench/autoscale"))

from rules import Ours
from simulate import SPEED, simulate, turns
from traces import TRACES, Trace


def _play(trace: Trace, start: float = 20.0) -> tuple[list[int], Ours, float]:
    ours = Ours()
    result = simulate(trace.name, trace.requests(), trace.seconds, ours, start)
    return list(result.wished), ours, result.late


def _trace(name: str) -> Trace:
    return next(trace for trace in TRACES if trace.name == name)


@pytest.mark.parametrize("start", [20.0, 60.0])
def test_ten_times_the_load_has_the_right_number_within_15_seconds(start: float) -> None:
    step, often = 300, _trace("tenfold step")
    trace = Trace("step", step + 60, lambda at: 60 if at >= step else 6, often.passages, 60)
    tokens = sum(request.tokens for request in trace.requests() if request.at >= step) / 60
    need = math.ceil(tokens / SPEED / 0.7)
    wished, _, _ = _play(trace, start)
    assert max(wished[120:step]) <= 2
    assert need <= wished[step + 14] <= need + 2
    # And it does not run away while the pods start.
    assert max(wished) <= need + 3


def test_a_sawtooth_of_twenty_minutes_has_few_turns_of_its_own() -> None:
    trace = _trace("sawtooth")
    rates = [trace.rate(at) for at in range(trace.seconds)]
    wished, _, late = _play(trace)
    assert turns(wished) <= turns(rates) + 2
    assert late < 0.02


def test_a_constant_load_brings_the_number_to_rest_in_spite_of_noise() -> None:
    trace = Trace("constant", 900, lambda _: 24, _trace("constant").passages, 24)
    wished, ours, _ = _play(trace)
    assert len(set(wished[-300:])) == 1
    # Some at the beginning; the status is not a log.
    assert ours.writes <= 30
