"""Embeddings, image IDs, saved logits and exported decoders in Redis or Valkey; quotas and inventory."""
