"""Checks that an encoder can load a model: python -m maskwire_encoder.checkpoints.check JSON

The argument is a `maskwire_core.models.registry.AddedModel` as JSON. Prints {"notes": [...]}, or {"error": "..."} and
exits with 1. `maskwire_core.models.check` runs this program.
"""

import json
import sys
from pathlib import Path

from maskwire_core.models.registry import AddedModel, ModelError

from maskwire_encoder.checkpoints.loading import ModelSource, build


def main() -> None:
    model = AddedModel(**json.loads(sys.argv[1]))
    notes: list[str] = []
    try:
        build(ModelSource(model.name, model.config, Path(model.checkpoint)), notify=notes.append)
    except ModelError as error:
        print(json.dumps({"error": str(error)}))
        sys.exit(1)
    print(json.dumps({"notes": notes}))


if __name__ == "__main__":
    main()
