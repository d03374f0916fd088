"""Proof on a real machine that local clusters come up, stay apart, recover and vanish.

Not part of the ordinary tests: it needs root and the built binaries, and takes
some minutes. ``hack/local-cluster/selftest`` runs it.
"""
