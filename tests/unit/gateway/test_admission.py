"""Bounds on bytes and tokens, and the advice when to come back."""

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker_gateway.admission import Admission
from reranker_gateway.errors import OverloadedError
from reranker_gateway.request_context import RequestContext, request_context
from reranker_gateway.shares import Shares
from reranker_gateway.throughput import Throughput

Make = Callable[..., Any]
MIB = 1 << 20


@pytest.fixture
def throughput() -> Throughput:
    """100 tokens per second."""
    measured = Throughput(itertools.count().__next__)
    measured.seed(1000, 10.0)
    return measured


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def admission_of(throughput: Throughput, now: list[float]) -> Make:
    def build(**bounds: int) -> Admission:
        usual = {"max_bytes": 10, "small_bytes": 0, "max_requests": 10, "max_queue_tokens": 1000}
        return Admission(**usual | bounds, throughput=throughput, clock=lambda: now[0])

    return build


def test_retry_after_is_the_time_until_there_is_room(admission_of: Make) -> None:
    admission = admission_of()
    admission.check_tokens(300, {"": 700})
    with pytest.raises(OverloadedError) as caught:
        admission.check_tokens(600, {"": 900})
    assert caught.value.retry_after == 5
    # The one before comes again, too.
    with pytest.raises(OverloadedError) as caught:
        admission.check_tokens(1, {"": 1000})
    assert caught.value.retry_after == 7
    admission.check_tokens(100, {"": 900})
    with pytest.raises(OverloadedError) as caught:
        admission.check_tokens(1, {"": 1000})
    assert caught.value.retry_after == 1


def test_a_request_over_the_bound_is_served_when_nothing_waits(admission_of: Make) -> None:
    admission_of().check_tokens(5000, {})


def test_bytes_are_given_back_also_after_a_refusal(admission_of: Make) -> None:
    admission = admission_of(max_bytes=10)
    with admission.enter() as first:
        first.add(6)
        with pytest.raises(OverloadedError), admission.enter() as second:
            second.add(4)
            second.add(1)
        with admission.enter() as third:
            third.add(4)
            third.tokenised()
            with admission.enter() as fourth:
                fourth.add(4)
    with admission.enter() as whole:
        whole.add(10)


@pytest.mark.parametrize(
    ("held", "seconds", "asked", "makes_room"),
    [
        (8 * MIB, 0.1, 1 * MIB, False),  # as large as others, and fast
        (8 * MIB, 0.1, 1000, True),  # large, for a small one
        (8 * MIB, 5.0, 1 * MIB, True),  # slow
        (100_000, 5.0, 8 * MIB, True),  # slow, and small itself
        (100_000, 0.1, 8 * MIB, False),
    ],
)
def test_uploads_that_make_room(
    admission_of: Make, now: list[float], held: int, seconds: float, asked: int, makes_room: bool
) -> None:
    admission = admission_of(max_bytes=max(held, asked))
    interrupted = []
    with admission.enter() as upload, admission.enter() as complete:
        upload.on_giving_way(lambda: interrupted.append(upload))
        upload.add(held - 1)
        complete.add(1)
        complete.arrived()
        now[0] += seconds
        with admission.enter() as other:
            if makes_room:
                other.add(asked - 1)
                # What is complete stays, however long it is there.
                with pytest.raises(OverloadedError, match=f"hold {asked} bytes"):
                    other.add(max(held, asked))
                with pytest.raises(OverloadedError, match="make room"):
                    upload.add(1)
            else:
                with pytest.raises(OverloadedError):
                    other.add(asked)
        assert interrupted == [upload] * makes_room


def test_the_one_that_occupies_most_makes_room(admission_of: Make, now: list[float]) -> None:
    admission = admission_of(max_bytes=100)
    with admission.enter() as early, admission.enter() as large, admission.enter() as late:
        early.add(20)
        large.add(60)
        late.add(20)
        now[0] += 60
        with admission.enter() as other:
            other.add(30)
            assert [one.gave_way for one in (early, large, late)] == [False, True, False]


