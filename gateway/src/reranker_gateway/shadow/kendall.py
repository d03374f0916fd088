"""Kendall's tau-b of two lists of scores of the same passages.

Source: M. G. Kendall, "The treatment of ties in ranking problems", Biometrika 33(3), 1945.
"""

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating[Any]]

#: Work grows with the square; of more passages so many are looked at, evenly spread.
MOST_PASSAGES: Final = 512


def tau_b(one: Scores, other: Scores) -> float | None:
    """From -1 (the opposite order) to 1 (the same); None where `one` tells no two passages apart.

    Where only `other` tells none apart, it has lost all order: 0. Scores are numbers or infinite,
    as many of each.
    """
    if len(one) > MOST_PASSAGES:
        chosen = np.linspace(0, len(one) - 1, MOST_PASSAGES).astype(np.intp)
        one, other = one[chosen], other[chosen]
    left, right = _order(one), _order(other)
    # Each pair is in there twice, which is all the same for a quotient.
    by_one, by_other = int(np.count_nonzero(left)), int(np.count_nonzero(right))
    if by_one == 0:
        return None
    if by_other == 0:
        return 0.0
    return float(np.sum(left * right, dtype=np.int64)) / math.sqrt(by_one * by_other)


def _order(scores: Scores) -> npt.NDArray[np.int8]:
    """For each two passages 1 where the first is better, -1 where the second is, 0 for a tie."""
    # By places: differences of infinite scores are no numbers.
    _, places = np.unique(scores, return_inverse=True)
    order: npt.NDArray[np.int8] = np.sign(places[:, None] - places[None, :]).astype(np.int8)
    return order
