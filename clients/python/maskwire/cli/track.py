"""The command `maskwire track`: objects through a clip."""

import contextlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from maskwire.blocking_track import Track
from maskwire.cli.output import progress_bar
from maskwire.cli.track_options import ObjectPrompt, TrackOptions
from maskwire.cli.work import stopped_by_signals
from maskwire.errors import InvalidRequest, MaskwireError
from maskwire.track_opening import TrackArguments
from maskwire.tracked_frame import TrackedFrame
from maskwire.video import Clip, MaskSequence, save
from maskwire.video.saving import check_path

_CLIP_FIELDS = ("every", "fps", "start_s", "end_s", "max_frames", "max_side", "frame_rate")


def track_objects(options: TrackOptions) -> None:
    """Follows objects through a clip, and writes their masks; exits with 130 if it was interrupted."""
    prompts = _prompts(options)
    for path in options.output:
        _check_output(path, options)
    try:
        clip = Clip(options.clip, **asdict(options.frames))
    except InvalidRequest as error:
        if error.field in _CLIP_FIELDS:
            error.field = f"--{error.field.replace('_', '-')}"
        raise
    errors, stopping, started = Console(stderr=True), threading.Event(), time.perf_counter()
    arguments: TrackArguments = {
        "model": options.model,
        "hand_over": options.hand_over,
        "lossless": options.lossless,
    }
    with options.servers.client() as client, contextlib.ExitStack() as stack:
        with progress_bar(errors, f"uploading {clip.name}", "") as progress:
            task = progress.add_task("", total=clip.estimated_frames)
            arguments["progress"] = lambda sent, count: progress.update(task, completed=sent, total=count)
            try:
                track = stack.enter_context(client.track(clip, **arguments))
            except MaskwireError as error:
                raise _in_options(error) from error
            except KeyboardInterrupt:
                errors.print("stopped before anything was followed; nothing is written")
                raise
        got = stack.enter_context(stopped_by_signals(stopping, lambda: errors.print("finishing the frame under way")))
        _give(track, prompts)
        with progress_bar(errors, "following", "{task.fields[last]}") as progress:
            first = min(prompt.frame or 0 for _, _, prompt in prompts)
            total = track.frames - first + (first if options.both_ways else 0)
            task = progress.add_task("", total=total, last="")
            for found in _follow(track, first, options.both_ways):
                progress.update(task, advance=1, last=f"frame {found.index}")
                if stopping.is_set():
                    break
        masks, handed_over = track.masks, options.hand_over
    seconds = time.perf_counter() - started
    files = [file for path in options.output for file in _write(masks, path, clip, options, errors)]
    _report(options, masks, files, seconds, handed_over)
    if got:
        raise KeyboardInterrupt


def _in_options(error: MaskwireError) -> MaskwireError:
    """Returns an error about the clip or the model in the words of the command."""
    if error.reason == "NO_MEMORY":
        return InvalidRequest(
            "the model knows single pictures only; give one with a memory, or follow without: --hand-over",
            error.reason,
            "--model",
        )
    if error.reason == "CLIP_TOO_LONG":
        options = "fps, every, start_s, end_s and max_frames", "--fps, --every, --start-s, --end-s and --max-frames"
        return InvalidRequest(error.message.replace(*options), error.reason, "clip")
    return error


def _prompts(options: TrackOptions) -> list[tuple[str, bool, ObjectPrompt]]:
    """Returns the kind of each prompt ("box" or "click"), whether it is positive, and the prompt, with its object and
    frame: boxes first, since a box replaces the clicks of its frame."""
    given: list[tuple[str, bool, ObjectPrompt]] = [
        *(("box", True, prompt) for prompt in options.boxes or ()),
        *(("click", True, prompt) for prompt in options.clicks or ()),
        *(("click", False, prompt) for prompt in options.negative or ()),
    ]
    if not given:
        raise InvalidRequest(
            "there is nothing to follow; give a click, such as --click 120,80, or a --box", "NO_PROMPTS", "--click"
        )
    named = [
        (
            kind,
            positive,
            prompt._replace(
                object=options.object if prompt.object is None else prompt.object,
                frame=options.frame if prompt.frame is None else prompt.frame,
            ),
        )
        for kind, positive, prompt in given
    ]
    boxes = Counter((prompt.object, prompt.frame) for kind, _, prompt in named if kind == "box")
    for (name, frame), count in boxes.items():
        if count > 1:
            raise InvalidRequest(
                f"{count} boxes are for the object {name!r} on frame {frame}; name the objects: --box "
                "ball=X0,Y0,X1,Y1 --box cup=X0,Y0,X1,Y1",
                "BAD_PROMPTS",
                "--box",
            )
    return named


def _check_output(path: Path, options: TrackOptions) -> None:
    """Checks before the work begins that something can be written there."""
    try:
        check_path(path, options.form if _is_folder(path) else None)
    except InvalidRequest as error:
        error.field = "--output"
        raise
    if path.is_file() and not path.suffix:
        raise InvalidRequest(f"{path} is a file, and a folder is needed", "BAD_OUTPUT", "--output")


def _is_folder(path: Path) -> bool:
    return path.is_dir() or not path.suffix


def _give(track: Track, prompts: Iterable[tuple[str, bool, ObjectPrompt]]) -> None:
    for kind, positive, prompt in prompts:
        name, frame = prompt.object or "", prompt.frame or 0
        if kind == "box":
            x_min, y_min, x_max, y_max = prompt.place
            track.box(x_min, y_min, x_max, y_max, frame=frame, object=name)
        else:
            x, y = prompt.place
            track.click(x, y, frame=frame, object=name, positive=positive)


def _follow(track: Track, first: int, both_ways: bool) -> Iterable[TrackedFrame]:
    yield from track.follow()
    if both_ways and first > 0:
        yield from track.follow(first - 1, reverse=True)


def _write(masks: MaskSequence, path: Path, clip: Clip, options: TrackOptions, errors: Console) -> list[Path]:
    form = options.form if _is_folder(path) else None
    with progress_bar(errors, f"writing {path.name}", "") as progress:
        task = progress.add_task("", total=clip.estimated_frames)
        return save(
            masks,
            path,
            clip,
            form=form,
            names=options.names,
            progress=lambda done: progress.update(task, completed=done),
        )


def _report(options: TrackOptions, masks: MaskSequence, files: list[Path], seconds: float, handed_over: bool) -> None:
    seen = {name: sum(name in masks.rles(frame) for frame in masks) for name in masks.objects}
    if options.as_json:
        summary = {
            "clip": options.clip,
            "width": masks.width,
            "height": masks.height,
            "frames": len(masks),
            "objects": seen,
            "handed_over": handed_over,
            "seconds": round(seconds, 3),
            "files": [str(file) for file in files],
        }
        print(json.dumps(summary))
        return
    objects = ", ".join(f"{name} on {count}" for name, count in seen.items())
    listed = f"{', '.join(map(str, files[:3]))}{', ...' if files[3:] else ''}"
    print(f"{len(masks)} frames in {seconds:.1f} s ({objects}): {listed}")
    if handed_over:
        print("followed without memory (--hand-over); a model that has one follows much better", file=sys.stderr)
