"""HTTP: bodies, errors, routing and limits shared by all routes."""
