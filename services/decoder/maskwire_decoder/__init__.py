"""The decoder service: prompts on stored embeddings in, masks out."""
