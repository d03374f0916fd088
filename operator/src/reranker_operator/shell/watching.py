"""Keeps each of kopf's watches going, whatever the API server answers.

kopf ends all its watches when one of them fails, and this process with them: a namespace that was
deleted, one missing right, a definition that was removed or a moment's trouble of the API server in
one of two hundred watches would stop the work for everybody. Here one that fails is begun anew,
with a fresh list, and the others hear nothing of it.

kopf has a setting for requests that fail (`Backoffs`, which never ends) but none for answers that
it takes for final: 404, 410 as a status, errors that are sent within a watch. For these its stream
of events is wrapped (`persistent`). It is not part of kopf's public API; the project's requirement
keeps kopf to the versions that the tests know.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import Any

import kopf
from kopf._cogs.clients import watching

from reranker_operator.core.backoff import doubled
from reranker_operator.runtime.streams import Stream, Streams

logger = logging.getLogger(__name__)

#: Seconds; of requests, of watches that were refused for good, and of both.
_FIRST_DELAY, _FIRST_PAUSE, _LONGEST_DELAY = 0.1, 1.0, 60.0
#: Seconds; a watch that was good for so long has recovered.
_SHORTEST_WATCH = 30.0
#: Failures of a request in a row that are everyday life: replicas of the API server come and go.
_USUAL_FAILURES = 5
#: The watch that this task is for.
_CURRENT: ContextVar[tuple[Streams, Stream] | None] = ContextVar("watch", default=None)

_Watch = Callable[..., AsyncIterator[Any]]


class Backoffs:
    """Seconds between tries of a request, without an end; kopf iterates anew for every call."""

    def __iter__(self) -> Iterator[float]:
        current = _CURRENT.get()
        for failures in count():
            if current is not None and failures == _USUAL_FAILURES:
                streams, stream = current
                streams.failed(stream, "requests fail, see above")
            yield _jittered(doubled(_FIRST_DELAY, failures, _LONGEST_DELAY))


@contextmanager
def persistent_watches(streams: Streams) -> Iterator[None]:
    """Within, whatever kopf watches is watched until it is cancelled."""
    original = watching.infinite_watch
    watching.infinite_watch = persistent(original, streams)
    try:
        yield
    finally:
        watching.infinite_watch = original


def persistent(
    watch: _Watch, streams: Streams, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> _Watch:
    """`watch`, begun anew when it fails."""

    async def again_and_again(**how: Any) -> AsyncIterator[Any]:
        stream = Stream(how["resource"].plural, how["namespace"] or "")
        _CURRENT.set((streams, stream))
        failures, clock = 0, asyncio.get_running_loop().time
        try:
            while True:
                began = clock()
                try:
                    async for event in watch(**how):
                        streams.works(stream)
                        yield event
                except kopf.LoginError:
                    # Not of one watch: the process ends, and comes back with other credentials.
                    raise
                except Exception as error:
                    streams.failed(stream, str(error) or type(error).__name__)
                failures = 0 if clock() - began >= _SHORTEST_WATCH else failures
                delay = _jittered(doubled(_FIRST_PAUSE, failures, _LONGEST_DELAY))
                failures += 1
                logger.debug("watch of %s: again in %.0f s", stream, delay)
                await sleep(delay)
        finally:
            streams.ended(stream)

    return again_and_again


def _jittered(seconds: float) -> float:
    return seconds * (0.75 + 0.5 * random.random())  # noqa: S311 - jitter, no secret
