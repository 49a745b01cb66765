"""maskwire segment"""

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from maskwire.cli import formats, inputs, prompts_file
from maskwire.cli.formats import MaskFormat, Segmented
from maskwire.cli.inputs import Input
from maskwire.cli.output import check_stdout, note_demo, write_stdout
from maskwire.cli.prompts_file import Wanted
from maskwire.client import Client
from maskwire.errors import InvalidRequest, MaskwireError
from maskwire.prompts import Prompt

_IMAGES_AT_ONCE = 4
_PROMPTS_AT_ONCE = 64  # of one image: a request takes at most 128
_CLASS = "object"

_Job = tuple[Input, list[Wanted]]


def run(
    images: Sequence[str],
    *,
    image_id: str | None,
    model: str,
    stretch: str,
    positive: Sequence[tuple[float, ...]],
    negative: Sequence[tuple[float, ...]],
    boxes: Sequence[tuple[float, ...]],
    prompts: Path | None,
    every: bool,
    multimask: bool,
    form: MaskFormat | None,
    output: Path | None,
    connection: dict[str, Any],
    as_json: bool,
) -> None:
    jobs = list(_jobs(images, image_id, prompts, _objects(positive, negative, boxes)))
    image_id = image_id if images else None  # without an image, it is the name of a stored one
    if image_id is not None and len(jobs) != 1:
        raise InvalidRequest(f"--image-id names one image, but {len(jobs)} were given", "BAD_IMAGE_ID", "--image-id")
    is_folder = output is not None and str(output) != "-" and (output.is_dir() or (not output.suffix and len(jobs) > 1))
    wanted = formats.choose(form, output, is_folder)
    to_stdout = str(output) == "-"
    if to_stdout:
        check_stdout(is_text=wanted in formats.TEXTS)
    elif output is not None and len(jobs) > 1 and not is_folder and wanted != MaskFormat.COCO:
        raise InvalidRequest(
            f"{len(jobs)} images cannot be written to one file {output}; give a folder, or --format coco",
            "BAD_OUTPUT",
            "--output",
        )
    classes = list(dict.fromkeys(each.category or _CLASS for _, objects in jobs for each in objects))
    # With --json, files are written only if they are asked for.
    writes = not to_stdout and not (as_json and output is None and form is None)
    names = _names([source for source, _ in jobs], wanted, output, is_folder)
    errors, done, failed = Console(stderr=True), [], 0
    arguments = {"multimask": multimask, "every": every, "outputs": formats.NEEDED[wanted]}

    with Client(**connection) as client, ThreadPoolExecutor(_IMAGES_AT_ONCE) as threads:

        def attempt(job: _Job) -> tuple[Segmented, bool] | MaskwireError:
            try:
                return _segment(client, job, image_id, model, stretch, arguments)
            except MaskwireError as error:
                return error

        with errors.status(f"segmenting {jobs[0][0].text if len(jobs) == 1 else f'{len(jobs)} images'}"):
            try:
                for (source, _), name, outcome in zip(jobs, names, threads.map(attempt, jobs), strict=True):
                    try:
                        if isinstance(outcome, MaskwireError):
                            raise outcome
                        segmented, cached = outcome
                        done.append(segmented)
                        if wanted == MaskFormat.COCO:
                            written = []
                        else:
                            contents = formats.files(segmented, wanted, classes) if writes or to_stdout else []
                            written = formats.write(name, contents) if writes else []
                            if to_stdout:
                                write_stdout(contents)
                    except MaskwireError as error:
                        if len(jobs) == 1:
                            raise
                        failed += 1
                        _tell_error(source, error, as_json)
                        continue
                    _tell(segmented, cached, written, as_json, quiet=to_stdout or wanted == MaskFormat.COCO)
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise
    if wanted == MaskFormat.COCO and done:
        _write_coco(done, classes, output or Path(formats.ENDINGS[wanted][1:]), writes, to_stdout)
    if wanted == MaskFormat.YOLO and writes and classes != [_CLASS]:
        formats.write(names[0].with_name("classes.txt"), ["".join(f"{name}\n" for name in classes).encode()])
    note_demo(errors, {result.model for segmented in done for result in segmented.results})
    if failed:
        print(f"error: {failed} of {len(jobs)} images failed", file=sys.stderr)
        sys.exit(1)


