"""Decisions: pure functions from what was observed to what should be done."""