def test_small_bodies_have_a_reserve(admission_of: Make) -> None:
    admission = admission_of(max_bytes=MIB, small_bytes=1000)
    with admission.enter() as complete, admission.enter() as small, admission.enter() as large:
        complete.add(MIB)
        complete.arrived()
        small.add(600)
        with pytest.raises(OverloadedError, match=f"at most {MIB};"):
            large.add(MIB // 2)
        large.add(400)
        with pytest.raises(OverloadedError, match=f"at most {MIB + 1000};"):
            small.add(1)


def test_requests_in_progress_are_bounded(admission_of: Make) -> None:
    admission = admission_of(max_requests=1)
    for _ in range(2):
        with admission.enter() as first, admission.enter() as second:
            first.arrived()
            with pytest.raises(OverloadedError, match="1 requests are in progress"):
                second.arrived()


def test_whoever_has_little_gets_in_beside_one_who_has_filled_the_queue(
    admission_of: Make,
) -> None:
    admission = admission_of()
    greedy = {"greedy": 1000}
    with request_context(RequestContext(caller="greedy")):
        admission.check_tokens(300, {"greedy": 700})
        with pytest.raises(OverloadedError, match="1000 of this caller, of at most 1000"):
            admission.check_tokens(1, greedy)
    with request_context(RequestContext(caller="modest")):
        admission.check_tokens(100, greedy)
        with pytest.raises(OverloadedError) as caught:
            admission.check_tokens(200, greedy)
        # 100 tokens of the others have to go: then 200 may come in beside 900.
        assert caught.value.retry_after == 1


def test_a_giant_that_came_into_an_empty_queue_keeps_nobody_out(admission_of: Make) -> None:
    admission = admission_of(max_queue_tokens=2000)
    giant = {"a": 6144}
    with request_context(RequestContext(caller="b")):
        admission.check_tokens(5, giant)
        with pytest.raises(OverloadedError, match="the queue holds 6144 tokens, 0 of this caller"):
            admission.check_tokens(300, giant)
    with request_context(RequestContext(caller="a")):
        with pytest.raises(OverloadedError, match="6144 of this caller, of at most 2000") as caught:
            admission.check_tokens(5, giant)
        # 4144 tokens above the bound have to go first, and then some, at 100 a second, and the 300
        # that were refused before come again.
        assert caught.value.retry_after == 45
    with request_context(RequestContext(caller="c")), pytest.raises(OverloadedError):
        admission.check_tokens(5, giant | {"b": 250})


def test_greedy_callers_end_up_with_equal_parts() -> None:
    shares = Shares(1000)
    for _ in range(2000):
        for caller in ("a", "b", "c"):
            if shares.deficit(caller, 1) <= 0:
                shares.take(caller, 1)
    assert shares.total <= 1125
    assert max(map(shares.of, "abc")) - min(map(shares.of, "abc")) <= 1
    shares.give_back("a", shares.of("a"))
    assert shares.of("a") == 0
    assert shares.deficit("a", 300) <= 0


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 60)), max_size=80))
def test_the_deficit_is_what_must_become_free(asked: list[tuple[str, int]]) -> None:
    shares = Shares(100)
    for caller, more in asked:
        missing = shares.deficit(caller, more)
        if missing <= 0:
            shares.take(caller, more)
            continue
        # Free as much, of each in proportion: then there is room, or all of it was not enough.
        total, own = shares.total, shares.of(caller)
        left = max(total - missing, 0)
        if left:
            assert shares.deficit_beside(int(own * left / total), left, more) <= 1
    assert shares.total <= 113


def test_requests_in_progress_are_shared_out(admission_of: Make) -> None:
    admission = admission_of(max_requests=16)
    with ExitStack() as stack:

        def arrive(caller: str) -> None:
            with request_context(RequestContext(caller=caller)):
                entry = stack.enter_context(admission.enter())
            entry.arrived()

        for _ in range(16):
            arrive("greedy")
        with pytest.raises(OverloadedError, match="16 of this caller"):
            arrive("greedy")
        arrive("modest")


@pytest.mark.parametrize("size", [250_000, 1 * MIB])
def test_bytes_are_shared_out(admission_of: Make, size: int) -> None:
    admission = admission_of(max_bytes=32 * MIB, small_bytes=4 * MIB, max_requests=1000)
    with ExitStack() as stack:

        def upload(caller: str, count: int) -> None:
            with request_context(RequestContext(caller=caller)):
                entry = stack.enter_context(admission.enter())
            entry.add(count)
            entry.arrived()

        with pytest.raises(OverloadedError, match=r"bytes, \d{8} of this caller"):
            while True:
                upload("greedy", size)
        assert admission.held_bytes > 31 * MIB
        # Small and large ones of somebody else.
        upload("modest", 50_000)
        upload("modest", 3 * MIB)
    assert admission.held_bytes == 0


def test_an_upload_that_grows_out_of_the_reserve_counts_once(admission_of: Make) -> None:
    admission = admission_of(max_bytes=MIB, small_bytes=MIB)
    with admission.enter() as large:
        large.add(MIB)
        with admission.enter() as growing:
            growing.add(200_000)
            with pytest.raises(OverloadedError):
                growing.add(200_000)
            assert (growing.held, admission.held_bytes) == (200_000, MIB + 200_000)
            large.tokenised()
            growing.add(200_000)
            assert (growing.held, admission.held_bytes) == (400_000, 400_000)
    assert admission.held_bytes == 0


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
