"""Helpers that tests and benchmarks share: servers as processes, reference predictors, requests and pictures.

Nothing here is installed. Both `python -m pytest` and `python -m bench` find it in the repository's root folder, where
they are run.
"""
