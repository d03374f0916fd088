"""The control plane: from a RerankerService manifest to ranked answers, and its status."""

__version__ = "0.1.0"
