"""The choice of the next batch, and the padding of it."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker_contracts import ServedModel
from reranker_gateway.assembly import BatchAssembler
from reranker_gateway.batching import BatchLimits, choose_batch

LENGTHS = st.lists(st.integers(1, 512), min_size=1, max_size=80).map(sorted)
LIMITS = st.builds(BatchLimits, max_rows=st.integers(1, 64), token_budget=st.integers(64, 16_384))


def take_alone(waiting: list[int], limits: BatchLimits) -> list[int]:
    """The next batch of a request that is alone."""
    chosen = choose_batch(waiting, range(len(waiting) - 1, -1, -1), limits)
    batch = [waiting[at] for at in chosen]
    for at in reversed(chosen):
        del waiting[at]
    return batch


@given(lengths=LENGTHS, limits=LIMITS, data=st.data())
def test_a_batch_holds_the_leaders_longest_and_keeps_the_limits(
    lengths: list[int], limits: BatchLimits, data: st.DataObject
) -> None:
    own = sorted(data.draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1)), reverse=True)
    chosen = choose_batch(lengths, own, limits)
    batch = [lengths[at] for at in chosen]
    assert own[0] in chosen
    assert chosen == sorted(set(chosen))
    if len(batch) > 1:
        padded = len(batch) * batch[-1]
        assert len(batch) <= limits.max_rows
        assert padded <= limits.token_budget
        assert padded <= max(limits.free_tokens, limits.max_padding_ratio * sum(batch))


@given(lengths=LENGTHS, limits=LIMITS, data=st.data())
def test_others_only_fill_up(lengths: list[int], limits: BatchLimits, data: st.DataObject) -> None:
    """Of its own pairs the leader has at least those of the longest one's length in the batch."""
    own = sorted(data.draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1)), reverse=True)
    chosen = choose_batch(lengths, own, limits)
    longest = lengths[own[0]]
    alike = sum(longest <= 1.05 * lengths[at] for at in own)
    room = max(1, min(limits.max_rows, limits.token_budget // longest))
    assert len(set(own) & set(chosen)) >= min(alike, room)


@given(lengths=LENGTHS, limits=LIMITS)
def test_a_queue_empties(lengths: list[int], limits: BatchLimits) -> None:
    taken = []
    waiting = list(lengths)
    while waiting:
        taken += take_alone(waiting, limits)
    assert sorted(taken) == lengths


@pytest.mark.parametrize("budget", [4096, 8192, 16_384])
def test_mixed_lengths_are_padded_by_less_than_fifteen_percent(budget: int) -> None:
    limits = BatchLimits(max_rows=64, token_budget=budget)
    padded = real = batches = 0
    for seed in range(100):
        chance = random.Random(seed)  # noqa: S311
        waiting = sorted(chance.randint(20, 300) for _ in range(50))
        while waiting:
            batch = take_alone(waiting, limits)
            padded += len(batch) * batch[-1]
            real += sum(batch)
            batches += 1
    assert padded / real <= 1.15
    # A ratio is easy to keep with one pair a batch.
    assert batches / 100 <= 9


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_are_padded_on_the_models_side(model: ServedModel, side: str) -> None:
    assembler = BatchAssembler(model.model_copy(update={"pad_side": side, "pad_id": 7}))
    rows = [np.array(row, dtype=np.int32) for row in ([1, 2, 3], [4], [5, 6])]
    batch = assembler.assemble(rows, rows)
    right = [[1, 2, 3], [4, 7, 7], [5, 6, 7]]
    left = [[1, 2, 3], [7, 7, 4], [7, 5, 6]]
    assert batch.input_ids.tolist() == (right if side == "right" else left)
    assert (batch.input_ids * batch.attention_mask).tolist() == [
        [0 if number == 7 else number for number in row]
        for row in (right if side == "right" else left)
    ]
    assert batch.token_type_ids is not None
    assert batch.token_type_ids.tolist() == (batch.input_ids * batch.attention_mask).tolist()
