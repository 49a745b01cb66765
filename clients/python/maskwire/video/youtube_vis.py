"""Masks of a clip as COCO for videos, in the form of YouTube-VIS."""

from collections.abc import Mapping, Sequence
from typing import Any

from pycocotools import mask as coco

from maskwire.video.mask_sequence import MaskSequence


def video_dataset(
    masks: MaskSequence, file_names: Sequence[str], times_s: Sequence[float], classes: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Makes a data set of one video, as the tools of YouTube-VIS read it.

    Each object is an annotation with a list of one segmentation (compressed RLE), box (x, y, width, height) and area
    for each frame, which is None where the object is not to be seen or was not followed. Beside the format's own
    fields, a video has the times of its frames, and an annotation the name of its object.

    Args:
        masks: The masks.
        file_names: Names of the frames' pictures, one for each frame of the clip.
        times_s: When each frame is shown, in seconds.
        classes: Name of each object's class; by default an object is the only one of a class of its name.
    """
    class_of = {name: (classes or {}).get(name, name) for name in masks.objects}
    categories = list(dict.fromkeys(class_of.values()))
    frames = [masks.rles(index) for index in range(len(file_names))]
    annotations = []
    for number, name in enumerate(masks.objects, 1):
        found = [frame.get(name) for frame in frames]
        encoded: list[Any] = [each and {**each, "counts": each["counts"].encode()} for each in found]
        annotations.append(
            {
                "id": number,
                "video_id": 1,
                "category_id": categories.index(class_of[name]) + 1,
                "object": name,
                "segmentations": found,
                "bboxes": [each and [float(value) for value in coco.toBbox(each)] for each in encoded],
                "areas": [each and int(coco.area(each)) for each in encoded],
                "width": masks.width,
                "height": masks.height,
                "length": len(file_names),
                "iscrowd": 0,
            }
        )
    return {
        "info": {"description": "Masks are compressed RLE, as pycocotools reads it; null: not there"},
        "videos": [
            {
                "id": 1,
                "width": masks.width,
                "height": masks.height,
                "length": len(file_names),
                "file_names": list(file_names),
                "times_s": [round(time_s, 6) for time_s in times_s],
            }
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(categories, 1)],
        "annotations": annotations,
    }
