"""Loads a model as an encoder does, and says how that went: python -m maskwire_encoder.checkpoints.check JSON

The argument is `maskwire_core.models.registry.AddedModel` as JSON; `maskwire_core.models.check` runs this.
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
        build(ModelSource(model.name, model.config, Path(model.checkpoint)), say=notes.append)
    except ModelError as error:
        print(json.dumps({"error": str(error)}))
        sys.exit(1)
    print(json.dumps({"notes": notes}))


if __name__ == "__main__":
    main()
