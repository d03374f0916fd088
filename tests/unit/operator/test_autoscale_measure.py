"""What is made of samples: sums and rates that no start, restart or gap distorts."""

import math
from collections.abc import Callable
from dataclasses import replace

from reranker_operator.core.autoscale.measure import PodView, Seen, see
from reranker_operator.core.load import PodLoad, Sample

NOW = 1_800_000_000.0
Line = Callable[[float], Sample]


def pod(name: str, *, ready: bool = True, since: float = 600, **more: float) -> PodView:
    return PodView(name, ready, NOW - since - 20, NOW - since, **more)


def load(name: str, line: Line, *, seconds: int = 60, until: float = 0) -> PodLoad:
    """One sample every two seconds; `line` is asked with seconds before now."""
    times = [NOW - until - ago for ago in range(seconds, -1, -2)]
    samples = tuple(line(NOW - at)._replace(at=at) for at in times)
    return PodLoad(name, "serving", "r1", samples)


def steady(rate: float, *, offset: float = 1e6) -> Line:
    def line(ago: float) -> Sample:
        return Sample(
            at=0, arrived_tokens=offset - rate * ago, requests=offset - rate / 100 * ago,
            tokens=offset - rate * ago, busy_seconds=offset - 0.5 * ago,
            tokens_per_second=2 * rate, in_progress=1, backlog_tokens=10,
        )  # fmt: skip

    return line


def seen(pods: list[PodView], loads: list[PodLoad]) -> Seen:
    return see(pods, loads, NOW, start_timeout=1800, revision="r1")


def near(value: float | None, expected: float) -> bool:
    return value is not None and math.isclose(value, expected, rel_tol=1e-6, abs_tol=1e-6)


def test_rates_add_up_over_pods() -> None:
    found = seen([pod("a"), pod("b")], [load("a", steady(100)), load("b", steady(300))])
    assert near(found.arriving, 400)
    assert near(found.arriving_mean, 400)
    assert (found.ready, found.unknown, found.backlog) == (2, 0, 20)
    assert near(found.speed, 400)
    assert found.speed_saturated is None
    assert near(found.at_work, 0.5)


def test_what_a_revision_can_do_is_told_by_enough_of_its_own_work() -> None:
    def working(share: float) -> Line:
        return lambda ago: Sample(
            at=0, tokens=1e6 - 100 * ago, busy_seconds=1e6 - share * ago, tokens_per_second=50
        )

    enough, little = load("a", working(0.8)), load("a", working(0.6))
    found = seen([pod("a")], [enough])
    assert near(found.speed_proven, 125)
    assert near(found.busy_proven, 0.8)
    assert near(found.rate_proven, 100)
    later: Line = lambda ago: working(0.8)(ago)._replace(tokens=1e6 - 100 * min(ago, 25))  # noqa: E731
    assert near(seen([pod("a")], [load("a", later)]).rate_proven, 50)
    assert (found.speed_own, found.speed_saturated) == (50, 50)
    assert seen([pod("a")], [little]).speed_proven is None
    assert seen([pod("a")], [load("a", working(0.8), seconds=20)]).speed_proven is None
    former = seen([pod("a")], [replace(enough, revision="r0")])
    assert (former.speed_own, former.speed_proven) == (None, None)


def test_a_pod_without_news_adds_nothing_to_what_is_known() -> None:
    stale = load("b", steady(100), until=11)
    for loads in ([load("a", steady(100))], [load("a", steady(100)), stale]):
        found = seen([pod("a"), pod("b")], loads)
        assert (found.ready, found.unknown) == (2, 1)
        assert near(found.arriving_mean, 100)


def test_a_pod_that_was_hardly_tried_is_told_apart() -> None:
    def unread(failures: int) -> int:
        return seen([pod("b")], [PodLoad("b", "serving", "r1", (), failures)]).unread

    assert [unread(failures) for failures in range(5)] == [1, 1, 1, 0, 0]
    assert seen([pod("b")], []).unread == 1


def test_a_pod_that_has_just_come_is_no_doubled_load() -> None:
    """The address has shared the same load out for four seconds."""

    def before(ago: float) -> Sample:
        return Sample(at=0, arrived_tokens=1e6 - (50 * min(ago, 4) + 100 * max(0, ago - 4)))

    young = load("b", lambda ago: Sample(at=0, arrived_tokens=50 * (4 - ago)), seconds=4)
    found = seen([pod("a"), pod("b", since=4)], [load("a", before), young])
    assert near(found.arriving, 100)
    assert near(found.arriving_mean, 100)
    assert found.settled == 4


def test_right_after_a_start_nothing_is_said_of_rates() -> None:
    found = seen([pod("a")], [load("a", steady(100), seconds=4)])
    assert (found.arriving, found.arriving_mean, found.quiet) == (None, None, None)
    found = seen([pod("a")], [load("a", steady(100), seconds=6)])
    assert near(found.arriving, 100)


def test_a_process_that_began_anew_has_not_lost_what_it_counted() -> None:
    def line(ago: float) -> Sample:
        if ago > 20:
            return steady(100)(ago)
        return steady(100, offset=2000)(ago)

    found = seen([pod("a")], [load("a", line)])
    assert near(found.arriving, 100)
    assert near(found.arriving_mean, 100)


