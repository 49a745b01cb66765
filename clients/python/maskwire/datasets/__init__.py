"""Data sets in the formats of labelling tools and trainers: what people drew, and masks.

    from maskwire import datasets

    images = datasets.read("annotations.xml")       # of CVAT, Label Studio or COCO
    datasets.write(images, "voc", "voc")            # as COCO, labelme, YOLO or Pascal VOC

`AnnotatedImage.prompts()` makes prompts of boxes and clicks, for `Client.segment_objects`.
"""

from maskwire.datasets.annotations import AnnotatedImage, Annotation
from maskwire.datasets.reading import read
from maskwire.datasets.writing import write

__all__ = ["AnnotatedImage", "Annotation", "read", "write"]
