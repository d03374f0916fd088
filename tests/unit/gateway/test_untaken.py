"""Which answers are given up when clients take none."""

from dataclasses import dataclass

import pytest

from reranker_gateway.untaken import Untaken


@dataclass(eq=False)
class Client:
    left: int = 0
    given_up: bool = False

    def lying(self) -> int:
        return self.left

    def give_up(self) -> None:
        self.left, self.given_up = 0, True


def send(untaken: Untaken, client: Client, count: int, *, left: int) -> None:
    """Write so much, of which `left` bytes stay here."""
    with untaken.sending(client, count):
        client.left = left


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def untaken(now: list[float]) -> Untaken:
    return Untaken(100, lambda: now[0])


def test_those_that_occupy_most_are_given_up(untaken: Untaken, now: list[float]) -> None:
    early, large, small, last = (Client() for _ in range(4))
    send(untaken, early, 20, left=20)
    now[0] += 1
    # All of it, as long as some of it is left.
    send(untaken, large, 60, left=1)
    send(untaken, small, 10, left=10)
    now[0] += 9
    send(untaken, last, 50, left=0)
    assert [one.given_up for one in (early, large, small, last)] == [False, True, False, False]
    assert untaken.held == 30
    send(untaken, last, 90, left=90)
    assert [early.given_up, small.given_up] == [True, False]
    assert untaken.held == 100


def test_what_was_taken_makes_room_though_nobody_tells(untaken: Untaken, now: list[float]) -> None:
    taken, other = Client(), Client()
    send(untaken, taken, 90, left=90)
    now[0] += 10
    taken.left = 0
    send(untaken, other, 90, left=90)
    assert not taken.given_up
    assert untaken.held == 90
    # Its time counts from the new answer.
    send(untaken, taken, 10, left=10)
    now[0] += 1
    send(untaken, Client(), 10, left=10)
    assert [taken.given_up, other.given_up] == [False, True]


def test_whoever_is_alone_is_never_given_up(untaken: Untaken) -> None:
    alone = Client()
    send(untaken, alone, 200, left=150)
    assert not alone.given_up
    untaken.forget(alone)
    assert untaken.held == 0


def test_one_that_waits_to_be_written_counts_beside_one_that_lies_there(untaken: Untaken) -> None:
    client = Client()
    send(untaken, client, 10, left=10)
    with untaken.sending(client, 80):
        assert untaken.held == 90
        client.left = 80
    assert untaken.held == 80


def test_pieces_that_were_taken_do_not_add_up(untaken: Untaken) -> None:
    client = Client()
    for _ in range(100):
        send(untaken, client, 10, left=10)
    assert untaken.held == 10
