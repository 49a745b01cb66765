"""Trackers and Track streams as tests hold them, a clip, and a small model whose memory matters."""

import contextlib
import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from maskwire.cli.free_ports import free_port
from maskwire.cli.health import health
from maskwire.v1 import tracker_pb2 as pb
from maskwire.v1 import tracker_pb2_grpc, types_pb2
from maskwire_core.models.registry import add, describe

from testing.processes import wait_until
from testing.warm import Warm, running_module

WIDTH, HEIGHT, SIDE = 240, 180, 128


def add_model(folder: Path, name: str, side: int = SIDE) -> None:
    """Makes a model of sam2.1_hiera_tiny, with seeded weights, known to encoders.

    Args:
        folder: Their folder of models.
        name: The model's name.
        side: Side of its pictures in px.
    """
    import torch
    from hydra import compose
    from omegaconf import OmegaConf

    from testing.reference.predictor import TINY
    from testing.reference.video import build_video

    model = build_video("2.1", side)
    config = compose(config_name=TINY)
    OmegaConf.update(config, "model.image_size", side)
    OmegaConf.save(config, folder / f"{name}.yaml")
    torch.save({"model": model.state_dict()}, folder / f"{name}.pt")
    add(folder, describe(name, str(folder / f"{name}.yaml"), folder / f"{name}.pt"))


@contextlib.contextmanager
def running_tracker(redis_url: str, encoder: str, *options: str, port: int = 0) -> Iterator[tuple[str, Warm]]:
    """Runs a tracker that saves each second frame. Yields its address and process.

    Args:
        redis_url: URL of the store.
        encoder: Address of the encoder.
        options: Further arguments of the program.
        port: Where it listens; 0 chooses a free port.
    """
    port = port or free_port()
    words = ("--port", str(port), "--redis-url", redis_url, "--encoder", encoder, "--save-every", "2", *options)
    with running_module("maskwire_tracker", *words) as process:
        wait_until(lambda: health(f"127.0.0.1:{port}") == "SERVING", process=process)
        yield f"127.0.0.1:{port}", process


def upload(stub: Any, clip_id: str, files: Sequence[bytes], **header: Any) -> pb.ClipInfo:
    """Uploads a clip, each frame in two parts."""
    described = pb.ClipHeader(clip_id=clip_id, width_px=WIDTH, height_px=HEIGHT, frames=len(files), fps=25)
    described.MergeFrom(pb.ClipHeader(**header))

    def messages() -> Iterator[pb.UploadClipRequest]:
        yield pb.UploadClipRequest(header=described)
        for file in files:
            half = len(file) // 2
            yield pb.UploadClipRequest(frame=pb.FramePart(chunk=file[:half]))
            yield pb.UploadClipRequest(frame=pb.FramePart(chunk=file[half:], last=True))

    info: pb.ClipInfo = stub.UploadClip(messages())
    return info


@dataclass
class Conversation:
    """A Track stream."""

    call: Any
    sent: "queue.Queue[pb.TrackRequest | None]"

    def send(self, request_id: str = "", **fields: Any) -> None:
        self.sent.put(pb.TrackRequest(request_id=request_id, **fields))

    def ask(self, **fields: Any) -> pb.TrackResponse:
        """Sends a request and returns its answer."""
        self.send("asked", **fields)
        answer = self.receive()
        assert answer.request_id == "asked"
        return answer

    def receive(self) -> pb.TrackResponse:
        """Returns the next answer."""
        answer: pb.TrackResponse = next(self.call)
        return answer

    def click(self, object_id: str, frame: int, x: float, y: float, label: int = 1) -> pb.FrameMasks:
        """Clicks on an object."""
        points = pb.TrackPoints(points=[types_pb2.Point(x_px=x, y_px=y, label=label)])
        answer = self.ask(prompt=pb.TrackPrompt(object_id=object_id, frame=frame, points=points))
        assert answer.WhichOneof("outcome") == "masks", answer
        return answer.masks

    def follow(self, **fields: Any) -> list[pb.FrameMasks]:
        """Follows the objects, and returns the masks of all frames."""
        self.send("follow", follow=pb.Follow(**fields))
        found = []
        while (answer := self.receive()).WhichOneof("outcome") == "masks":
            found.append(answer.masks)
        assert answer.WhichOneof("outcome") == "followed", answer
        return found


@contextlib.contextmanager
def conversation(address: str, **opened: Any) -> Iterator[tuple[Conversation, pb.TrackInfo]]:
    """Opens a track on a stream; yields the stream and what the tracker says of the track."""
    with grpc.insecure_channel(address) as channel:
        sent: queue.Queue[pb.TrackRequest | None] = queue.Queue()
        talk = Conversation(tracker_pb2_grpc.TrackerServiceStub(channel).Track(iter(sent.get, None)), sent)
        try:
            answer = talk.ask(open=pb.OpenTrack(**opened))
            assert answer.WhichOneof("outcome") == "opened", answer
            yield talk, answer.opened
        finally:
            sent.put(None)
            talk.call.cancel()


def runs(masks: Sequence[pb.FrameMasks]) -> list[tuple[int, dict[str, tuple[str, float]]]]:
    """Returns of each frame its index, and by object the mask's run lengths and the object score."""
    return [
        (each.frame, {found.object_id: (found.mask.rle.counts, found.object_score) for found in each.objects})
        for each in masks
    ]
