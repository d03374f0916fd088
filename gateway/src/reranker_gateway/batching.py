"""Which waiting pairs go into the next batch: a pure choice over their lengths.

An engine pads every row of a batch to the longest one, and padding is computed like text. So a
batch is a run of neighbours in the order of length, grown around the pair that has waited longest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

#: A batch may hold this many padded tokens per real one: 1.12 keeps the mean of mixed traffic
#: (20 to 300 tokens, 50 passages a request) at 1.11. Lower values make many small batches.
MAX_PADDING_RATIO = 1.12
#: Batches under this share of the token budget may be padded freely: they cost a call, not compute.
_FREE_SHARE = 32


@dataclass(frozen=True)
class BatchLimits:
    """What one batch may be."""

    max_rows: int
    #: Rows x longest row, in tokens.
    token_budget: int
    max_padding_ratio: float = MAX_PADDING_RATIO

    @property
    def free_tokens(self) -> int:
        """Padded tokens up to which the padding ratio does not matter."""
        return self.token_budget // _FREE_SHARE

    def allow(self, rows: int, longest: int, real: int) -> bool:
        """Whether a batch of several rows with `real` tokens in all is within the limits."""
        padded = rows * longest
        return (
            rows <= self.max_rows
            and padded <= self.token_budget
            and (padded <= self.free_tokens or padded <= self.max_padding_ratio * real)
        )


def choose_batch(lengths: Sequence[int], oldest: int, limits: BatchLimits) -> slice:
    """The run of `lengths` (ascending) that goes next; it always holds position `oldest`.

    Grows by the neighbour that adds least padding until nothing more fits. A pair that alone is
    over the budget goes alone.
    """
    first = last = oldest
    longest = real = lengths[oldest]
    while True:
        rows = last - first + 1
        fits_below = first > 0 and limits.allow(rows + 1, longest, real + lengths[first - 1])
        fits_above = last + 1 < len(lengths) and limits.allow(
            rows + 1, lengths[last + 1], real + lengths[last + 1]
        )
        if fits_below and fits_above:
            fits_below = longest - lengths[first - 1] <= (lengths[last + 1] - longest) * rows
        if fits_below:
            first -= 1
            real += lengths[first]
        elif fits_above:
            last += 1
            longest = lengths[last]
            real += longest
        else:
            return slice(first, last + 1)
