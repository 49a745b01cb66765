"""What the Maskwire servers share: settings, errors, the embedding format, the store, and running a gRPC server."""
