"""The tracker: follows objects through frames, on stored embeddings."""
