"""remove: deletes artefacts that nobody refers to any more."""

from collections.abc import Sequence
from pathlib import Path

from engine_builder.errors import write_failure
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress, human_size
from engine_builder.store import Store


def remove(store: Path, digests: Sequence[str], *, progress: Progress) -> Outcome:
    """Delete prepared models and engines with these digests; absent ones are fine."""
    total = 0
    for digest in digests:
        try:
            freed = Store(store).remove(digest)
        except OSError as error:
            raise write_failure(error, store) or error from error
        progress.say(f"{digest}: {human_size(freed) if freed else 'was not there'}")
        total += freed
    return Outcome(f"freed {human_size(total)} in {store}", size_bytes=total)
