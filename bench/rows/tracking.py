"""Rows: an object on a frame of a video, with all seven memories, against sam2's own video predictor."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from maskwire.bilinear import enlarge
from maskwire_core.models.decoder_bundle import DecoderConfig
from maskwire_encoder.decoder_export.memory import export_tracker
from maskwire_tracker.options import TrackOptions
from maskwire_tracker.predictor import TrackerPredictor
from maskwire_tracker.track import Track

from bench.harness import Row
from bench.subject import THREADS
from testing.paths import COFFEE
from testing.reference.video import build_video, embeddings, write_clip

SIZE, WIDTH, HEIGHT = 512, 480, 320
FRAMES = 8  # the last of which recalls the first and the six between
BOX = (140, 30, 330, 240)


@contextlib.contextmanager
def rows(size: int = SIZE) -> Iterator[list[Row]]:
    torch.set_num_threads(THREADS)
    model: Any = build_video("2.1", size)
    decoder = model.sam_mask_decoder
    config = DecoderConfig(
        "seeded",
        "f",
        size,
        size // 4,
        decoder.dynamic_multimask_via_stability,
        decoder.dynamic_multimask_stability_delta,
        decoder.dynamic_multimask_stability_thresh,
    )
    predictor = TrackerPredictor(export_tracker(model, config), THREADS)
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder) / "clip", COFFEE, FRAMES, WIDTH, HEIGHT)
        state = model.init_state(str(clip))
    frames = [predictor.prepare(*each) for each in enumerate(embeddings(model, state["images"]))]
    model.fill_hole_area = 0  # sam2 fills them with CUDA only
    track = Track(predictor, WIDTH, HEIGHT, TrackOptions(fill_hole_area=0), FRAMES)
    model.add_new_points_or_box(state, 0, "one", box=BOX)
    track.add_points(frames[0], "one", box=BOX)
    track.settle(frames[0])
    track.start()
    for _ in model.propagate_in_video(state):
        pass
    for frame in frames:
        track.follow(frame)
    last = frames[-1]
    recalled = track._recall(track.objects["one"], last.index, False)
    assert recalled is not None
    assert len(recalled.memories) == predictor.config.memories
    attention = {**last.inputs, **vars(recalled)}

    def theirs() -> Any:
        with torch.inference_mode():
            return model._run_single_frame_inference(
                state, state["output_dict_per_obj"][0], last.index, 1, False, None, None, False, True
            )

    def check(ours: Any, other: Any) -> str:
        mine = enlarge(ours["one"].logits, WIDTH, HEIGHT) > 0
        right = enlarge(other[0]["pred_masks"][0, 0].numpy(), WIDTH, HEIGHT) > 0
        overlap = int(np.count_nonzero(mine & right)) / max(int(np.count_nonzero(mine | right)), 1)
        assert overlap > 0.99
        return f"IoU {overlap:.4f}"

    yield [
        Row(
            f"following an object on a frame, {size} px, seven memories",
            "SAM2VideoPredictor",
            0.75,
            lambda: track.follow(last),
            theirs,
            check,
            rounds=5,
        ),
        Row(
            "of that, attention to memories",
            "the whole frame, ours",
            1.0,
            lambda: predictor._run("recall", attention),
            lambda: track.follow(last),
            rounds=5,
        ),
    ]
