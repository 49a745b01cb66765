"""Masks: run-length encoding and the other forms that callers ask for."""
