"""The gateway: HTTP, server-sent events and WebSocket in front of encoders and decoders."""
