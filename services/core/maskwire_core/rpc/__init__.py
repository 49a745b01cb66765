"""The gRPC server: authorization, TLS, health and error details."""
