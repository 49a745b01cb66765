"""Trains, evaluates and exports the demo model: SAM 2.1's image parts with a small trunk, from scratch.

`python -m training.demo.pack`, then `.train`, `.average`, `.evaluate`; each has --help. Not part of any service.
"""
