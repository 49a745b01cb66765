"""The mask decoder as ONNX graphs."""
