"""The samples of one pod: all of the last seconds, fewer of the minute before.

A thousand pods read every two seconds would otherwise take a hundred megabytes. Rates over a long
time need its ends only.
"""

from bisect import bisect_left
from operator import attrgetter

from reranker_operator.core.load import Sample

_KEPT_SECONDS = 66.0
#: Everything that is younger stays.
_FINE_SECONDS = 12.0
#: Seconds between older ones, at least.
_GAP_SECONDS = 5.0
_MOST = 64

_at = attrgetter("at")


class History:
    """Ascending by time."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: list[Sample] = []

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Oldest first."""
        return tuple(self._samples)

    def add(self, sample: Sample) -> None:
        """A clock that was put back makes what was before worthless."""
        samples = self._samples
        if samples and samples[-1].at >= sample.at:
            samples.clear()
        if samples:
            sample = sample._replace(queue_buckets=_shared(samples[-1], sample))
        samples.append(sample)
        edge = bisect_left(samples, sample.at - _FINE_SECONDS, key=_at)
        while edge >= 2 and samples[edge - 1].at - samples[edge - 2].at < _GAP_SECONDS:
            edge -= 1
            del samples[edge]
        old = bisect_left(samples, sample.at - _KEPT_SECONDS, key=_at)
        del samples[: max(old, len(samples) - _MOST)]


def _shared(before: Sample, after: Sample) -> tuple[tuple[float, float], ...]:
    """The later one's buckets, without a second copy of what has not changed."""
    old, new = before.queue_buckets, after.queue_buckets
    if old == new:
        return old
    if len(old) != len(new):
        return new
    return tuple(mine if mine == theirs else theirs for mine, theirs in zip(old, new, strict=True))
