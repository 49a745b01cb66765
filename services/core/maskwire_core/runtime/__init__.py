"""Memory, thread priorities and background work of a long-running process."""
