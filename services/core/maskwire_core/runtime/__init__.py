"""Memory and thread priorities of a long-running process."""
