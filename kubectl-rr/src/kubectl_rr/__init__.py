"""`kubectl rr`: what a RerankerService does and why, read from the cluster and never changed."""
