"""The stages, one module each; a stage reads directories, writes one and returns an Outcome."""
