"""Turns a reranker's model files into an engine that Triton serves.

One command per stage (resolve, fetch, export, compile, validate, publish, remove); `build` runs
them on one machine. Knows nothing of Kubernetes: a stage reads directories, writes a directory and
leaves a StageResult.
"""

__version__ = "0.1.0"
