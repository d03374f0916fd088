"""The two internal steps behind every dialect: texts to tokens, tokens to scores."""

from dataclasses import dataclass

import numpy as np

from reranker_gateway.admission import Admission
from reranker_gateway.clock import Clock
from reranker_gateway.density import Density
from reranker_gateway.drain import Drain, Phase
from reranker_gateway.engine import FloatArray
from reranker_gateway.errors import NotReadyError, OverloadedError
from reranker_gateway.readiness import Readiness
from reranker_gateway.request_context import LongPassages, Stage, current_request
from reranker_gateway.scheduler import Scheduler
from reranker_gateway.telemetry import Telemetry
from reranker_gateway.tokenise import MOST_WINDOWS, PairTokeniser, TokenisedRequest, Truncate


@dataclass(frozen=True, slots=True)
class Scores:
    """Raw logits of the passages in the caller's order, and the tokens that they took."""

    logits: FloatArray
    tokens: int


class Scorer:
    """Validated texts to scores."""

    def __init__(
        self,
        *,
        tokeniser: PairTokeniser,
        admission: Admission,
        scheduler: Scheduler,
        readiness: Readiness,
        drain: Drain,
        telemetry: Telemetry,
        clock: Clock,
        long_passages: LongPassages = "cut",
    ) -> None:
        self._tokeniser = tokeniser
        self._density = Density(tokeniser.max_length, tokeniser.own_tokens)
        self._admission = admission
        self._scheduler = scheduler
        self._readiness = readiness
        self._drain = drain
        self._telemetry = telemetry
        self._clock = clock
        self._long_passages = long_passages

    def check_open(self) -> None:
        """Raises NotReadyError while no work is taken; called before a body is read."""
        current_request().turned_away = True
        if self._drain.phase is Phase.CLOSED:
            raise NotReadyError("the server is shutting down; retry on another replica")
        if not self._readiness.ready:
            raise NotReadyError("the engine is not ready; retry in a moment")
        current_request().turned_away = False

    @property
    def busy(self) -> bool:
        """Work waits: what is asked now makes others wait longer."""
        return self._scheduler.waiting_tokens > 0

    async def tokenise(
        self,
        query: str,
        passages: list[str],
        truncate: Truncate,
        passage_tokens: int | None = None,
        *,
        most_windows: int = MOST_WINDOWS,
    ) -> TokenisedRequest:
        """Engine inputs of every passage with the query.

        Raises InvalidRequestError, and OverloadedError when there will be no room for them.
        """
        self._admission.check_tokens(
            self._density.foretell(query, passages), self._scheduler.waiting_by_caller, about=True
        )
        started = self._clock()
        asked = current_request().long_passages or self._long_passages
        inputs = await self._tokeniser.run(
            query, passages, truncate, passage_tokens, asked, most_windows=most_windows
        )
        ended = self._clock()
        if not inputs.truncated:
            self._density.learn(query, passages, inputs.lengths)
        self._telemetry.tokenise_seconds.observe(ended - started)
        current_request().stages.append(Stage("tokenise", started, ended))
        return inputs

    async def score(self, inputs: TokenisedRequest) -> Scores:
        """Score every input.

        Raises OverloadedError, EngineError. Cancelling drops the work that has not reached the
        engine.
        """
        request = current_request()
        request.passages, request.tokens = inputs.passages, inputs.tokens
        request.truncated = inputs.truncated
        try:
            self._admission.check_tokens(inputs.tokens, self._scheduler.waiting_by_caller)
        except OverloadedError:
            self._telemetry.arrived(inputs.tokens)
            raise
        self._telemetry.truncated.inc(inputs.truncated)
        rows = await self._scheduler.run(inputs, request.caller)
        logits = _of_passages(rows, inputs)
        self._telemetry.passages.inc(len(logits))
        self._telemetry.windows.inc(inputs.extra_windows)
        return Scores(logits, inputs.tokens)


def _of_passages(rows: FloatArray, inputs: TokenisedRequest) -> FloatArray:
    """The best score of each passage's inputs."""
    if inputs.owners is None:
        return rows
    logits: FloatArray = np.full(inputs.passages, -np.inf, dtype=np.float32)
    np.maximum.at(logits, inputs.owners, rows)
    return logits
