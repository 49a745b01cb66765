"""Embeddings behind the store: files in a folder or an object store, which outlive the store's memory."""
