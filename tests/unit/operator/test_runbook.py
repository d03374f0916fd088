"""Every reason of the API is in the runbook, and the runbook has no others."""

import re
from pathlib import Path

from reranker_contracts import StageReason
from reranker_operator.api.conditions import Reason

_RUNBOOK = Path(__file__).resolve().parents[3] / "docs/runbook.md"


def test_the_runbook_has_one_entry_for_each_reason() -> None:
    entries = re.findall(r"^### (\S+)$", _RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(entries) == len(set(entries))
    assert set(entries) == {entry.value for entry in (*Reason, *StageReason)}
