"""gRPC channels, retries, streams and credentials."""
