"""HTTP, as the gateway and the adapters for labelling tools serve it: bodies, images in them, and errors."""
