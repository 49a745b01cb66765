"""Automatic mask generation: a grid of clicks, filtered to distinct masks."""
