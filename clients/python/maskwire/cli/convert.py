"""The command `maskwire convert`: data sets from one format to another."""

import json
import sys
import warnings

from maskwire import datasets
from maskwire.cli.convert_options import ConvertOptions


def convert_data_set(options: ConvertOptions) -> None:
    """Reads a data set, writes it in another format, and prints what it has."""
    with warnings.catch_warnings(record=True) as notes:
        images = datasets.read(options.data_set, options.source)
    for note in notes:
        print(note.message, file=sys.stderr)
    files = datasets.write(images, options.output, options.to, simplify_px=options.simplify_px, shapes=options.shapes)
    objects = sum(len(image.annotations) for image in images)
    if options.as_json:
        print(json.dumps({"images": len(images), "objects": objects, "files": [str(file) for file in files]}))
    else:
        print(f"{objects} objects of {len(images)} images: {files[0]}{', ...' if files[1:] else ''}")
