"""The pairs of all requests: told apart by what the engine would see, scored once while they wait.

    Job (a request) ──claims──▶ Pair (one row of a batch) ◀──claims── Job (another request)

Two requests with the same query and the same passage want the same row. It is in the queue or in
the engine once, and its score goes to everybody who has a claim on it. Who goes gives up their
claims; a pair that nobody claims any more leaves the queue.
"""

import asyncio
import hashlib
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from reranker_gateway.engine import FloatArray
from reranker_gateway.tokenise import IntArray, TokenisedRequest

_KEY_BYTES = 16
#: Told apart from 0, an absent one.
_NO_TYPES = b""


class PairKeys:
    """Hashes of engine inputs, under the engine's digest: other weights, other keys."""

    def __init__(self, engine_digest: str) -> None:
        self._start = hashlib.blake2b(digest_size=_KEY_BYTES, key=bytes.fromhex(engine_digest))

    def of(self, inputs: TokenisedRequest) -> list[bytes]:
        """One key for each input. Equal ids of other types are another pair."""
        types: Iterator[bytes] = (
            (_NO_TYPES for _ in inputs.ids)
            if inputs.types is None
            else (row.tobytes() for row in inputs.types)
        )
        return [
            self._key(ids.tobytes(), kinds) for ids, kinds in zip(inputs.ids, types, strict=True)
        ]

    def _key(self, ids: bytes, types: bytes) -> bytes:
        state = self._start.copy()
        # Both are of the same length, so the end of the one is known without a mark.
        state.update(ids)
        state.update(types)
        return state.digest()


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

    __slots__ = ("arrival", "caller", "claims", "ids", "key", "length", "types")

    def __init__(
        self, key: bytes, ids: IntArray, types: IntArray | None, arrival: int, caller: str
    ) -> None:
        self.key = key
        self.ids = ids
        self.types = types
        self.length = len(ids)
        #: A number of its own, ascending in the order of arrival.
        self.arrival = arrival
        #: In whose share it counts: of whoever brought it.
        self.caller = caller
        #: Who gets the score, and at which place.
        self.claims: list[tuple[Job, int]] = []

    @property
    def jobs(self) -> set[Job]:
        """Everybody with a claim."""
        return {job for job, _ in self.claims}


def _arrival(pair: Pair) -> int:
    return pair.arrival


def _place(pair: Pair) -> tuple[int, int]:
    return pair.length, pair.arrival


class PairQueue:
    """Pairs that wait, by length, and those in flight, for whoever wants the same."""

    def __init__(self, keys: PairKeys) -> None:
        self._keys = keys
        # Two lists in step, ascending by length; pairs of one length in the order of arrival.
        self.lengths: list[int] = []
        self._pairs: list[Pair] = []
        self._known: dict[bytes, Pair] = {}
        self._waiting: set[Pair] = set()
        self._arrivals = 0
        self.tokens = 0
        #: The same by caller.
        self.callers: Counter[str] = Counter()
        #: Rows that were not added because the same one was there.
        self.shared = 0

    def __len__(self) -> int:
        return len(self._pairs)

    def add(
        self, job: Job, inputs: TokenisedRequest, known: Callable[[bytes], float | None]
    ) -> None:
        """Claim every row of `inputs` for `job`; `known` may have scores of former pairs."""
        mine: set[Pair] = set()
        for index, key in enumerate(self._keys.of(inputs)):
            score = known(key)
            if score is not None:
                job.answer(index, score)
                continue
            pair = self._known.get(key)
            if pair is None:
                types = None if inputs.types is None else inputs.types[index]
                pair = self._insert(Pair(key, inputs.ids[index], types, self._arrivals, job.caller))
            else:
                self.shared += 1
            pair.claims.append((job, index))
            if pair in self._waiting:
                mine.add(pair)
        job.waiting = sorted(mine, key=_place)

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
            self._waiting -= left
            self._pairs = [pair for pair in self._pairs if pair not in left]
            self.lengths = [pair.length for pair in self._pairs]

    def positions(self, job: Job) -> Iterator[int]:
        """Where the pairs of `job` lie in the queue, longest first."""
        for pair in reversed(job.waiting):
            first = bisect_left(self.lengths, pair.length)
            last = bisect_right(self.lengths, pair.length)
            yield bisect_left(self._pairs, pair.arrival, first, last, key=_arrival)

    def take(self, chosen: Sequence[int]) -> list[Pair]:
        """Out of the queue and into flight: the pairs at `chosen`, ascending."""
        batch = [self._pairs[at] for at in chosen]
        for at in reversed(chosen):
            del self._pairs[at], self.lengths[at]
        for pair in batch:
            self._uncount(pair)
        taken = set(batch)
        self._waiting -= taken
        for job in {job for pair in batch for job, _ in pair.claims}:
            job.waiting = [pair for pair in job.waiting if pair not in taken]
        return batch

    def landed(self, batch: Sequence[Pair]) -> None:
        """These are no longer in flight: whoever wants the same from now on asks anew."""
        for pair in batch:
            del self._known[pair.key]

    def _insert(self, pair: Pair) -> Pair:
        self._arrivals += 1
        at = bisect_right(self.lengths, pair.length)
        self.lengths.insert(at, pair.length)
        self._pairs.insert(at, pair)
        self._known[pair.key] = pair
        self._waiting.add(pair)
        self.tokens += pair.length
        self.callers[pair.caller] += pair.length
        return pair

    def _uncount(self, pair: Pair) -> None:
        self.tokens -= pair.length
        self.callers[pair.caller] -= pair.length
        if not self.callers[pair.caller]:
            del self.callers[pair.caller]
