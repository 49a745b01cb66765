"""Faults injected into real servers, one test for each row of docs/reliability.md; see there."""

import sys
from pathlib import Path

# `python -m tests.faults.crasher` finds the helpers of the tests as pytest does.
sys.path.insert(0, str(Path(__file__).parent.parent))
