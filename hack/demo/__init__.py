"""The demo: from an empty machine to ranked answers, as a user would do it."""
