"""The public API: kinds, fields, condition types and reasons. Everything here is a promise."""
