"""The transform of the codec "klt": fitted to a model, so that few small numbers stand for an embedding."""
