"""Names of the gateway's metrics that the operator decides by, in Prometheus' text format.

The gateway counts them, the operator scrapes them from each pod; a name that only one of the two
knew would never be missed.
"""

from typing import Final

#: 1 while the pod's readiness probe says yes.
READY: Final = "reranker_ready"
#: Tokens of ranking requests that came in, admitted or refused for want of room. What needs no
#: engine, since it is in the cache or waits already, is no work and not among them.
ARRIVED_TOKENS: Final = "reranker_arrived_tokens_total"
#: Tokens that went through the engine, padding not counted.
TOKENS: Final = "reranker_tokens_total"
#: Seconds in which the engine had work.
BUSY_SECONDS: Final = "reranker_busy_seconds_total"
#: Tokens that wait or are in the engine.
BACKLOG_TOKENS: Final = "reranker_backlog_tokens"
#: Tokens per busy second, recent mean; from the warm-up before the first request.
TOKENS_PER_SECOND: Final = "reranker_tokens_per_second"
#: Ranking requests in progress.
IN_PROGRESS: Final = "reranker_requests_in_progress"
#: Ranking requests answered, by `dialect` and `code`.
REQUESTS: Final = "reranker_requests_total"
#: Those answered with 5xx, but for what a pod that is starting or draining turned away.
FAILED: Final = "reranker_failed_requests_total"
#: Seconds that requests waited for the engine: buckets of a histogram with `stage="queue"`.
STAGE_SECONDS: Final = "reranker_stage_duration_seconds"
#: Requests that an activator holds while no pod serves.
HELD: Final = "reranker_held_requests"
#: Bytes of the bodies of requests in progress, of an activator: it has no tokenizer.
HELD_BYTES: Final = "reranker_held_bytes"
#: Requests that were chosen to be compared with the revision on its way, by `result`.
SHADOW_REQUESTS: Final = "reranker_shadow_requests_total"
#: Kendall's tau of the scores of those that were compared, by the other `revision`: a summary.
SHADOW_TAU: Final = "reranker_shadow_kendall_tau"

#: What the operator asks a pod for: `/metrics?name[]=…`. Who can't choose answers with everything.
OF_LOAD: Final = (
    *(READY, ARRIVED_TOKENS, TOKENS, BUSY_SECONDS, BACKLOG_TOKENS, TOKENS_PER_SECOND),
    *(IN_PROGRESS, REQUESTS, FAILED, f"{STAGE_SECONDS}_bucket", HELD, HELD_BYTES),
    *(SHADOW_REQUESTS, f"{SHADOW_TAU}_count", f"{SHADOW_TAU}_sum"),
)
