"""The process that reads image files for an encoder: `python -m maskwire_encoder.image_input.reader_main BUFFER SIZE`.

It reads jobs from standard input and answers on standard output, a JSON object a line (`ReaderProcess` is the other
side); files and pixels are in the shared buffer. It imports the client's picture reader and nothing that holds models,
connections or secrets. Before each job it limits itself to the memory and the processor time that the job allows, so
that a file beyond them ends this process and nothing else.
"""

import contextlib
import json
import logging
import os
import resource
import sys
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL.ImageCms  # colour profiles are read with it; loaded before the first file comes
from maskwire.pictures import PictureError
from maskwire.pictures.libtiff import silence_libtiff
from PIL import AvifImagePlugin, Image

from maskwire_encoder.image_input.decoding import decode
from maskwire_encoder.image_input.shared_buffer import SharedBuffer

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MOST_WARNINGS = 3
_MOST_THREADS = 4  # of a decoder; HEIC's takes as many


def limit(memory_bytes: int, cpu_s: float) -> None:
    """Limits what this process may take from now on: bytes of private memory, and seconds of all threads together.

    RLIMIT_DATA rather than RLIMIT_AS: it does not count the shared buffer, libraries and what threads only reserve.
    """
    with contextlib.suppress(OSError):  # systems without /proc
        held = int(Path("/proc/self/statm").read_text().split()[5]) * _PAGE
        resource.setrlimit(resource.RLIMIT_DATA, (held + memory_bytes, resource.RLIM_INFINITY))
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + cpu_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))


def read(job: dict[str, Any], buffer: SharedBuffer) -> dict[str, Any]:
    """Decodes a file of the buffer into the buffer."""
    data = buffer.read_file(job["size"])
    limit(job["memory_bytes"], job["cpu_s"])
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            picture = decode(data, job["max_pixels"], job["stretch"], buffer.room)
            place = buffer.put(picture.pixels)
        except PictureError as error:
            return {"reason": error.reason, "message": error.message}
    said = list(dict.fromkeys(" ".join(str(each.message).split())[:200] for each in heard))[:_MOST_WARNINGS]
    return {"place": place, "format": picture.format, "stretch": picture.stretch, "warnings": said}


def main(buffer: SharedBuffer, jobs: IO[str], answers: IO[str]) -> None:
    """Answers jobs until there are no more."""
    print("{}", file=answers, flush=True)  # ready
    for line in jobs:
        answer = read(json.loads(line), buffer)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    np.seterr(all="ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    # Each thread's stack counts as memory; several processes share the cores anyway.
    AvifImagePlugin.DEFAULT_MAX_THREADS = min(_MOST_THREADS, os.cpu_count() or 1)
    silence_libtiff()
    Image.preinit()
    assert PIL.ImageCms
    main(SharedBuffer(int(sys.argv[2]), int(sys.argv[1])), sys.stdin, answers)
