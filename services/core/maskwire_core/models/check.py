"""Checks that an encoder can load a model, in a process of its own, since that needs torch."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict

from maskwire_core.models.registry import AddedModel, ModelError


def check_loading(model: AddedModel) -> Sequence[str] | None:
    """Loads a model as an encoder does when it starts: reads the checkpoint and builds the model from it.

    Args:
        model: The model.

    Returns:
        What had to be done to the checkpoint, such as "unwrapped state_dict"; None if no encoder is installed, and
        nothing was checked.

    Raises:
        ModelError: An encoder cannot load the model; the message says why.
    """
    if any(importlib.util.find_spec(package) is None for package in ("maskwire_encoder", "torch", "sam2")):
        return None
    command = [sys.executable, "-m", "maskwire_encoder.checkpoints.check", json.dumps(asdict(model))]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        outcome = json.loads(ended.stdout)
    except ValueError as error:
        last = (ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"])[-1]
        raise ModelError(f"{model.checkpoint} cannot be checked: {last}") from error
    if "error" in outcome:
        raise ModelError(str(outcome["error"]))
    return [str(note) for note in outcome["notes"]]
