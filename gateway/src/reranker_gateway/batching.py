"""Which waiting pairs go into the next batch: a pure choice over their lengths.

An engine pads every row of a batch to the longest one, and padding is computed like text. So a
batch holds pairs of about one length: first those of the request that leads, from its longest
down, then the nearest of all others, as long as there is room.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: A batch may hold this many padded tokens per real one: 1.12 keeps the mean of mixed traffic
#: (20 to 300 tokens, 50 passages a request) at 1.11. Lower values make many small batches.
MAX_PADDING_RATIO = 1.12
#: The leader's own pairs go together only within this ratio while others can fill the batch: wider
#: would pad where many wait and batches of one length are to be had, narrower make more of them.
_OWN_PADDING_RATIO = 1.05
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

    def allow(
        self, rows: int, longest: int, real: int, max_padding_ratio: float | None = None
    ) -> bool:
        """Whether a batch of several rows with `real` tokens in all is within the limits."""
        padded = rows * longest
        ratio = max_padding_ratio or self.max_padding_ratio
        return (
            rows <= self.max_rows
            and padded <= self.token_budget
            and (padded <= self.free_tokens or padded <= ratio * real)
        )


def choose_batch(lengths: Sequence[int], own: Iterable[int], limits: BatchLimits) -> list[int]:
    """Positions in `lengths` (ascending) that go next, in ascending order.

    `own` are the leader's positions, longest first; the first one always goes. A pair that alone is
    over the budget goes alone.
    """
    positions = iter(own)
    anchor = next(positions)
    longest = real = lengths[anchor]
    chosen = {anchor}
    # As `limits.allow`, which is called for every pair that others wait for, too: for the leader's
    # own the longest is known, and with it how many rows there may be.
    most = min(limits.max_rows, limits.token_budget // longest)
    for at in positions:
        rows, tokens = len(chosen) + 1, real + lengths[at]
        padded = rows * longest
        if rows > most or (padded > limits.free_tokens and padded > _OWN_PADDING_RATIO * tokens):
            break
        chosen.add(at)
        real = tokens
    # Whoever comes next fills up: always the one that adds least padding, until nothing more fits.
    below, above = anchor - 1, anchor + 1
    while True:
        while below in chosen:
            below -= 1
        rows = len(chosen)
        fits_below = below >= 0 and limits.allow(rows + 1, longest, real + lengths[below])
        fits_above = above < len(lengths) and limits.allow(
            rows + 1, lengths[above], real + lengths[above]
        )
        if fits_below and fits_above:
            fits_below = longest - lengths[below] <= (lengths[above] - longest) * rows
        if not fits_below and not fits_above:
            return sorted(chosen)
        at = below if fits_below else above
        chosen.add(at)
        longest = max(longest, lengths[at])
        real += lengths[at]
        if not fits_below:
            above += 1
