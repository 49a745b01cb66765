"""An encoder whose model can be held up and made to fail; everything else is the real server.

    python -m testing.failing_encoder FOLDER PORT REDIS_URL

Its switches are files in the folder, each of which acts while it exists:

    hold      the model blocks
    slow      each batch takes 0.1 s longer
    memory    the device runs out of memory with more than one image
    factor    the number in it multiplies a part of each embedding
    stored    writes of embeddings to the store return late: when the file is gone
    lost      the device fails, as it does for good after the first white image
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from maskwire_core.storage.store import Store
from maskwire_core.telemetry.logs import configure_logging
from maskwire_encoder.__main__ import run
from maskwire_encoder.backends.device import Tensors
from maskwire_encoder.backends.model import Model

from testing import small_model


def wait_for(switch: str) -> None:
    while (folder / switch).exists():
        time.sleep(0.005)


class FailingModel(Model):
    def encode(self, images: Sequence[torch.Tensor] | torch.Tensor) -> list[Tensors]:
        if any((image > 2).all() for image in images) or (folder / "lost").exists():
            self.device = torch.device("meta")  # which cannot compute
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if len(images) > 1 and (folder / "memory").exists():
            raise torch.OutOfMemoryError("CUDA out of memory")
        wait_for("hold")
        if (folder / "slow").exists():
            time.sleep(0.1)
        found = super().encode(images)
        if (folder / "factor").exists():
            factor = np.float32((folder / "factor").read_text())
            return [{**tensors, "high_res_1": tensors["high_res_1"] * factor} for tensors in found]
        return found


def put_and_wait(self: Store, *arguments: Any) -> None:
    put(self, *arguments)
    wait_for("stored")


if __name__ == "__main__":
    folder, port, redis_url = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    put, Store.put_embedding = Store.put_embedding, put_and_wait  # type: ignore[method-assign, assignment]
    settings = small_model.settings(folder, port=port, redis_url=redis_url, threads=1, queue_limit=30)
    configure_logging(settings)
    asyncio.run(run(settings, FailingModel))
