"""The measures of parity, with failures that a stage can report."""

from collections.abc import Sequence

from engine_builder.errors import defect
from reranker_contracts import ParityReport, StageReason, parity
from reranker_contracts.parity import ProbeSet


def compare(
    probes: ProbeSet, reference: Sequence[float], runs: Sequence[Sequence[float]]
) -> ParityReport:
    """As `reranker_contracts.parity.compare`; scores that are not numbers are ValidationFailed."""
    try:
        return parity.compare(probes, reference, runs)
    except parity.NotComparableError as error:
        raise defect(StageReason.VALIDATION_FAILED, str(error)) from error
