"""Whether an encoder will load a model, asked of the encoder package in a process of its own: it needs torch."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict

from maskwire_core.models.registry import AddedModel, ModelError


def check(model: AddedModel) -> Sequence[str] | None:
    """Does with a model what an encoder does at its start: reads the checkpoint and builds the model from it.

    Returns:
        What was done to the checkpoint, such as "unwrapped state_dict"; None if no encoder is installed here, and so
        nothing was checked.

    Raises:
        ModelError: The encoder would refuse the model, for this reason.
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
