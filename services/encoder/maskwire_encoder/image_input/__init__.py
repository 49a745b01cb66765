"""Image files to model input."""
