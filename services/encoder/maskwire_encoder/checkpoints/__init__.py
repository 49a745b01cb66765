"""SAM 2 checkpoints: reading them and building their models."""
