"""What people do with finished artefacts, one module each; the answer goes to standard output."""
