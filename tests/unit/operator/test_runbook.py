"""Every reason of the API is in the runbook, and the runbook has no others."""

import re
import subprocess
import sys
from pathlib import Path

from reranker_contracts import StageReason
from reranker_operator.api.conditions import Condition, Reason, is_failure
from reranker_operator.core.backoff import PERMANENT

_ROOT = Path(__file__).resolve().parents[3]
_RUNBOOK = (_ROOT / "docs/runbook.md").read_text(encoding="utf-8")
#: Not tried again either, but by other rules than failed attempts.
_NOT_TRIED = {
    Reason.ABORTED, Reason.INVALID_SPEC, Reason.NAMESPACE_TERMINATING, Reason.ROLLED_BACK,
    Reason.UNKNOWN_SOURCE,
}  # fmt: skip


def test_the_runbook_has_one_entry_for_each_reason() -> None:
    entries = re.findall(r"^### (\S+)$", _RUNBOOK, re.MULTILINE)
    assert len(entries) == len(set(entries))
    assert set(entries) == {entry.value for entry in (*Reason, *StageReason)}


def test_what_is_not_tried_again_is_marked() -> None:
    marked = re.findall(r"^### (\S+)\n\*Permanent\.\*", _RUNBOOK, re.MULTILINE)
    assert set(marked) == PERMANENT | {reason.value for reason in _NOT_TRIED}


def test_warnings_are_about_what_there_is_something_to_do_about() -> None:
    section = _RUNBOOK.partition("## Nothing to do\n")[2].partition("\n## ")[0]
    quiet = set(re.findall(r"^### (\S+)$", section, re.MULTILINE))
    # Somebody's attempt failed; it is only not known why.
    quiet.remove(Reason.RETRYING)
    for reason in (*Reason, *StageReason):
        entry = Condition(type="Progressing", status="False", reason=reason.value)
        assert is_failure(entry) == (reason.value not in quiet), reason
        assert not is_failure(entry.model_copy(update={"status": "True"}))


def test_the_table_is_that_of_the_entries() -> None:
    command = [sys.executable, str(_ROOT / "hack/runbook-table"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
