"""Clips: reading their frames one by one, and writing masks of their objects as data sets, pictures and films.

A `Clip` is a film (PyAV: pip install "maskwire[video]"), an animated picture, a folder of pictures, or a list of them.
A `MaskSequence` has the masks of objects frame by frame, and `save` writes it.
"""

from maskwire.video.clip import Clip, ClipArguments, ClipLike
from maskwire.video.frame import Frame
from maskwire.video.mask_sequence import MaskSequence
from maskwire.video.saving import SavedForm, save

__all__ = ["Clip", "ClipArguments", "ClipLike", "Frame", "MaskSequence", "SavedForm", "save"]
