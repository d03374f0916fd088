"""Sends samples to the revision that is on its way, and compares its scores with those here.

Most of the time there is no such revision: then a single sample is tried every few seconds, and
only where there are requests.
"""

import asyncio
import logging
from typing import Final

from reranker_gateway.logs import log_event
from reranker_gateway.shadow.kendall import tau_b
from reranker_gateway.shadow.preview import AbsentError, Preview, PreviewError, UnprovenError
from reranker_gateway.shadow.samples import Sample, Samples
from reranker_gateway.shadow.telemetry import ShadowTelemetry

#: Requests in flight.
_WORKERS: Final = 2
#: Seconds for one of them, from the first byte to the last.
_PATIENCE: Final = 30.0
#: Seconds until somebody is looked for again.
_PAUSE: Final = 5.0
#: The same where the address leads to pods of this very revision, as after each rollout, or to
#: somebody else.
_LONG_PAUSE: Final = 30.0
#: The same where live requests wait there.
_SHORT_PAUSE: Final = 1.0
#: The request can't be scored there; the next one may be.
_OF_THE_REQUEST: Final = frozenset({400, 422})
#: It is more than the other revision's settings allow, which is no fault of its scores.
_NOT_ALLOWED: Final = frozenset({413, 415})
_CONFLICT: Final = 409
_BUSY: Final = 429
_log = logging.getLogger(__name__)


class Sender:
    """Works samples off, until cancelled."""

    def __init__(
        self,
        samples: Samples,
        preview: Preview,
        telemetry: ShadowTelemetry,
        revision: str,
        *,
        patience: float = _PATIENCE,
    ) -> None:
        """`revision` is that of this process; `patience` is in seconds, for one request."""
        self._samples = samples
        self._preview = preview
        self._telemetry = telemetry
        self._revision = revision
        self._patience = patience
        self._told_stranger = False

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as workers:
            for _ in range(_WORKERS):
                workers.create_task(self._work())

    async def _work(self) -> None:
        while True:
            sample = await self._samples.next()
            try:
                if self._samples.resting:
                    self._telemetry.ended("dropped")
                else:
                    await self._compare(sample)
            except Exception:
                # A defect here is nobody's failed request.
                self._telemetry.ended("failed")
                self._samples.rest(_LONG_PAUSE)
                _log.exception("internal error while scores were compared")
            finally:
                self._samples.done(sample)

    async def _compare(self, sample: Sample) -> None:
        assert sample.logits is not None  # noqa: S101 - offered with them
        try:
            async with asyncio.timeout(self._patience):
                revision, found = await self._preview.score(sample)
        except TimeoutError:
            self._failed(f"no answer within {self._patience:g} s")
            return
        except PreviewError as error:
            self._not_scored(error)
            return
        self._told_stranger = False
        if revision == self._revision:
            self._samples.rest(_LONG_PAUSE)
            return
        tau = await asyncio.to_thread(tau_b, sample.logits, found)
        if tau is None:
            self._telemetry.ended("skipped")
        else:
            self._telemetry.compared(revision, tau)

    def _not_scored(self, error: PreviewError) -> None:
        if isinstance(error, AbsentError):
            self._samples.rest(_PAUSE)
        elif isinstance(error, UnprovenError):
            self._stranger(error)
        elif error.status == _CONFLICT:
            self._samples.rest(_LONG_PAUSE)
        elif error.status == _BUSY:
            self._telemetry.ended("dropped")
            self._samples.rest(_SHORT_PAUSE)
        elif error.status in _NOT_ALLOWED:
            self._telemetry.ended("skipped")
        else:
            self._failed(str(error), rests=error.status not in _OF_THE_REQUEST)

    def _stranger(self, error: UnprovenError) -> None:
        """Told once, until somebody has proven who it is."""
        if error.is_failure:
            self._telemetry.ended("failed")
        self._samples.rest(_LONG_PAUSE)
        if not self._told_stranger:
            self._told_stranger = True
            log_event(
                _log,
                "no request is sent to be compared: who answers has not proven to be a pod of this "
                "service; see where the preview's address leads, and that both have the same keys",
                reason=str(error),
            )

    def _failed(self, why: str, *, rests: bool = True) -> None:
        self._telemetry.ended("failed")
        if rests:
            # So often at most is it told, too.
            self._samples.rest(_PAUSE)
            log_event(_log, "shadow request failed", reason=why)
