"""The loop: queue of keys, reconciler, leader election, resync."""
