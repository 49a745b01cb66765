"""The command `maskwire merge-shards`."""

import contextlib
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from maskwire.cli.prelabel_options import MergeShardsOptions
from maskwire.cli.prelabel_report import print_summary
from maskwire.errors import InvalidRequest
from maskwire.prelabelling import boxes_file, journal, output
from maskwire.prelabelling.boxes_file import BoxesFile
from maskwire.prelabelling.journal import Header, Journal
from maskwire.prelabelling.shards import Shard, find_shards


def merge_shards(options: MergeShardsOptions) -> None:
    """Writes one data set from the journals of all shards; exits with 1 if images had failed."""
    paths = options.shards or find_shards(options.out)
    if not paths:
        raise InvalidRequest(
            f"no shards beside {options.out}, such as {options.out.name}.shard-1-of-8; name their files",
            "NO_SHARDS",
            "shards",
        )
    with contextlib.ExitStack() as opened:
        journals = [opened.enter_context(journal.reading(path)) for path in paths]
        shards = _check_shards(journals)
        header = _check_options(journals)
        boxes = boxes_file.read(options.boxes, header.replace)
        if boxes.sha256 != header.boxes_sha256:
            raise InvalidRequest(
                f"{options.boxes} is not the file that the shards were made with; give that one, unchanged",
                "OTHER_BOXES",
                "--boxes",
            )
        _check_complete(journals, shards, boxes)
        content = output.assemble(boxes.document, chain.from_iterable(each.done() for each in journals))
        output.check_free(options.out, options.boxes, [output.digest_of(content)])
        output.write(options.out, content)
        states = [each.state for each in journals]
        more = {"output": str(options.out), "shards": len(journals)}
        failed = print_summary(boxes.images, states, more, options.as_json)
    if failed:
        sys.exit(1)


def _check_shards(journals: Sequence[Journal]) -> list[Shard]:
    """Returns the shards of journals, after a check that they are the shards of one job, each once."""
    found: dict[Shard, Path] = {}
    for each in journals:
        header = each.state.header
        if header is None or not header.shard:
            what = "has not begun" if header is None else "is a whole job rather than a shard"
            raise _wrong(f"{each.path} {what}; give what 'maskwire prelabel --shard I/N' wrote")
        shard = Shard.parse(header.shard)
        if shard in found:
            raise _wrong(f"{found[shard]} and {each.path} are both the shard {shard}; give one of them")
        found[shard] = each.path
    counts = sorted({shard.count for shard in found})
    if len(counts) > 1:
        raise _wrong(
            f"there are shards of {counts[0]} and of {counts[1]}; name the files of one job, or remove the others"
        )
    missing = [str(Shard(number, counts[0])) for number in range(1, counts[0] + 1)]
    missing = [name for name in missing if name not in map(str, found)]
    if missing:
        raise _wrong(f"shards are missing: {', '.join(missing)}; run them, or name their files")
    return list(found)


def _check_options(journals: Sequence[Journal]) -> Header:
    first, *others = [each.state.header for each in journals]
    assert first is not None
    for each, header in zip(journals[1:], others, strict=True):
        assert header is not None
        differences = [name for name in first.differences(header) if name != "shard"]
        if differences:
            name = differences[0]
            raise _wrong(
                f"{journals[0].path} and {each.path} were made differently: {name} is {getattr(first, name)!r} and "
                f"{getattr(header, name)!r}; delete one and run that shard again"
            )
    return first


def _check_complete(journals: Sequence[Journal], shards: Sequence[Shard], boxes: BoxesFile) -> None:
    for each, shard in zip(journals, shards, strict=True):
        images = [image.image for image in shard.of(boxes.images)]
        left = sum(image not in each.state.masks and image not in each.state.failed for image in images)
        if left:
            raise _wrong(
                f"the shard {shard} lacks {left} of {len(images)} images; run it again, and it does what is left"
            )


def _wrong(message: str) -> InvalidRequest:
    return InvalidRequest(message, "BAD_SHARDS", "shards")
