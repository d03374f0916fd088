"""Artefacts in an OCI registry: push, pull, look at."""

from engine_builder.oci.artefact import Remote, Wanted, look_up, pull, push
from engine_builder.oci.client import Registry
from engine_builder.oci.reference import Reference, parse_reference

__all__ = [
    "Reference",
    "Registry",
    "Remote",
    "Wanted",
    "look_up",
    "parse_reference",
    "pull",
    "push",
]
