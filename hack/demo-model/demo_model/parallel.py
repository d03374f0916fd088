"""Two ways to use all cores that do not fight: one thread per core, each with one BLAS thread.

The matrices of a small model are too small for a BLAS or OpenMP team: its
threads wait for each other longer than they compute, and on shared cores they
spin. Independent batches in independent threads reach the full speed of a core
(PyTorch releases the interpreter lock inside its operators).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# Read by the libraries when they are first loaded: before `import torch`.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

T = TypeVar("T")
R = TypeVar("R")


def workers() -> int:
    """How many threads to run: the cores this process may use."""
    return len(os.sched_getaffinity(0))


def parallel_map(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`[function(item) for item in items]` on all cores, results in order."""
    with ThreadPoolExecutor(workers()) as pool:
        return list(pool.map(function, items))
