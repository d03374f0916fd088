"""The ways to ask for a ranking: one small module each, and the table of who serves which path.

A dialect reads a request into a `Question` and writes `Answers` or a `Fault` as its clients know
them. What lies between is the same for all, so the same texts come in the same order in each.
"""
