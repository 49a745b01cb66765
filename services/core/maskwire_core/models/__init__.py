"""Models that exist, downloading them, and exported mask decoders."""
