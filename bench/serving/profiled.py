"""`reranker-gateway serve` under cProfile, by processor time of the event loop's thread.

python bench/serving/profiled.py FILE
"""

import cProfile
import sys
import time

import reranker_gateway.server  # noqa: F401 - imports are not what is measured
from reranker_gateway.cli import main

profile = cProfile.Profile(time.thread_time)
try:
    profile.runcall(main, ["serve"])
finally:
    profile.dump_stats(sys.argv[1])
