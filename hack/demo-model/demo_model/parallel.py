"""All cores at once: independent batches in a thread each, with one BLAS thread each.

PyTorch releases the interpreter lock inside its operators, so that threads reach
the full speed of a core; the package's `__init__` keeps BLAS from adding its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def workers() -> int:
    """How many threads to run: the cores this process may use."""
    return len(os.sched_getaffinity(0))


def parallel_map(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`[function(item) for item in items]` on all cores, results in order."""
    with ThreadPoolExecutor(workers()) as pool:
        return list(pool.map(function, items))
