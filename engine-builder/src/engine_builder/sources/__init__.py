"""Where models come from: the kinds of source and which of their files are needed."""

from engine_builder.sources.base import Provenance, Snapshot, Source, read_provenance
from engine_builder.sources.uri import open_source

__all__ = ["Provenance", "Snapshot", "Source", "open_source", "read_provenance"]
