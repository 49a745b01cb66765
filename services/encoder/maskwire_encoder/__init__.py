"""The encoder service: images in, stored SAM 2 embeddings out."""
