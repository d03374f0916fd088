"""What is foretold of texts that were not tokenised yet."""

from hypothesis import given
from hypothesis import strategies as st

from reranker_gateway.density import Density


def test_nothing_is_foretold_before_something_was_seen() -> None:
    assert Density(512).foretell("query", ["passage"]) == 0


def test_the_lower_end_is_foretold_and_the_longest_input_is_the_most() -> None:
    density = Density(100)
    density.learn("q" * 200, ["x" * 1800], [1000])
    density.learn("q" * 200, ["x" * 1800], [500])
    assert density.foretell("", ["x" * 40, "x" * 20]) == 15
    assert density.foretell("x" * 20, ["x" * 20] * 3) == 30
    assert density.foretell("", ["x" * 10_000]) == 100


def test_what_an_input_has_beside_its_texts_is_not_of_their_length() -> None:
    density = Density(10_000, own=3)
    density.learn("q", ["x"] * 600, [5] * 600)
    assert density.foretell("", ["x" * 500] * 2) == 2 * (3 + 500)


def test_nothing_is_learnt_from_a_few_words() -> None:
    density = Density(512)
    density.learn("q", ["x" * 500], [501])
    assert density.foretell("query", ["passage"]) == 0


def test_it_goes_up_again() -> None:
    density = Density(100)
    density.learn("", [" " * 6400], [0])
    assert density.foretell("", ["x" * 64]) == 2
    for _ in range(200):
        density.learn("", ["x" * 6400], [3200])
    assert density.foretell("", ["x" * 64]) == 32


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_equal_traffic_is_never_foretold_more_than_it_has(tokens: list[int]) -> None:
    density = Density(512)
    for count in tokens:
        density.learn("", ["x" * 100] * 10, [count] * 10)
        assert density.foretell("", ["x" * 100]) <= max(count, 3)
