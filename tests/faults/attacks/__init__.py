"""Attacks on a lab of our own: who takes a server's memory or time, and what others notice of it."""
