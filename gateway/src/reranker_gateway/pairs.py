"""The pairs of all requests: told apart by what the engine would see, scored once while they wait.

    Job (a request) ──claims──▶ Pair (one row of a batch) ◀──claims── Job (another request)

Two requests with the same query and the same passage want the same row. It is in the queue or in
the engine once, and its score goes to everybody who has a claim on it. Who goes gives up their
claims; a pair that nobody claims any more leaves the queue.
"""

import asyncio
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter

import numpy as np

from reranker_gateway.engine import FloatArray
from reranker_gateway.tokenise import IntArray, TokenisedRequest

#: Of a pair's place in the queue, its number takes so many bits and its length the ones above.
_NUMBER_BITS = 48


def pair_keys(inputs: TokenisedRequest) -> list[bytes]:
    """What the engine would see of each input: ids, then types, which are as many."""
    if inputs.types is None:
        return [ids.tobytes() for ids in inputs.ids]
    return [
        ids.tobytes() + types.tobytes() for ids, types in zip(inputs.ids, inputs.types, strict=True)
    ]


class Job:
    """One request: the results so far, and who waits for them."""

    __slots__ = ("caller", "done", "results", "submitted", "taken", "unanswered", "waiting")

    def __init__(
        self, rows: int, done: "asyncio.Future[FloatArray]", submitted: float, caller: str
    ) -> None:
        self.caller = caller
        self.done = done
        self.submitted = submitted
        #: When its last pair left the queue.
        self.taken = math.inf
        self.results: FloatArray = np.empty(rows, dtype=np.float32)
        self.unanswered = rows
        #: Its pairs that are in the queue, as there ascending by length and arrival.
        self.waiting: list[Pair] = []

    def answer(self, index: int, score: float) -> None:
        """The score of one row; the last one ends the wait."""
        self.results[index] = score
        self.unanswered -= 1
        if self.unanswered == 0 and not self.done.done():
            self.done.set_result(self.results)


class Pair:
    """One row, waiting or in flight."""

    __slots__ = ("caller", "claims", "ids", "key", "length", "place", "types", "waiting")

    def __init__(
        self, key: bytes, ids: IntArray, types: IntArray | None, number: int, caller: str
    ) -> None:
        self.key = key
        self.ids = ids
        self.types = types
        self.length = len(ids)
        #: Ascending by length, and of one length in the order of arrival; no other's is the same.
        self.place = self.length << _NUMBER_BITS | number
        self.waiting = True
        #: In whose share it counts: of whoever brought it.
        self.caller = caller
        #: Who gets the score, and at which place.
        self.claims: list[tuple[Job, int]] = []


_place = attrgetter("place")


class PairQueue:
    """Pairs that wait, by length, and those in flight, for whoever wants the same."""

    def __init__(self) -> None:
        # Three lists in step, ascending by place.
        self.lengths: list[int] = []
        self._places: list[int] = []
        self._pairs: list[Pair] = []
        self._known: dict[bytes, Pair] = {}
        self._number = 0
        self.tokens = 0
        #: Of pairs in flight.
        self.tokens_in_flight = 0
        #: Of all pairs that were ever added.
        self.tokens_added = 0
        #: The waiting ones by caller.
        self.callers: Counter[str] = Counter()
        #: Rows that were not added because the same one was there.
        self.shared = 0

    def __len__(self) -> int:
        return len(self._pairs)

    def add(
        self, job: Job, inputs: TokenisedRequest, known: Callable[[bytes], float | None]
    ) -> None:
        """Claim every row of `inputs` for `job`; `known` may have scores of former pairs."""
        mine: list[Pair] = []
        twice = False
        for index, key in enumerate(pair_keys(inputs)):
            score = known(key)
            if score is not None:
                job.answer(index, score)
                continue
            pair = self._known.get(key)
            if pair is None:
                types = None if inputs.types is None else inputs.types[index]
                pair = self._insert(Pair(key, inputs.ids[index], types, self._number, job.caller))
            else:
                self.shared += 1
                twice = True
            pair.claims.append((job, index))
            if pair.waiting:
                mine.append(pair)
        job.waiting = sorted(set(mine) if twice else mine, key=_place)

    def drop(self, job: Job) -> None:
        """Give up the job's claims on what waits."""
        left = set()
        for pair in job.waiting:
            pair.claims = [claim for claim in pair.claims if claim[0] is not job]
            if not pair.claims:
                left.add(pair)
                del self._known[pair.key]
                self._uncount(pair)
        job.waiting = []
        if left:
            self._pairs = [pair for pair in self._pairs if pair not in left]
            self._places = [pair.place for pair in self._pairs]
            self.lengths = [pair.length for pair in self._pairs]

    def positions(self, job: Job) -> Iterator[int]:
        """Where the pairs of `job` lie in the queue, longest first."""
        places = self._places
        return (bisect_left(places, pair.place) for pair in reversed(job.waiting))

    def take(self, chosen: Sequence[int]) -> tuple[list[Pair], set[Job]]:
        """Out of the queue and into flight: pairs at `chosen`, ascending, and who wants them."""
        batch = [self._pairs[at] for at in chosen]
        # Mostly neighbours, which go in one piece.
        for first, last in _runs(chosen):
            del self._pairs[first:last], self._places[first:last], self.lengths[first:last]
        jobs = set()
        for pair in batch:
            pair.waiting = False
            self._uncount(pair)
            self.tokens_in_flight += pair.length
            for job, _ in pair.claims:
                jobs.add(job)
        for job in jobs:
            job.waiting = [pair for pair in job.waiting if pair.waiting]
        return batch, jobs

    def landed(self, batch: Sequence[Pair]) -> None:
        """These are no longer in flight: whoever wants the same from now on asks anew."""
        for pair in batch:
            del self._known[pair.key]
            self.tokens_in_flight -= pair.length

    def _insert(self, pair: Pair) -> Pair:
        self._number += 1
        at = bisect_left(self._places, pair.place)
        self.lengths.insert(at, pair.length)
        self._places.insert(at, pair.place)
        self._pairs.insert(at, pair)
        self._known[pair.key] = pair
        self.tokens += pair.length
        self.tokens_added += pair.length
        self.callers[pair.caller] += pair.length
        return pair

    def _uncount(self, pair: Pair) -> None:
        self.tokens -= pair.length
        self.callers[pair.caller] -= pair.length
        if not self.callers[pair.caller]:
            del self.callers[pair.caller]


def _runs(ascending: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and one past the last of each unbroken run, the last run first."""
    end = len(ascending)
    while end:
        begin = end - 1
        while begin and ascending[begin - 1] == ascending[begin] - 1:
            begin -= 1
        yield ascending[begin], ascending[end - 1] + 1
        end = begin
