"""Exporting the mask decoder as ONNX graphs."""
