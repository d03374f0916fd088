"""Data, training and judgement of the demo reranker; see README.md beside this package.

One BLAS and OpenMP thread for each of our own threads: the matrices of a small
model are too small for a team, whose threads wait for each other longer than
they compute and, on shared cores, spin. The libraries read this when they are
first loaded, hence here, before any module imports them.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
