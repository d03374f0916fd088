"""What engines are built for, one module per runtime behind one protocol (`base`)."""

from engine_builder.targets.base import Built, Scorer, TargetBuilder
from engine_builder.targets.registry import builder_of

__all__ = ["Built", "Scorer", "TargetBuilder", "builder_of"]
