"""The command `maskwire segment`."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from maskwire.cli import formats, inputs, prompts_file
from maskwire.cli.formats import Segmented
from maskwire.cli.inputs import Input
from maskwire.cli.options import EmbeddingOptions, LargeTiffOptions, MaskFormat, SegmentOptions
from maskwire.cli.output import check_stdout, describe_error, note_demo, write_stdout
from maskwire.cli.prompts_file import ObjectPrompt
from maskwire.cli.work import work_through
from maskwire.client import Client
from maskwire.errors import InvalidRequest, MaskwireError
from maskwire.prompts import Prompt

_IMAGES_AT_ONCE = 4
_PROMPTS_AT_ONCE = 64  # a request takes at most 128
_CLASS = "object"

_Job = tuple[Input, list[ObjectPrompt]]


def segment_images(options: SegmentOptions) -> None:
    """Segments objects of images and writes or prints the masks; exits with 1 if one of several images failed."""
    jobs = list(_jobs(options))
    embedding, output = options.embedding, options.output
    if not options.images:
        embedding = replace(embedding, image_id=None)  # without an image, it was the name of a stored one
    if embedding.image_id is not None and len(jobs) != 1:
        raise InvalidRequest(f"--image-id names one image, but {len(jobs)} were given", "BAD_IMAGE_ID", "--image-id")
    is_folder = output is not None and str(output) != "-" and (output.is_dir() or (not output.suffix and len(jobs) > 1))
    form = formats.choose_format(options.form, output, is_folder, without_overlay=options.large.large_tiff)
    to_stdout = str(output) == "-"
    if to_stdout:
        check_stdout(is_text=formats.FORMATS[form].is_text)
    elif output is not None and len(jobs) > 1 and not is_folder and form != "coco":
        raise InvalidRequest(
            f"{len(jobs)} images cannot be written to one file {output}; give a folder, or --format coco",
            "BAD_OUTPUT",
            "--output",
        )
    classes = list(dict.fromkeys(each.class_name or _CLASS for _, objects in jobs for each in objects))
    # With --json, files are written only on request.
    writes = not to_stdout and not (options.as_json and output is None and options.form is None)
    names = _file_names([source for source, _ in jobs], form, output, is_folder)
    errors, done, failed = Console(stderr=True), [], 0
    arguments = {
        "multimask": not options.single,
        "every": options.every,
        "outputs": formats.FORMATS[form].outputs,
        "region": options.region,
    }

    title = f"segmenting {jobs[0][0].text if len(jobs) == 1 else f'{len(jobs)} images'}"
    with options.servers.client() as client, errors.status(title):

        def segment(job: _Job) -> Segmented:
            return _segment_image(client, job, embedding, options.large, arguments)

        for ((source, _), segmented), name in zip(work_through(jobs, segment, _IMAGES_AT_ONCE), names, strict=True):
            try:
                if isinstance(segmented, MaskwireError):
                    raise segmented
                done.append(segmented)
                is_written = form != "coco" and (writes or to_stdout)
                contents = formats.encode_files(segmented, form, classes) if is_written else []
                if contents and to_stdout:
                    write_stdout(contents)
                written = formats.write_files(name, contents) if contents and writes else []
            except MaskwireError as error:
                if len(jobs) == 1:
                    raise
                failed += 1
                _print_error(source, error, options.as_json)
                continue
            _print(segmented, written, options.as_json, quiet=to_stdout or form == "coco")
    if form == "coco" and done:
        _write_coco(done, classes, output or Path(formats.FORMATS[form].ending[1:]), writes, to_stdout)
    if form == "yolo" and writes and classes != [_CLASS]:
        formats.write_files(names[0].with_name("classes.txt"), ["".join(f"{name}\n" for name in classes).encode()])
    note_demo(errors, {result.model for segmented in done for result in segmented.results})
    if failed:
        print(f"error: {failed} of {len(jobs)} images failed", file=sys.stderr)
        sys.exit(1)


def _objects(options: SegmentOptions) -> list[ObjectPrompt]:
    """Makes the prompts for each image: one object for each box, or a single object with all clicks."""
    positive, negative, boxes = options.points or [], options.negative or [], options.boxes or []
    points, labels = [*positive, *negative], [1] * len(positive) + [0] * len(negative)
    if len(boxes) < 2:
        return [ObjectPrompt(Prompt(points, labels, boxes[0] if boxes else None))]
    if points:
        raise InvalidRequest(
            "with several boxes it is ambiguous which object the clicks are for; give each object's clicks with "
            "--prompts FILE",
            "AMBIGUOUS_POINTS",
            "--point",
        )
    return [ObjectPrompt(Prompt(box=box)) for box in boxes]


def _jobs(options: SegmentOptions) -> Iterator[_Job]:
    """Yields each image with the prompts for it."""
    objects, images = _objects(options), options.images or []
    if options.prompts is not None:
        if images or objects != [ObjectPrompt(Prompt([], []))]:
            raise InvalidRequest(
                "--prompts names the images and their prompts; give no others", "BAD_PROMPTS", "--prompts"
            )
        for image, several in prompts_file.read_prompts(options.prompts).items():
            yield inputs.find_input(image), several
        return
    if not images and options.embedding.image_id is not None:
        yield inputs.stored_input(options.embedding.image_id), objects
        return
    if not images:
        raise InvalidRequest("give an image, such as photo.jpg, or --prompts FILE", "NO_IMAGE", "image")
    if len(images) > 1 and images.count("-") > 1:
        raise InvalidRequest("standard input is one image; '-' was given twice", "BAD_IMAGE", "image")
    for image in images:
        yield inputs.find_input(image), objects


def _file_names(sources: Sequence[Input], form: MaskFormat, output: Path | None, is_folder: bool) -> list[Path]:
    """Names the output file of each image; images with the same name in different folders get a number."""
    if output is not None and not is_folder:
        return [output] * len(sources)
    folder = output or Path()
    taken: dict[str, int] = {}
    names = []
    for source in sources:
        taken[source.stem] = number = taken.get(source.stem, 0) + 1
        stem = source.stem if number == 1 else f"{source.stem}-{number}"
        names.append(folder / f"{stem}{formats.FORMATS[form].ending}")
    return names


def _segment_image(
    client: Client, job: _Job, embedding: EmbeddingOptions, large: LargeTiffOptions, arguments: dict[str, Any]
) -> Segmented:
    source, objects = job
    image, cached = inputs.embed_input(client, source, embedding, large)
    results = [
        result
        for start in range(0, len(objects), _PROMPTS_AT_ONCE)
        for result in client.segment_objects(
            image, [each.prompt for each in objects[start : start + _PROMPTS_AT_ONCE]], **arguments
        )
    ]
    return Segmented(source, results, [each.class_name or _CLASS for each in objects], cached)


def _write_coco(done: Sequence[Segmented], classes: Sequence[str], output: Path, writes: bool, to_stdout: bool) -> None:
    document = formats.encode_coco(done, classes)
    if to_stdout:
        write_stdout([document])
    elif writes:
        path = output / "coco.json" if output.is_dir() else output
        formats.write_files(path, [document])
        print(f"{path}: {sum(len(each.results) for each in done)} objects of {len(done)} images", file=sys.stderr)


def _print(segmented: Segmented, written: Sequence[Path], as_json: bool, quiet: bool) -> None:
    first = segmented.results[0]
    if as_json:
        summary = {"cached": segmented.cached, "timings": first.timings, "files": [str(file) for file in written]}
        print(json.dumps({**formats.describe(segmented), **summary}), flush=True)
    elif not quiet:
        origin = "cached" if segmented.cached else "encoded"
        scores = ", ".join(f"{mask.score:.2f}" for _, mask in segmented.masks)
        files = ", ".join(map(str, written))
        print(f"{files}: score {scores}, {origin}, {first.timings['total_ms']:.0f} ms in the decoder", flush=True)


def _print_error(source: Input, error: MaskwireError, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"image": source.text, "error": describe_error(error)}), flush=True)
    else:
        print(f"{source.text}: error: {error}", file=sys.stderr)
