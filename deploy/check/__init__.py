"""Builds the images, starts docker-compose.yml, and tries what it promises; see scripts/deploy-check."""
