"""Where an artefact comes from: what the manifest tells beside the identity, for people to trace.

Nothing here is part of the digest: the same identity built twice has other times.
"""

import datetime

from pydantic import Field

from reranker_contracts.base import Document
from reranker_contracts.identity import PrepareIdentity


class StageTiming(Document):
    """One stage of the build, as its container ran it."""

    stage: str = Field(pattern=r"^[a-z][a-z-]{0,31}$")
    started_at: datetime.datetime
    seconds: float = Field(ge=0)


class BuildRecord(Document):
    """Source, builder and stages of an artefact; of an engine also its prepared model's."""

    source: str | None = Field(default=None, max_length=4096, description="URI, without secrets")
    revision: str | None = Field(default=None, max_length=256, description="that was fetched")
    adapter: str | None = Field(
        default=None, max_length=4096, description="URI of the LoRA adapter that is merged in"
    )
    adapter_revision: str | None = Field(default=None, max_length=256, description="the same of it")
    prepared: PrepareIdentity | None = Field(
        default=None, description="of an engine: what its prepared model was made from"
    )
    python: str | None = Field(default=None, max_length=64, description="version of Python")
    builder_image: str | None = Field(
        default=None, max_length=1024, description="as the Job names it, with its digest if pinned"
    )
    stages: tuple[StageTiming, ...] = Field(default=(), max_length=32)
