"""What runs a tracker's graphs: ONNX Runtime on a CPU or, where it has CUDA and gives the same there, on CUDA."""

import logging

import numpy as np
import onnxruntime
from maskwire_core.models.onnx_sessions import OnnxSessions, Provider
from maskwire_core.models.tracker_bundle import TrackerBundle

log = logging.getLogger(__name__)

_CUDA: Provider = ("CUDAExecutionProvider", {"use_tf32": "0"})
_MOST_GAP = 1e-4
"""Largest difference from the CPU's tokens, by the largest of them. fp32 gives 1e-5, bf16 and TF32 from 1e-3 on."""


def choose(bundle: TrackerBundle, threads: int, cuda: bool) -> OnnxSessions:
    """Returns what runs a tracker.

    Args:
        bundle: The exported tracker.
        threads: CPU threads of a run.
        cuda: Whether to take CUDA where ONNX Runtime has it and agrees with the CPU.

    Raises:
        CorruptValue: A graph would read files; see `check_graph`.
    """
    on_cpu = OnnxSessions(bundle.graphs, bundle.weights)
    if not cuda or _CUDA[0] not in onnxruntime.get_available_providers():
        return on_cpu
    try:
        on_cuda = OnnxSessions(bundle.graphs, bundle.weights, [_CUDA, "CPUExecutionProvider"])
        gap = _gap(bundle, on_cuda, on_cpu, threads)
    except Exception as error:  # ONNX Runtime has errors of many kinds
        log.warning("following on the CPU, since CUDA fails: %s", error)
        return on_cpu
    if not gap <= _MOST_GAP:
        log.warning("following on the CPU: on CUDA tokens differ by %.0e, more than %g", gap, _MOST_GAP)
        return on_cpu
    log.info("following on CUDA: within %.0e of the CPU", gap)
    return on_cuda


def _gap(bundle: TrackerBundle, one: OnnxSessions, other: OnnxSessions, threads: int) -> float:
    """Returns how far the tokens of both are apart, by the largest, where a made frame recalls one made memory."""
    config, random = bundle.config, np.random.default_rng(0)
    tokens, channels = (config.decoder.mask_size // 4) ** 2, len(config.no_object_pointer)
    inputs = {
        "image_embed": random.standard_normal((tokens, channels), np.float32),
        "memories": random.standard_normal((1, tokens, config.memory_channels), np.float32),
        "places": np.array([config.memories - 1]),
        "pointers": random.standard_normal((2, channels), np.float32),
        "distances": np.array([1, 0.5], np.float32),
    }
    found, expected = (
        sessions.run("recall", threads, inputs | sessions.run("frame", threads, inputs))["tokens"]
        for sessions in (one, other)
    )
    return float(np.abs(found - expected).max() / np.abs(expected).max())
