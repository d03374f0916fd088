"""Batches of validation: complete, in order, and within what an engine takes."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from engine_builder.batches import within_budget
from engine_builder.shapes import profiled_shapes


@given(
    st.lists(st.integers(1, 512), min_size=1, max_size=80),
    st.integers(1, 64),
    st.randoms(use_true_random=False),
)
def test_each_batch_fits_a_profile_of_the_engine(
    lengths: list[int], rows: int, random: Random
) -> None:
    shapes = profiled_shapes(512, rows)
    order = list(range(len(lengths)))
    random.shuffle(order)
    found = list(within_budget(order, lengths, size=min(32, rows), tokens=shapes.token_budget))
    assert [row for batch in found for row in batch] == order
    for batch in found:
        longest = max(lengths[row] for row in batch)
        profile = next(entry for entry in shapes.profiles if longest <= entry.max_length)
        assert len(batch) <= profile.max_batch_size


def test_batches_are_as_large_as_they_may_be() -> None:
    lengths = [10] * 10 + [100] * 3
    assert list(map(len, within_budget(range(13), lengths, size=8, tokens=200))) == [8, 2, 2, 1]
