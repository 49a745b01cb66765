"""Embeddings, image names and logits in Redis or Valkey: keys, codecs, quotas, inventory."""
