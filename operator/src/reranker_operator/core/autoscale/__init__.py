"""How many pods a service should have: measure, decide, remember. All of it pure."""
