"""The number of pods, decided by the operator from what the pods' metrics say of their work."""

import datetime

from pydantic import Field

from reranker_operator.api.meta import ApiModel


class AutoscalingSpec(ApiModel):
    """The operator decides the number of pods; `spec.replicas` is not looked at meanwhile."""

    min: int = Field(
        default=1,
        ge=0,
        le=1000,
        description="Fewest pods. 0 lets an idle service have none: what comes then is held until "
        "the first pod is there.",
    )
    max: int = Field(ge=1, le=1000, description="Most pods.")
    target_backlog_seconds: float = Field(
        default=2.0,
        ge=0.1,
        le=600,
        description="Seconds in which work that waits should be done. Requests of which one in "
        "twenty waits longer get more pods.",
    )
    target_utilization_percent: int = Field(
        default=70,
        ge=10,
        le=95,
        description="How busy pods should be, in percent of the tokens per second that one was "
        "measured to do. The rest is there for what comes in bursts and while pods start.",
    )
    scale_down_delay_seconds: int = Field(
        default=300,
        ge=0,
        le=3600,
        description="Seconds for which fewer pods must have been enough before pods go.",
    )
    idle_seconds: int = Field(
        default=600,
        ge=60,
        le=86400,
        description="Seconds without any request before the last pods go, with `min` 0.",
    )
    scale_up_limit_percent: int = Field(
        default=900,
        ge=10,
        le=100000,
        description="Pods that may be added within a minute, in percent of those before; four may "
        "be in any case.",
    )
    scale_down_limit_percent: int = Field(
        default=50,
        ge=1,
        le=100,
        description="Pods that may be taken away within a minute, in percent of those before; one "
        "may be in any case.",
    )
    start_timeout_seconds: int = Field(
        default=1800,
        ge=60,
        le=86400,
        description="Seconds after which a pod that is not ready no longer keeps others from being "
        "taken away. Until then nothing is taken while a pod starts, for it would be that one.",
    )


class RecentNeed(ApiModel):
    """So many pods were needed until then, and fewer since."""

    replicas: int = Field(description="Pods that were needed.")
    time: datetime.datetime = Field(description="When they were needed last.")


class AutoscalingStatus(ApiModel):
    """The number of pods that was decided, why, and what the next decision builds on.

    Numbers are those of the last decision that was worth writing down, rounded to two digits.
    """

    desired: int = Field(description="Pods to have.")
    reason: str = Field(description="Why, in one word; the condition Autoscaled has it too.")
    why: str = Field(description="Why, in a sentence.")
    time: datetime.datetime = Field(description="When this was written down.")
    arriving_tokens_per_second: float | None = Field(
        default=None, description="Tokens per second of requests that came in, refused ones too."
    )
    backlog_tokens: float | None = Field(
        default=None, description="Tokens that waited for some time, in all pods."
    )
    tokens_per_second: float | None = Field(
        default=None, description="Tokens per second that one pod was measured to do."
    )
    measured_on: str | None = Field(
        default=None, description="Revision on which that was measured."
    )
    ready_pods: int = Field(default=0, description="Pods that answered.")
    unknown_pods: int = Field(
        default=0, description="Those of them whose metrics could not be read."
    )
    starting_pods: int = Field(default=0, description="Pods that were asked for and not ready.")
    pending_pods: int = Field(default=0, description="Those of them for which no node had room.")
    held_requests: int = Field(default=0, description="Requests held while no pod answers.")
    queue_seconds: float | None = Field(
        default=None, description="Seconds that nineteen of twenty requests waited at most."
    )
    refused_percent: float | None = Field(
        default=None, description="Requests refused with 429, in percent."
    )
    start_seconds: float | None = Field(
        default=None, description="Seconds that a pod took to get ready."
    )
    changed_time: datetime.datetime | None = Field(
        default=None, description="When `desired` was last another number."
    )
    period_from: int | None = Field(
        default=None, description="Pods at the beginning of the minute that limits count in."
    )
    period_time: datetime.datetime | None = Field(
        default=None, description="When that minute began."
    )
    recent: tuple[RecentNeed, ...] = Field(
        default=(), description="Greater needs within scaleDownDelaySeconds, greatest first."
    )
    idle_since: datetime.datetime | None = Field(
        default=None, description="Since when no request came; only where `min` is 0."
    )
    blind_since: datetime.datetime | None = Field(
        default=None, description="Since when it can't be seen whether requests are held."
    )


class IgnoredScale(ApiModel):
    """Somebody else wrote `spec.replicas`, which is not looked at."""

    replicas: int = Field(description="The number in spec.replicas.")
    by: str | None = Field(default=None, description="Who wrote it, where that is recorded.")
    times: int = Field(default=0, description="How often it was changed lately.")
    time: datetime.datetime | None = Field(default=None, description="When it was changed last.")
