"""The photographs that transforms are fitted to and measured on."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from maskwire_core.errors import InvalidArgument
from maskwire_core.models.registry import ModelError
from torch import Tensor

from maskwire_encoder.image_input.preprocessing import prepare
from maskwire_encoder.image_input.reading import read_image

OWN = Path(__file__).parent / "photographs"
"""Those that come with Maskwire."""

_ENDINGS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_LEAST, _MOST = 16, 64


class Photographs:
    """Photographs of a folder, of which every other one is for fitting, and the rest for measuring.

    Args:
        folder: Where they are; those that come with Maskwire if None. Of many, 64 are taken, evenly by name.
        max_pixels: Most pixels of a photograph.

    Attributes:
        digest: Of their files' bytes, in hex.

    Raises:
        ModelError: The folder cannot be read, or has too few pictures.
    """

    def __init__(self, folder: Path | None, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        folder = folder.expanduser() if folder is not None else OWN
        try:
            found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
            self._paths = (
                [found[index * len(found) // _MOST] for index in range(_MOST)] if len(found) > _MOST else found
            )
            self.digest = hashlib.sha256(b"".join(_sha256(path) for path in self._paths)).hexdigest()
        except OSError as error:
            raise ModelError(f"--fit-on {folder}: {error.strerror or error}; name a folder of pictures") from error
        if len(found) < _LEAST:
            raise ModelError(f"--fit-on {folder} has {len(found)} pictures; put {_LEAST} or more into it")

    def to_fit(self, size: int) -> Iterator[Tensor]:
        """Reads those for fitting, as model inputs.

        Args:
            size: Side of the model's square input in pixels.

        Returns:
            1x3xSxS each, fp32, on the CPU.

        Raises:
            ModelError: One cannot be decoded.
        """
        return (self._read(path, size) for path in self._paths[::2])

    def to_measure(self, size: int) -> Iterator[Tensor]:
        """Reads those for measuring, like `to_fit`."""
        return (self._read(path, size) for path in self._paths[1::2])

    def _read(self, path: Path, size: int) -> Tensor:
        try:
            return torch.stack([prepare(read_image(path.read_bytes(), self._max_pixels).pixels, size)])
        except InvalidArgument as error:
            raise ModelError(f"--fit-on: {path}: {error.message}; take it out of the folder") from error
        except OSError as error:
            raise ModelError(f"--fit-on: {path}: {error.strerror or error}") from error


def _sha256(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
