"""How a changed service gets to new pods, and what is remembered of it."""

import datetime
from typing import Literal

from pydantic import Field

from reranker_operator.api.autoscaling import IgnoredScale
from reranker_operator.api.meta import ApiModel


class RolloutSpec(ApiModel):
    """How running pods are replaced when something about them changes."""

    strategy: Literal["surge", "noSurge"] = Field(
        default="surge",
        description=(
            "surge starts all new pods beside the old ones and needs room for both; the address "
            "moves when all are ready, so no request fails. noSurge never asks for more pods than "
            "`replicas`: one old pod goes, and only when it is gone a new one comes; meanwhile "
            "both revisions answer. With one replica nothing answers in between."
        ),
    )
    paused: bool = Field(
        default=False,
        description=(
            "Hold back whatever would change running pods: edits of the spec and upgrades of the "
            "operator. `status.pendingChanges` says what waits. `replicas`, damaged files, lost "
            "pods and changes by others are still looked after."
        ),
    )
    history: int = Field(
        default=5, ge=0, le=50, description="Former revisions to keep on record in status.history."
    )
    progress_deadline_seconds: int = Field(
        default=600,
        ge=30,
        le=86400,
        description=(
            "Seconds without another ready pod after which a new revision counts as stuck: "
            "Progressing is False then. The old one serves on, and the new one is still tried."
        ),
    )


class RevisionRecord(ApiModel):
    """A revision that has got the traffic."""

    revision: str = Field(description="Hash of what runs.")
    engine: str = Field(description="Name of the engine that it serves.")
    time: datetime.datetime = Field(description="When all its pods were ready.")
    why: str = Field(default="", description="What was changed to get to it.")


class RolloutProgress(ApiModel):
    """A revision on its way to the traffic; the deadline is counted from `since`."""

    revision: str = Field(description="Hash of what is to run.")
    since: datetime.datetime = Field(description="When it was begun or last got further.")
    asked: int = Field(default=0, description="Pods that it was given so far.")
    ready: int = Field(default=0, description="The most of its pods that were ready.")
    why: str = Field(default="", description="What was changed to get to it.")


class ColdStart(ApiModel):
    """How long a pod took from being asked for to ready, in seconds, each right to one second."""

    pod: str = Field(description="Name of the pod.")
    time: datetime.datetime = Field(description="When it was ready.")
    seconds: float = Field(description="All of it.")
    schedule: float = Field(description="Until a node was found.")
    prepare: float = Field(description="Images and volumes.")
    verify: float = Field(description="Check of the engine's files.")
    load: float = Field(description="Triton and the engine.")
    warm_up: float = Field(description="The gateway and the first batches.")


class Contest(ApiModel):
    """Somebody scales a Deployment of ours, and each time it is put back."""

    by: str = Field(description="Field manager that wrote the number.")
    deployment: str = Field(description="Name of the Deployment.")
    replicas: int = Field(description="The number that it wrote.")
    times: int = Field(default=1, description="How often it was put back.")
    time: datetime.datetime = Field(description="When it was put back last.")


class ScaleStatus(ApiModel):
    """The number of pods that is aimed at, and where it comes from."""

    replicas: int = Field(description="Pods to aim at.")
    set_by: str | None = Field(
        default=None,
        description="Field managers that own spec.replicas; none where it is not recorded.",
    )
    owner: str | None = Field(
        default=None,
        description="Who decides: autoscaling, HorizontalPodAutoscaler, KEDA, kubectl, or the "
        "field manager of a manifest; none where it is not recorded.",
    )
    ignored: IgnoredScale | None = Field(
        default=None, description="What spec.replicas says while spec.autoscaling decides."
    )
    contest: Contest | None = Field(default=None, description="Who scales a Deployment instead.")
