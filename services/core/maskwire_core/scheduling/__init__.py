"""Fair scheduling and single flight."""
