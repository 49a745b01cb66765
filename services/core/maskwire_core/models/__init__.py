"""Which models exist, where their files come from, and the exported mask decoder."""
