"""Measures masks that a browser decodes; see `__main__`."""
