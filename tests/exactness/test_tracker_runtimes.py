"""What runs a tracker: another runtime only where it gives what the CPU gives. CUDA itself is not run here."""

from typing import Any

import numpy as np
import pytest
from maskwire_core.models.decoder_bundle import DecoderConfig
from maskwire_core.models.onnx_sessions import OnnxSessions
from maskwire_core.models.tracker_bundle import TrackerBundle
from maskwire_encoder.decoder_export.memory import export_tracker
from maskwire_tracker import runtimes

from testing.reference.video import build_video

SIZE = 128


@pytest.fixture(scope="module")
def bundle() -> TrackerBundle:
    return export_tracker(build_video("2.1", SIZE), DecoderConfig("seeded", "", SIZE, SIZE // 4, True, 0.05, 0.98))


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the CPU, which every ONNX Runtime has, stand in for CUDA."""
    monkeypatch.setattr(runtimes, "_CUDA", ("CPUExecutionProvider", {}))


def test_without_cuda_the_cpu_follows(bundle: TrackerBundle, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert runtimes.choose(bundle, 1, cuda=True)._providers == ["CPUExecutionProvider"]
    assert not caplog.text


@pytest.mark.usefixtures("present")
def test_what_agrees_is_taken(bundle: TrackerBundle, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    runtimes.choose(bundle, 1, cuda=False)
    assert not caplog.text
    runtimes.choose(bundle, 1, cuda=True)
    assert "following on CUDA: within 0e+00 of the CPU" in caplog.text


@pytest.mark.usefixtures("present")
@pytest.mark.parametrize(("factor", "said"), [(1.001, "on CUDA tokens differ by"), (np.nan, "by nan")])
def test_what_does_not_agree_is_left(
    bundle: TrackerBundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, factor: float, said: str
) -> None:
    class Inexact(OnnxSessions):
        def run(self, graph: str, threads: int, inputs: Any) -> Any:
            found = super().run(graph, threads, inputs)
            is_cuda = self._providers[0] == runtimes._CUDA
            return {name: value * np.float32(factor) for name, value in found.items()} if is_cuda else found

    monkeypatch.setattr(runtimes, "OnnxSessions", Inexact)
    assert runtimes.choose(bundle, 1, cuda=True)._providers == ["CPUExecutionProvider"]
    assert said in caplog.text
