"""How the pods of a service are divided between an old and a new revision without room for more.

Pure arithmetic. In all that it asks for, old and new together never exceed `total`, and a revision
is only given another pod when no pod is left that was taken from one: a pod that is going still
holds its GPU.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Held:
    """What one side has: pods that it was given, and pods beyond them that are not yet gone."""

    asked: int
    going: int = 0


def split(total: int, old: Held, new: Held, *, new_is_ready: bool) -> tuple[int, int]:
    """The next numbers of pods of old and new, one small step from the present ones.

    The old side gives up one pod at a time, and only while all pods of the new one are ready.
    """
    leaving = old.going + new.going
    if new_is_ready:
        keep_new = min(new.asked, total)
        keep_old = min(old.asked, max(0, total - keep_new - 1))
        spare = total - keep_old - keep_new - leaving - (old.asked - keep_old)
        return keep_old, keep_new + max(0, spare)
    # What is not ready may be broken: the old side keeps its pods, and takes what is free.
    keep_new = min(new.asked, max(0, total - old.asked))
    keep_old = min(old.asked, total - keep_new)
    spare = total - keep_old - keep_new - leaving - (new.asked - keep_new)
    return keep_old + max(0, spare), keep_new
