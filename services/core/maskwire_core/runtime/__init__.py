"""Memory, thread priorities, background work and watched files of a long-running process."""
