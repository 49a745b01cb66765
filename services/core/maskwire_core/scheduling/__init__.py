"""Fair scheduling, rate limiting and single flight."""
