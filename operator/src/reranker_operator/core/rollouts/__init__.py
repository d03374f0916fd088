"""Rollouts: which revision is wanted, how it gets to the traffic, and what proves it.

`wish` chooses the revision; each strategy is a list of `stages`, which `beside` and `hand_over`
carry out as far as the status says; `advance` decides what the status says next, by `gates` and
`trouble`. A decision is written before it is acted upon: a process that dies in between finds it
there.
"""
