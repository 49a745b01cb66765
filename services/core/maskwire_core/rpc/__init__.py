"""The gRPC server: what surrounds a call, authorization, errors, health, TLS."""
