"""The command `maskwire prelabel`."""

import signal
import sys
import threading
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from maskwire.cli.output import note_demo, progress_bar
from maskwire.cli.prelabel_options import PrelabelOptions
from maskwire.cli.prelabel_report import describe_line, print_summary
from maskwire.cli.work import stopped_by_signals, work_until_stopped
from maskwire.client import Client
from maskwire.errors import ImageNotFound, InvalidRequest, MaskwireError
from maskwire.model_names import canonical
from maskwire.prelabelling import boxes_file, journal, masks, output
from maskwire.prelabelling.boxes_file import BoxesFile, ImageBoxes
from maskwire.prelabelling.journal import Header, Journal
from maskwire.prelabelling.masks import Making
from maskwire.prelabelling.shards import Shard, journal_path
from maskwire.suggest import model_not_served
from maskwire.v1 import encoder_pb2

_IMAGES_AT_ONCE = 16
_TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class _Job:
    """The images that a command does, and how."""

    options: PrelabelOptions
    boxes: BoxesFile
    shard: Shard | None
    images: list[ImageBoxes]
    journal: Journal

    @property
    def remaining(self) -> list[ImageBoxes]:
        return [image for image in self.images if image.image not in self.journal.state.masks]


def prelabel_images(options: PrelabelOptions) -> None:
    """Does what is left of a job, and writes its data set when all images were tried; exits with 1 if some failed."""
    if not options.folder.is_dir():
        raise InvalidRequest(f"no such folder: {options.folder}", "NO_SUCH_FOLDER", "folder")
    shard = Shard.parse(options.shard) if options.shard is not None else None
    boxes = boxes_file.read(options.boxes, options.replace)
    images = shard.of(boxes.images) if shard is not None else list(boxes.images)
    with journal.writing(journal_path(options.out, shard)) as opened:
        job = _Job(options, boxes, shard, images, opened)
        _check_options(job)
        if shard is None:
            output.check_free(options.out, options.boxes, opened.state.outputs)
        done_before = len(images) - len(job.remaining)
        if job.remaining or opened.state.header is None:
            _work(job)
        if shard is None:
            _write(job)
        failed = print_summary(
            images,
            [opened.state],
            {"output": str(options.out if shard is None else opened.path), "done_before": done_before},
            options.as_json,
        )
        if opened.state.header is not None:
            note_demo(Console(stderr=True), {opened.state.header.model})
    if failed:
        sys.exit(1)


def _check_options(job: _Job) -> None:
    """Refuses to go on with a journal of another job."""
    header, options, path = job.journal.state.header, job.options, job.journal.path
    if header is None:
        return
    wanted = _header(job, options.model or header.model, header.fingerprint)
    differences = header.differences(wanted)
    if "boxes_sha256" in differences:
        raise InvalidRequest(
            f"{options.boxes} has changed since {path} was begun with it; give the file as it was, or another --out, "
            "or delete the journal to begin again",
            "OTHER_BOXES",
            "--boxes",
        )
    if differences:
        name = differences[0]
        raise InvalidRequest(
            f"{path} was begun with {_option(name)} {getattr(header, name)!r}, which is {getattr(wanted, name)!r} now; "
            "give the same options, or another --out, or delete the journal to begin again",
            "OTHER_OPTIONS",
            _option(name),
        )


def _header(job: _Job, model: str, fingerprint: str) -> Header:
    options = job.options
    return Header(
        boxes_sha256=job.boxes.sha256,
        shard=str(job.shard or ""),
        polygons=options.polygons,
        tight_boxes=options.tight_boxes,
        replace=options.replace,
        stretch=options.stretch,
        model=canonical(model),
        fingerprint=fingerprint,
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _work(job: _Job) -> None:
    """Asks for the masks of what remains, and writes each image down as it is done."""
    options, remaining, state = job.options, job.remaining, job.journal.state
    stopping, errors = threading.Event(), Console(stderr=True)
    away: MaskwireError | None = None
    with (
        options.servers.client() as client,
        progress_bar(errors, "prelabelling", "{task.fields[last]}") as progress,
        stopped_by_signals(stopping, lambda: _say(progress.console, "finishing the images that are under way")) as got,
    ):
        making = _making(job, client)
        task = progress.add_task("", total=len(job.images), completed=len(job.images) - len(remaining), last="")

        def work(image: ImageBoxes) -> dict[str, Any]:
            return masks.when_not_busy(lambda: masks.make_masks(client, options.folder, image, making), stopping)

        for done in work_until_stopped(remaining, work, _IMAGES_AT_ONCE, stopping):
            lines = []
            for image, outcome in done:
                if isinstance(outcome, MaskwireError) and masks.stops_job(outcome):
                    away = away or outcome
                    stopping.set()
                    continue
                lines.append(masks.failure(image, outcome) if isinstance(outcome, MaskwireError) else outcome)
            job.journal.add(lines)
            for line in lines:
                for text in describe_line(line, job.boxes.document):
                    _say(progress.console, text)
                progress.update(task, advance=1, last=line["file_name"])
    if away is not None or got:
        count = f"{len(state.masks)} of {len(job.images)} images are done"
        print(f"{job.journal.path}: {count}; the same command goes on", file=sys.stderr)
    if got:
        if got[0] == signal.SIGTERM:
            sys.exit(_TERMINATED)
        raise KeyboardInterrupt
    if away is not None:
        raise away


def _making(job: _Job, client: Client) -> Making:
    """Finds the model, and begins the journal or checks that it is the journal's."""
    options, header = job.options, job.journal.state.header
    name = options.model or (header.model if header is not None else "")
    model = _find_model(client.models(), name)
    if header is None:
        job.journal.begin(_header(job, model.name, model.fingerprint))
    elif header.fingerprint != model.fingerprint:
        raise InvalidRequest(
            f"the model {model.name!r} is not the one that {job.journal.path} was begun with: its weights or settings "
            "have changed; serve that model, or give another --out, or delete the journal to begin again",
            "OTHER_OPTIONS",
            "--model",
        )
    return Making(model.name, options.stretch, options.polygons, options.tight_boxes)


def _find_model(models: list[encoder_pb2.ModelInfo], name: str) -> encoder_pb2.ModelInfo:
    for model in models:
        if model.name == canonical(name) if name else model.is_default:
            return model
    raise ImageNotFound(model_not_served(name, [model.name for model in models]), "MODEL_NOT_FOUND", "--model")


def _write(job: _Job) -> None:
    content = output.assemble(job.boxes.document, job.journal.done())
    digest = output.digest_of(content)
    if digest not in job.journal.state.outputs:
        job.journal.add([{"output": digest}])  # before the file is there, so that it is known as the job's own
    output.write(job.options.out, content)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
