"""Reading SAM 2 checkpoints and building their models."""
