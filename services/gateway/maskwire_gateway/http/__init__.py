"""HTTP: routing, middleware, probes and error responses of all routes."""
