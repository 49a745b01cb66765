"""Readers of pictures: torch tensors, missing libraries, and what a process writes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from maskwire import InvalidRequest
from maskwire.sources import Reading, Source
from maskwire_encoder.image_input.reading import read_image

from testing.picture_files import RGB, tiff

MOST = 20_000


def encoded(image: Any, **reading: Any) -> np.ndarray:
    """What the encoder sees of an image that is given to the client."""
    source = Source(image, Reading(**reading))
    return read_image(source.read(), MOST, source.stretch).pixels


def test_tensors_have_their_channels_first() -> None:
    chw = torch.from_numpy(np.moveaxis(RGB, 2, 0).copy())
    for tensor in (chw, chw / 255, (chw / 255).requires_grad_(), torch.from_numpy(RGB)):
        np.testing.assert_array_equal(encoded(tensor), RGB)
    assert np.abs(encoded((chw / 255).bfloat16()).astype(int) - RGB).max() <= 1
    with pytest.raises(InvalidRequest, match="first or last") as caught:
        Source(torch.zeros(3, 9, 3))
    assert caught.value.field == "image"


def test_heic_without_its_library_names_the_remedy() -> None:
    code = (
        "import sys; sys.modules['pi_heif'] = None\n"
        "from maskwire.pictures import decode_picture\n"
        "decode_picture(b'\\0\\0\\0\\x18ftypheic\\0\\0\\0\\0mif1heic')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "HEIC" in run.stderr
    assert "pip install 'maskwire[heic]'" in run.stderr


def test_a_damaged_tiff_writes_nothing_to_standard_error(tmp_path: Path) -> None:
    data = bytearray(tiff(RGB, photometric="rgb", compression="lzw"))
    start = data.index(b"\x80")
    data[start : start + 40] = bytes(40)
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    code = (
        "import sys\nfrom maskwire_encoder.image_input.reading import read_image\n"
        "try: read_image(open(sys.argv[1], 'rb').read(), 10000)\nexcept Exception as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert run.stderr == ""
    assert "TIFF file is damaged" in run.stdout
