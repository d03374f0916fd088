"""Causes of failures by subject, each from the words that Kubernetes itself writes."""
