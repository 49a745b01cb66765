"""An encoder whose model can be held up and made to fail; everything else is the real server.

    python -m testing.failing_encoder FOLDER PORT REDIS_URL

Switches are files in the folder:

    hold      the model stands still while the file is there
    slow      each batch takes a tenth of a second more
    memory    the device's memory holds one image at a time
    stored    an embedding that has been stored is not told of while the file is there
    lost      the device does not work any more; nor after the first white image
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from maskwire_core.storage.store import Store
from maskwire_core.telemetry.logs import configure_logging
from maskwire_encoder.__main__ import run
from maskwire_encoder.backends.model import Model

from testing import small_model


def waits(switch: str) -> None:
    while (folder / switch).exists():
        time.sleep(0.005)


class FailingModel(Model):
    def encode(self, images: Sequence[torch.Tensor] | torch.Tensor) -> list[dict[str, Any]]:
        if any((image > 2).all() for image in images) or (folder / "lost").exists():
            self.device = torch.device("meta")  # one that cannot compute
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if len(images) > 1 and (folder / "memory").exists():
            raise torch.OutOfMemoryError("CUDA out of memory")
        waits("hold")
        if (folder / "slow").exists():
            time.sleep(0.1)
        return super().encode(images)


def put_and_wait(self: Store, *arguments: Any) -> None:
    put(self, *arguments)
    waits("stored")


if __name__ == "__main__":
    folder, port, redis_url = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    put, Store.put_embedding = Store.put_embedding, put_and_wait  # type: ignore[method-assign, assignment]
    settings = small_model.settings(folder, port=port, redis_url=redis_url, threads=1, queue_limit=30)
    configure_logging(settings)
    asyncio.run(run(settings, FailingModel))
