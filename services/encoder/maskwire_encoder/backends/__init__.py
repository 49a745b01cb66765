"""What runs the image encoder: torch, CUDA graphs or OpenVINO, and how one is chosen."""
