"""The parts of a running gateway, put together once."""

import time
from dataclasses import dataclass

from reranker_contracts import metrics as names
from reranker_gateway.admission import Admission
from reranker_gateway.api_keys import ApiKeys
from reranker_gateway.batching import BatchLimits
from reranker_gateway.callers import Callers
from reranker_gateway.clock import Clock
from reranker_gateway.drain import Drain, Phase
from reranker_gateway.engine import Engine
from reranker_gateway.engine_files import EngineFiles
from reranker_gateway.readiness import Readiness, WarmUp
from reranker_gateway.scheduler import Scheduler
from reranker_gateway.score_cache import ScoreCache
from reranker_gateway.scoring import Scorer
from reranker_gateway.settings import Settings
from reranker_gateway.shadow.preview import PATH, Preview
from reranker_gateway.shadow.proof import Secrets
from reranker_gateway.shadow.samples import Samples
from reranker_gateway.shadow.sender import Sender
from reranker_gateway.shadow.telemetry import ShadowTelemetry
from reranker_gateway.telemetry import Telemetry
from reranker_gateway.throughput import Throughput
from reranker_gateway.tokenise import PairTokeniser
from reranker_gateway.tracing import Tracing

#: Bodies in progress may together hold this many times the largest single body.
_BODIES = 2
#: Small bodies have this many bytes for themselves.
_SMALL_BYTES = 4 << 20
#: Of the work for comparison; no key or caller has this name.
_SHADOW_SHARE = "(shadow)"


@dataclass(frozen=True)
class Gateway:
    """What the API and the server need."""

    settings: Settings
    files: EngineFiles
    engine: Engine
    tokeniser: PairTokeniser
    admission: Admission
    scorer: Scorer
    readiness: Readiness
    drain: Drain
    telemetry: Telemetry
    callers: Callers
    tracing: Tracing | None
    #: Both None where no scores are compared with those of another revision.
    samples: Samples | None = None
    sender: Sender | None = None

    @property
    def served_name(self) -> str:
        """The model id that callers use."""
        return self.settings.served_name or self.files.model.name


def build_gateway(
    settings: Settings,
    files: EngineFiles,
    engine: Engine,
    clock: Clock = time.monotonic,
    tracing: Tracing | None = None,
) -> Gateway:
    """Wire the parts. Needs a running event loop. Raises ApiKeysError."""
    keys = ApiKeys(settings.api_keys_dir, clock) if settings.api_keys_dir else None
    telemetry = Telemetry()
    throughput = Throughput(clock)
    limits = BatchLimits(
        max_rows=files.shapes.max_batch_size,
        token_budget=files.token_budget(settings.token_budget),
    )
    tokeniser = PairTokeniser(
        files.tokenizer,
        files.model,
        files.max_length,
        settings.tokenizer_threads,
        on_work=telemetry.tokenise_cpu.inc,
    )
    warm_up = WarmUp(
        engine=engine,
        model=files.model,
        max_length=files.max_length,
        limits=limits,
        throughput=throughput,
        clock=clock,
    )
    readiness = Readiness(engine, warm_up, clock=clock, patience=settings.engine_patience_seconds)
    drain = Drain(
        delay_seconds=settings.drain_delay_seconds, timeout_seconds=settings.drain_timeout_seconds
    )
    scheduler = Scheduler(
        engine=engine,
        model=files.model,
        limits=limits,
        cache=ScoreCache(
            settings.score_cache_entries, files.manifest.digest, telemetry.cache_lookups
        ),
        throughput=throughput,
        telemetry=telemetry,
        clock=clock,
        on_failure=readiness.suspect,
        engine_works=readiness.engine_works,
    )
    admission = Admission(
        max_bytes=_BODIES * settings.max_body_bytes,
        small_bytes=_SMALL_BYTES,
        # The other half is for uploads and for answers that need no work.
        max_requests=max(1, settings.max_connections // 2),
        max_queue_tokens=settings.max_queue_tokens,
        throughput=throughput,
        clock=clock,
    )
    _watch(telemetry, scheduler, throughput, readiness, drain)
    scorer = Scorer(
        tokeniser=tokeniser,
        admission=admission,
        scheduler=scheduler,
        readiness=readiness,
        drain=drain,
        telemetry=telemetry,
        clock=clock,
        long_passages=settings.long_passages,
    )
    own = {} if settings.shadow_url is None else {PATH: _SHADOW_SHARE}
    callers = Callers(keys, settings.caller_header, own)
    samples, sender = _shadow(settings, telemetry, drain, clock) or (None, None)
    return Gateway(
        settings=settings,
        files=files,
        engine=engine,
        tokeniser=tokeniser,
        admission=admission,
        scorer=scorer,
        readiness=readiness,
        drain=drain,
        telemetry=telemetry,
        callers=callers,
        tracing=tracing,
        samples=samples,
        sender=sender,
    )


def _shadow(
    settings: Settings, telemetry: Telemetry, drain: Drain, clock: Clock
) -> tuple[Samples, Sender] | None:
    """Where scores are compared with those of the revision on its way."""
    if settings.shadow_url is None:
        return None
    counts = ShadowTelemetry(telemetry.registry)
    samples = Samples(
        settings.shadow_percent,
        clock,
        is_open=lambda: drain.phase is Phase.SERVING,
        on_drop=lambda: counts.ended("dropped"),
    )
    preview = Preview(
        settings.shadow_url,
        settings.revision,
        tls_dir=settings.tls_dir,
        secrets=Secrets(settings.api_keys_dir, settings.shadow_identity),
    )
    return samples, Sender(samples, preview, counts, settings.revision)


def _watch(
    telemetry: Telemetry,
    scheduler: Scheduler,
    throughput: Throughput,
    readiness: Readiness,
    drain: Drain,
) -> None:
    telemetry.watch(
        "reranker_queue_tokens", "Tokens waiting", lambda: float(scheduler.waiting_tokens)
    )
    telemetry.watch(
        names.BACKLOG_TOKENS,
        "Tokens waiting or in the engine, padding not counted",
        lambda: float(scheduler.backlog_tokens),
    )
    telemetry.watch_counter(
        names.BUSY_SECONDS, "Time in which the engine had work", lambda: throughput.busy_seconds
    )
    telemetry.watch(
        "reranker_backlog_seconds",
        "Time to work off the waiting tokens at the measured rate",
        lambda: throughput.backlog_seconds(scheduler.waiting_tokens),
    )
    telemetry.watch(
        names.TOKENS_PER_SECOND,
        "Tokens per second while busy, recent mean",
        lambda: throughput.tokens_per_second,
    )
    telemetry.watch(names.READY, "1 when ready", lambda: float(readiness.ready))
    telemetry.watch(names.IN_PROGRESS, "Ranking requests in progress", lambda: float(drain.active))
