"""The outside world: the Kubernetes API behind a small protocol, and errors in our own words."""
