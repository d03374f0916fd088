"""Bounds on bytes and tokens, and the advice when to come back."""

import itertools

import pytest

from reranker_gateway.admission import Admission
from reranker_gateway.errors import OverloadedError
from reranker_gateway.throughput import Throughput


@pytest.fixture
def throughput() -> Throughput:
    """100 tokens per second."""
    measured = Throughput(itertools.count().__next__)
    measured.seed(1000, 10.0)
    return measured


def test_retry_after_is_the_time_until_there_is_room(throughput: Throughput) -> None:
    admission = Admission(max_bytes=10, max_queue_tokens=1000, throughput=throughput)
    admission.check_tokens(300, waiting=700)
    with pytest.raises(OverloadedError) as caught:
        admission.check_tokens(600, waiting=900)
    assert caught.value.retry_after == 5
    with pytest.raises(OverloadedError) as caught:
        admission.check_tokens(1, waiting=1000)
    assert caught.value.retry_after == 1


def test_a_request_over_the_bound_is_served_when_nothing_waits(throughput: Throughput) -> None:
    admission = Admission(max_bytes=10, max_queue_tokens=1000, throughput=throughput)
    admission.check_tokens(5000, waiting=0)


def test_bytes_are_given_back_also_after_a_refusal(throughput: Throughput) -> None:
    admission = Admission(max_bytes=10, max_queue_tokens=1000, throughput=throughput)
    with admission.hold_bytes() as first:
        first.add(6)
        with pytest.raises(OverloadedError), admission.hold_bytes() as second:
            second.add(4)
            second.add(1)
        with admission.hold_bytes() as third:
            third.add(4)
    with admission.hold_bytes() as whole:
        whole.add(10)


def test_throughput_counts_busy_time_only() -> None:
    now = 0.0
    throughput = Throughput(lambda: now)
    assert throughput.backlog_seconds(100) == 0
    throughput.begin()
    now = 2.0
    throughput.finish(200)
    assert throughput.tokens_per_second == pytest.approx(100)
    now = 1000.0
    throughput.begin()
    now = 1002.0
    throughput.finish(200)
    assert throughput.tokens_per_second == pytest.approx(100)
    assert throughput.backlog_seconds(50) == pytest.approx(0.5)
