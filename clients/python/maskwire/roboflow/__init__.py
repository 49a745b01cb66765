"""What scripts for SAM 2 in Roboflow's package `inference` import, answered by Maskwire's servers:

from maskwire.roboflow import Sam2PromptSet, SegmentAnything2, masks2poly
"""

from maskwire.roboflow.polygons import masks2poly
from maskwire.roboflow.prompt_set import Box, Point, Sam2Prompt, Sam2PromptSet
from maskwire.roboflow.segment_anything2 import SegmentAnything2, SegmentAnything2WithScores, Segmented

__all__ = [
    "Box",
    "Point",
    "Sam2Prompt",
    "Sam2PromptSet",
    "SegmentAnything2",
    "SegmentAnything2WithScores",
    "Segmented",
    "masks2poly",
]
