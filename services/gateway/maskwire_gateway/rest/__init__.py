"""/v1: the services' messages as JSON, and the API's description."""