def test_a_few_large_requests_are_no_larger_load() -> None:
    """In eight seconds one came that is as large as all others of a minute."""

    def line(ago: float) -> Sample:
        return Sample(at=0, arrived_tokens=1e6 - 100 * ago + (6000 if ago <= 3 else 0))

    found = seen([pod("a")], [load("a", line)])
    assert found.arriving is not None
    assert found.arriving < 250
    # And ten times the load is one as soon as the look has nothing else in it.
    tenfold = load("a", lambda ago: Sample(at=0, arrived_tokens=1e6 - 1000 * min(ago, 8)))
    assert near(seen([pod("a")], [tenfold]).arriving, 1000)


def test_only_what_stands_waits() -> None:
    def line(ago: float) -> Sample:
        return Sample(at=0, backlog_tokens=900 if ago % 4 else 100)

    assert seen([pod("a")], [load("a", line)]).backlog == 100


def test_waits_and_refusals_of_the_last_seconds() -> None:
    def line(ago: float) -> Sample:
        done = 1000 - 10 * ago
        buckets = ((0.1, done * 0.9), (1.0, done * 0.9), (4.0, done), (math.inf, done))
        return Sample(at=0, requests=done, refused=done / 20, queue_buckets=buckets)

    found = seen([pod("a")], [load("a", line)])
    assert near(found.refused, 0.05)
    assert near(found.queue_seconds, 2.5)
    few = seen([pod("a")], [load("a", lambda ago: Sample(at=0, requests=100 - ago))])
    assert (few.refused, few.queue_seconds) == (None, None)


def test_quiet_is_when_nothing_came_and_nothing_is_going_on() -> None:
    still = Sample(at=0, arrived_tokens=500, requests=5)
    for last, quiet in [
        (still, True),
        (still._replace(in_progress=1), False),
        (still._replace(backlog_tokens=1), False),
        (still._replace(arrived_tokens=501), False),
        (still._replace(requests=6), False),
    ]:
        line: Line = lambda ago, last=last: last if ago < 1 else still  # type: ignore[misc]  # noqa: E731
        assert seen([pod("a")], [load("a", line)]).quiet is quiet, last


def test_pods_that_start_that_got_stuck_and_that_find_no_node() -> None:
    pods = [
        pod("young", ready=False, since=100),
        pod("old", ready=False, since=1900),
        pod("homeless", ready=False, since=90, no_node_since=NOW - 80),
    ]
    found = seen(pods, [])
    assert (found.unready, found.stuck, found.pending) == (2, 1, 1)
    assert found.pending_since == NOW - 80
    assert found.arriving is None


def test_what_is_held_while_nothing_is_ready() -> None:
    def line(ago: float) -> Sample:
        return Sample(at=0, in_progress=3, backlog_tokens=700, arrived_tokens=1e6 - 100 * ago)

    holds = load("activator", line)
    holds = PodLoad("activator", "activator", None, holds.samples)
    found = seen([pod("a", ready=False, since=5)], [holds])
    assert (found.held, found.backlog, found.unheard) == (3, 700, 0)
    assert near(found.arriving, 100)
    # It counts from the first moment on, unlike what only passes through a pod.
    burst = (Sample(NOW - 1), Sample(NOW, in_progress=64, backlog_tokens=9000))
    assert seen([], [PodLoad("activator", "activator", None, burst)]).backlog == 9000
    # As soon as a pod is ready it counts what it was given itself.
    assert near(seen([pod("a")], [holds, load("a", steady(40))]).arriving, 40)
    gone = PodLoad("activator", "activator", None, holds.samples[:-10])
    assert (seen([], [gone]).held, seen([], [gone]).unheard) == (None, 20)
    assert (seen([], []).held, seen([], []).unheard) == (None, None)


def test_an_activator_that_cannot_be_read_may_hold_something() -> None:
    def activator(name: str, held: float, until: float = 0) -> PodLoad:
        line: Line = lambda _: Sample(at=0, in_progress=held)  # noqa: E731
        return replace(load(name, line, until=until), role="activator")

    idle, stale, never = activator("a", 0), activator("b", 0, 30), PodLoad("b", "activator", None)
    for blind, unheard in [(stale, 30), (never, 0)]:
        found = see([], [idle, blind], NOW, start_timeout=1800)
        assert (found.held, found.unheard) == (None, unheard)
        # What the other one holds is held for certain.
        assert see([], [activator("a", 3), blind], NOW, start_timeout=1800).held == 3
    assert see([], [idle, activator("b", 0)], NOW, start_timeout=1800).held == 0


def test_a_pod_with_more_than_a_second_of_work_is_busy() -> None:
    def line(backlog: float) -> Line:
        return lambda _: Sample(at=0, backlog_tokens=backlog, tokens_per_second=100)

    loads = [load("a", line(90)), load("b", line(110))]
    assert seen([pod("a"), pod("b")], loads).busy == 1


def test_how_long_a_pod_takes_to_start() -> None:
    again = replace(pod("a", since=10), created=NOW - 7200, first=False)
    assert see([again], [], NOW, start_timeout=1800).start_seconds is None
    assert see([again], [], NOW, start_timeout=1800, start=9).start_seconds == 9
    assert see([again, pod("b")], [], NOW, start_timeout=1800).start_seconds == 20
    assert see([pod("b")], [], NOW, start_timeout=1800, start=9).start_seconds == 9
