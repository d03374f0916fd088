"""The number of real pods under a step and under a sawtooth of load, as the autoscaler decides it.

A pod does so many tokens per second and no more: what is tested is the number, so the machine must
not run out of processors first. `make test-long`; half an hour.
"""

import math
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from support.faulty_gateway import install_faults, with_fault
from support.kubectl import Json
from support.services import Services, source
from support.traffic import Question, Traffic

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

_MODEL = "test/model"
#: Of a pod, as `faults.py` has it, and what the service aims at.
_TOKENS_PER_SECOND, _UTILIZATION = 3000, 0.7
#: No two of those that wait at the same time are equal: equal pairs are scored once.
_QUESTIONS = [
    Question(_MODEL, f"which {number:04}", ("alpha alpha alpha", "gamma gamma gamma", "delta " * 3))
    for number in range(2000)
]
_MOST = 8
#: The autoscaler's own bar, from the step to the right number.
_WITHIN = 15


@pytest.fixture
def paced(services: Services) -> Iterator[Services]:
    """A service `paced` of one pod, whose speed is known."""
    install_faults(services.kubectl)
    small = {"resources": {"requests": {"cpu": "20m", "memory": "64Mi"}}}
    services.apply(
        "paced",
        {
            "model": {"source": source("first"), "servedName": _MODEL},
            "serving": with_fault({"gateway": small, "triton": small}, "paced"),
            "autoscaling": {"min": 1, "max": _MOST, "scaleDownDelaySeconds": 60},
        },
    )
    services.wait_ready("paced")
    yield services


def _tokens(services: Services) -> int:
    """Of one question, as the service counts them."""
    answer: Json = services.rank("paced", _QUESTIONS[0].query, _QUESTIONS[0].passages, model=_MODEL)
    return int(answer["usage"]["total_tokens"])


def _follow(
    services: Services, rate: Callable[[float], float], seconds: float
) -> tuple[list[tuple[float, int]], Traffic]:
    """The wanted number of pods whenever it changed, with the second, under this load."""
    address = services.kubectl.get("service", "paced")["spec"]["clusterIP"]
    numbers: list[tuple[float, int]] = []
    with Traffic(
        address, _QUESTIONS, per_second=rate, seconds=seconds, at_most=200_000, most_in_flight=2000
    ) as traffic:
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            status = services.kubectl.get("rr", "paced")["status"]["autoscaling"]
            if not numbers or numbers[-1][1] != status["desired"]:
                numbers.append((now, status["desired"]))
                print(f"{now:6.1f} s: {status['desired']} pods; {status['why']}", flush=True)
            time.sleep(0.5)
    refused = sum(sent.refused for sent in traffic.sent)
    print(f"{len(traffic.sent)} requests, {refused} refused")
    return numbers, traffic


def _at(numbers: list[tuple[float, int]], second: float) -> int:
    return [number for begin, number in numbers if begin <= second][-1]


def test_a_step_of_ten_times_the_load(paced: Services) -> None:
    base = 0.3 * _TOKENS_PER_SECOND / _tokens(paced)
    step = 90.0
    numbers, traffic = _follow(
        paced, lambda second: base * (10 if second >= step else 1), step + 150
    )
    assert _at(numbers, step) == 1
    # Three pods' work, which is to keep them as busy as the target says.
    right = math.ceil(10 * 0.3 / _UTILIZATION)
    reached = next(begin for begin, number in numbers if number >= right) - step
    print(f"{right} pods wanted {reached:.1f} s after the step")
    assert reached <= _WITHIN
    assert _at(numbers, step + 150) in (right, right + 1)
    assert [sent.why for sent in traffic.sent if sent.scores is None and not sent.refused] == []


def test_a_sawtooth_for_twenty_minutes(paced: Services) -> None:
    period, teeth = 300.0, 4
    least, most = (share * _TOKENS_PER_SECOND / _tokens(paced) for share in (0.3, 3.5))

    def rate(second: float) -> float:
        # It rises for four minutes of five, and falls in one.
        at = second % period / period
        share = at / 0.8 if at < 0.8 else (1 - at) / 0.2
        return least + (most - least) * share

    numbers, traffic = _follow(paced, rate, period * teeth)
    ways = [after > before for (_, before), (_, after) in pairwise(numbers)]
    turns = sum(one != other for one, other in pairwise(ways))
    print(f"{turns} changes of direction; the load has {2 * teeth - 1}")
    assert turns <= 2 * teeth - 1 + 2
    assert [sent.why for sent in traffic.sent if sent.scores is None and not sent.refused] == []
