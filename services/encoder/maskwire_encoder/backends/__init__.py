"""Backends that run the image encoder (torch, CUDA graphs, OpenVINO), and the choice between them."""
