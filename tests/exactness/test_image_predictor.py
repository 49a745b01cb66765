"""A script for sam2's SAM2ImagePredictor, run with sam2 and, with other import lines, with the servers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from testing.reference.predictor import TINY
from testing.servers import EXACT, Stack, encoder_and_decoder

SCRIPT = Path(__file__).with_name("image_predictor_script.py").read_text()
IMPORTS = "from sam2."
LOGITS = 1e-3
SCORES = 1e-4
FLIPPED = 1e-5  # share of pixels whose logit may lie between the two computations
DEMO = {"CONFIG": "configs/demo.yaml", "CHECKPOINT": "checkpoints/demo.pt"}

Predicted = dict[str, tuple[NDArray[np.float32], ...]]
Run = Callable[[str, dict[str, Any]], Predicted]


@pytest.fixture(scope="module")
def pictures(photo: Path, cutout: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    opaque = tmp_path_factory.mktemp("script") / "opaque.png"
    Image.open(cutout).convert("RGB").save(opaque)
    return [photo, opaque]


@pytest.fixture(scope="module")
def run(pictures: list[Path]) -> Run:
    def execute(script: str, given: dict[str, Any]) -> Predicted:
        names = {**given, "PICTURES": pictures}
        exec(compile(script, "image_predictor_script.py", "exec"), names)
        predicted: Predicted = names["predicted"]
        return predicted

    return execute


def on_servers(run: Run, servers: Stack, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Predicted:
    monkeypatch.setenv("MASKWIRE_ENCODER", servers.encoder)
    monkeypatch.setenv("MASKWIRE_DECODER", servers.decoder)
    assert SCRIPT.count(IMPORTS) == 2 + SCRIPT.split('"""')[1].count(IMPORTS)
    return run(SCRIPT.replace(IMPORTS, "from maskwire.sam2."), given)


@pytest.mark.client(
    "sam2's SAM2ImagePredictor",
    "a script of the calls in its notebook, and of all others, with other imports",
    package="sam2",
)
def test_a_script_for_sam2_moves_by_its_imports(run: Run, exact: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = on_servers(run, exact, DEMO, monkeypatch)
    # sam2's own modules know feature maps of images of 1024 px only; the demo model's have 512.
    compare(ours, run(SCRIPT.replace(IMPORTS, "from testing.reference.demo_"), DEMO), objects=True)


@pytest.mark.slow
def test_the_script_at_1024_px_is_sam2s_own(
    run: Run, valkey: str, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any change, and with sam2's own classes: a model of the published size, whose weights are random."""
    given = {"CONFIG": TINY, "CHECKPOINT": str(tiny_checkpoint)}
    options = ("--model", tiny_checkpoint.stem, "--checkpoint", str(tiny_checkpoint), *EXACT)
    with encoder_and_decoder(valkey, *options) as servers:
        ours = on_servers(run, servers, given, monkeypatch)
    compare(ours, run(SCRIPT, given), objects=False)


def compare(ours: Predicted, theirs: Predicted, objects: bool) -> None:
    """Compares all predictions; with `objects`, no mask may be empty."""
    assert list(ours) == list(theirs)
    flipped = pixels = 0
    worst = 0.0
    for name, expected in theirs.items():
        for kind, got, wanted in zip(("masks", "scores", "logits"), ours[name], expected, strict=True):
            assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype), f"{name}: {kind}"
        masks, scores, logits = ours[name]
        if np.isin(expected[0], (0, 1)).all():
            different = np.count_nonzero(masks != expected[0])
            assert different <= FLIPPED * masks.size, f"{name}: {different} pixels"
            flipped, pixels = flipped + different, pixels + masks.size
            assert masks.any() or not objects, name
        else:
            np.testing.assert_allclose(masks, expected[0], atol=LOGITS, err_msg=name)
        np.testing.assert_allclose(scores, expected[1], atol=SCORES, err_msg=name)
        np.testing.assert_allclose(logits, expected[2], atol=LOGITS, err_msg=name)
        worst = max(worst, float(np.abs(logits - expected[2]).max()))
    print(f"{len(ours)} predictions: logits within {worst:.2e}, {flipped} of {pixels} pixels differ")
