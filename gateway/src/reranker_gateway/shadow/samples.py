"""The requests that were chosen to be compared: a few, of bounded size, until they are done.

One is chosen once its texts are known, since they are forgotten after that, and is offered when its
answer has been made. What is chosen and finds no room is dropped.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

from reranker_gateway.api.dialects.base import Question
from reranker_gateway.clock import Clock
from reranker_gateway.engine import FloatArray
from reranker_gateway.request_context import LongPassages, current_request

#: Requests that are held at a time, those included that are being answered or compared.
MOST_HELD: Final = 16
#: Characters of one request's texts, and of all that are held.
LONGEST: Final = 1 << 20
MOST_CHARACTERS: Final = 4 << 20


@dataclass(slots=True)
class Sample:
    """One request; `logits` are what it was answered with, in the order of its passages."""

    question: Question
    characters: int
    long_passages: LongPassages | None
    logits: FloatArray | None = None


class Samples:
    """Chooses and holds them."""

    def __init__(
        self,
        percent: float,
        clock: Clock,
        *,
        is_open: Callable[[], bool] = lambda: True,
        on_drop: Callable[[], None] = lambda: None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`percent` of the requests are chosen while `is_open`; `draw` gives numbers below 1."""
        self._share = percent / 100
        self._clock = clock
        self._is_open = is_open
        self._on_drop = on_drop
        self._draw = draw
        self._held = 0
        self._characters = 0
        self._waiting: asyncio.Queue[Sample] = asyncio.Queue()
        self._closed_until = float("-inf")

    def take(self, question: Question) -> Sample | None:
        """Hold its texts, if it is chosen and there is room."""
        if self._draw() >= self._share or self.resting or not self._is_open():
            return None
        # Of several queries each has an order of its own; one may be there once for each passage.
        if len(set(question.queries)) != 1 or len(question.passages) < 2:
            return None
        question = replace(question, queries=question.queries[:1])
        characters = len(question.queries[0]) + sum(map(len, question.passages))
        if characters > LONGEST:
            return None
        if self._held >= MOST_HELD or self._characters + characters > MOST_CHARACTERS:
            self._on_drop()
            return None
        self._held += 1
        self._characters += characters
        return Sample(question, characters, current_request().long_passages)

    def offer(self, sample: Sample) -> None:
        """It was answered, and waits to be compared."""
        self._waiting.put_nowait(sample)

    async def next(self) -> Sample:
        """The one that has waited longest; `done` is due for it."""
        return await self._waiting.get()

    def done(self, sample: Sample) -> None:
        """It is not needed any more."""
        self._held -= 1
        self._characters -= sample.characters

    @property
    def resting(self) -> bool:
        """None is chosen at the moment."""
        return self._clock() < self._closed_until

    def rest(self, seconds: float) -> None:
        """Choose none for so long, or for what is left of a longer rest."""
        self._closed_until = max(self._closed_until, self._clock() + seconds)


class Sampling:
    """A context for one request: what was taken and not answered is let go at its end.

    Without samples nothing is ever taken.
    """

    def __init__(self, samples: Samples | None) -> None:
        self._samples = samples
        self._sample: Sample | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._samples is not None and self._sample is not None:
            self._samples.done(self._sample)

    def take(self, question: Question) -> None:
        """The request's texts are known; hold them where it is chosen."""
        if self._samples is not None:
            self._sample = self._samples.take(question)

    def answered(self, logits: FloatArray) -> None:
        """Its answer is made; compare it later, where it was chosen."""
        sample, self._sample = self._sample, None
        if self._samples is not None and sample is not None:
            sample.logits = logits
            self._samples.offer(sample)
