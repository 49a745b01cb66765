"""An encoder whose model can be held up, and whose device is lost at the first white image: ... FOLDER PORT REDIS_URL

Its model stands still while there is a file named "hold" in the folder. All else is the real server.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import small
import torch
from maskwire_core.rpc import configure_logging
from maskwire_encoder.__main__ import run
from maskwire_encoder.model import Model


class FailingModel(Model):
    def encode(self, images: Sequence[torch.Tensor] | torch.Tensor) -> list[dict[str, Any]]:
        if any((image > 2).all() for image in images):
            self.device = torch.device("meta")  # one that cannot compute
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        while (folder / "hold").exists():
            time.sleep(0.005)
        return super().encode(images)


if __name__ == "__main__":
    folder, port, redis_url = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    settings = small.settings(folder, port=port, redis_url=redis_url, threads=1, queue_limit=30)
    configure_logging(settings)
    asyncio.run(run(settings, FailingModel))
