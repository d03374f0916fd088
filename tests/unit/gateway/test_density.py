"""What is foretold of texts that were not tokenised yet."""

from hypothesis import given
from hypothesis import strategies as st

from reranker_gateway.density import Density


def test_nothing_is_foretold_before_something_was_seen() -> None:
    assert Density(512).foretell("query", ["passage"]) == 0


def test_the_lower_end_is_foretold_and_the_longest_input_is_the_most() -> None:
    density = Density(100)
    density.learn("qq", ["x" * 18], 10)
    density.learn("qq", ["x" * 18], 5)
    assert density.foretell("", ["x" * 40, "x" * 20]) == 15
    assert density.foretell("x" * 20, ["x" * 20] * 3) == 30
    assert density.foretell("", ["x" * 10_000]) == 100


def test_it_goes_up_again() -> None:
    density = Density(100)
    density.learn("", [" " * 64], 0)
    assert density.foretell("", ["x" * 64]) == 2
    for _ in range(200):
        density.learn("", ["x" * 64], 32)
    assert density.foretell("", ["x" * 64]) == 32


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_equal_traffic_is_never_foretold_more_than_it_has(tokens: list[int]) -> None:
    density = Density(512)
    for count in tokens:
        density.learn("", ["x" * 100], count)
        assert density.foretell("", ["x" * 100]) <= max(count, 3)
