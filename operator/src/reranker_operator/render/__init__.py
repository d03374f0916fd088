"""Builders: one pure function per kind of object, whole manifests with only the fields we own.

Python dictionaries instead of templates: see docs/decisions/0001-builders-not-templates.md.
"""
