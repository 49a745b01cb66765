"""Faults injected into real servers, one test for each row of docs/reliability.md; see there."""
