"""/v1/stream: SegmentStream over a WebSocket."""
