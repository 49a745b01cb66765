"""Bearer tokens and the tenant that a call belongs to."""
