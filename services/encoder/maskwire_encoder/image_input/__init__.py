"""From image files to model inputs."""