def _objects(
    positive: Sequence[tuple[float, ...]], negative: Sequence[tuple[float, ...]], boxes: Sequence[tuple[float, ...]]
) -> list[Wanted]:
    """What the options ask for on each image: an object for each box, with the clicks where there is but one."""
    points, labels = [*positive, *negative], [1] * len(positive) + [0] * len(negative)
    if len(boxes) < 2:
        return [Wanted(Prompt(points, labels, boxes[0] if boxes else None))]
    if points:
        raise InvalidRequest(
            "with several boxes it is not clear whose the clicks are; give each object its clicks with --prompts FILE",
            "AMBIGUOUS_POINTS",
            "--point",
        )
    return [Wanted(Prompt(box=box)) for box in boxes]


def _jobs(images: Sequence[str], image_id: str | None, prompts: Path | None, objects: list[Wanted]) -> Iterator[_Job]:
    if prompts is not None:
        if images or objects != [Wanted(Prompt([], []))]:
            raise InvalidRequest(
                "--prompts names the images and their prompts; give no others", "BAD_PROMPTS", "--prompts"
            )
        for image, several in prompts_file.read(prompts).items():
            yield inputs.read(image), several
        return
    if not images and image_id is not None:
        yield inputs.stored(image_id), objects
        return
    if not images:
        raise InvalidRequest("give an image, such as photo.jpg, or --prompts FILE", "NO_IMAGE", "image")
    if len(images) > 1 and images.count("-") > 1:
        raise InvalidRequest("standard input is one image; '-' was given twice", "BAD_IMAGE", "image")
    for image in images:
        yield inputs.read(image), objects


def _names(sources: Sequence[Input], form: MaskFormat, output: Path | None, is_folder: bool) -> list[Path]:
    """Where each image's files go; images of the same name in different folders get a number."""
    if output is not None and not is_folder:
        return [output] * len(sources)
    folder = output or Path()
    taken: dict[str, int] = {}
    names = []
    for source in sources:
        taken[source.stem] = number = taken.get(source.stem, 0) + 1
        stem = source.stem if number == 1 else f"{source.stem}-{number}"
        names.append(folder / f"{stem}{formats.ENDINGS[form]}")
    return names


def _segment(
    client: Client, job: _Job, image_id: str | None, model: str, stretch: str, arguments: dict[str, Any]
) -> tuple[Segmented, bool]:
    """The objects of an image, and whether its embedding was there already."""
    source, objects = job
    image, cached = inputs.embedded(client, source, image_id, model, stretch)
    results = [
        result
        for start in range(0, len(objects), _PROMPTS_AT_ONCE)
        for result in client.segment_objects(
            image, [each.prompt for each in objects[start : start + _PROMPTS_AT_ONCE]], **arguments
        )
    ]
    return Segmented(source, results, [each.category or _CLASS for each in objects]), cached


def _write_coco(done: Sequence[Segmented], classes: Sequence[str], output: Path, writes: bool, to_stdout: bool) -> None:
    document = formats.coco(done, classes)
    if to_stdout:
        write_stdout([document])
    elif writes:
        path = output / "coco.json" if output.is_dir() else output
        formats.write(path, [document])
        print(f"{path}: {sum(len(each.results) for each in done)} objects of {len(done)} images", file=sys.stderr)


def _tell(segmented: Segmented, cached: bool, written: Sequence[Path], as_json: bool, quiet: bool) -> None:
    first = segmented.results[0]
    if as_json:
        summary = {"cached": cached, "timings": first.timings, "files": [str(file) for file in written]}
        print(json.dumps({**formats.describe(segmented), **summary}), flush=True)
    elif not quiet:
        origin = "cached" if cached else "encoded"
        scores = ", ".join(f"{mask.score:.2f}" for _, mask in segmented.masks)
        files = ", ".join(map(str, written))
        print(f"{files}: score {scores}, {origin}, {first.timings['total_ms']:.0f} ms in the decoder", flush=True)


def _tell_error(source: Input, error: MaskwireError, as_json: bool) -> None:
    if as_json:
        told = {"message": error.message, "reason": error.reason, "field": error.field}
        print(json.dumps({"image": source.text, "error": told}), flush=True)
    else:
        print(f"{source.text}: error: {error}", file=sys.stderr)
