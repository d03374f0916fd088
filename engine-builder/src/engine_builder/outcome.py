"""What a stage that went well has to say."""

from dataclasses import dataclass

from reranker_contracts import ParityReport, ResolvedModel, Shapes, StageReason


@dataclass(frozen=True)
class Outcome:
    """Becomes the StageResult; `message` is for people."""

    message: str
    resolved: ResolvedModel | None = None
    parity: ParityReport | None = None
    shapes: Shapes | None = None
    size_bytes: int | None = None
    reason: StageReason = StageReason.SUCCEEDED
