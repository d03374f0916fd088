"""Retries follow from status and the clock alone."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker_contracts import StageReason
from reranker_operator.api.v1alpha1 import Attempts
from reranker_operator.core import backoff


def test_pauses_double_up_to_ten_minutes() -> None:
    pauses = [backoff.delay_after(failures) for failures in range(1, 9)]
    assert pauses == [10, 20, 40, 80, 160, 320, 600, 600]


@given(st.integers(0, 10**9))
def test_any_number_of_failures_has_a_pause(failures: int) -> None:
    assert 10 <= backoff.delay_after(failures) <= backoff.delay_after(failures + 1) <= 600


def test_the_pause_counts_from_the_last_failure(now: datetime.datetime) -> None:
    attempts = Attempts(key="build")
    assert backoff.seconds_until_retry(attempts, now) == 0
    for pause in (10, 20):
        attempts = backoff.failed(attempts, StageReason.STORE_FULL, "x" * 5000, now)
        later = now + datetime.timedelta(seconds=4)
        assert backoff.seconds_until_retry(attempts, later) == pause - 4
    assert (attempts.failures, len(attempts.message or "")) == (2, 1024)


def test_a_failure_of_the_future_holds_nothing_up(now: datetime.datetime) -> None:
    """The former leader's clock was ahead by an hour."""
    ahead = now + datetime.timedelta(hours=1)
    attempts = backoff.failed(Attempts(key="build"), StageReason.STORE_FULL, "", ahead)
    assert backoff.seconds_until_retry(attempts, now) == 0
    assert backoff.pause_left(attempts, now) == 0
    again = backoff.failed(attempts, StageReason.STORE_FULL, "", now)
    assert backoff.seconds_until_retry(again, now) == 20


@pytest.mark.parametrize("reason", sorted(backoff.PERMANENT))
def test_permanent_failures_are_never_tried_again(reason: str, now: datetime.datetime) -> None:
    attempts = backoff.failed(Attempts(key="build"), reason, "", now)
    assert backoff.seconds_until_retry(attempts, now + datetime.timedelta(days=365)) is None


def test_what_time_may_mend_is_not_permanent() -> None:
    mendable = {
        StageReason.SOURCE_UNREACHABLE,
        StageReason.SOURCE_UNAUTHORIZED,
        StageReason.SOURCE_NOT_FOUND,
        StageReason.CHECKSUM_MISMATCH,
        StageReason.STORE_FULL,
        StageReason.STORE_UNWRITABLE,
        StageReason.INTERNAL_ERROR,
    }
    assert not mendable & backoff.PERMANENT
