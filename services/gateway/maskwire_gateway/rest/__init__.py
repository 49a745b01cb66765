"""/v1: the services' messages as JSON, and their OpenAPI description."""
