"""What `warm` imports once for all processes that it starts: what servers and commands import, and no server itself."""
