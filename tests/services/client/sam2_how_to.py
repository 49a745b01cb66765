"""A script for Roboflow's package that goes the way of its published how-to for SAM 2: the most prominent mask, a
negative click, and pictures drawn by supervision.

tests/services/client/test_roboflow_face.py runs it with the imports from `inference` changed, from a folder that has
examples/sam2/hand.png.
"""

import numpy as np
import supervision as sv
from inference.core.entities.requests.sam2 import Sam2PromptSet
from inference.core.utils.postprocess import masks2poly
from inference.models.sam2 import SegmentAnything2
from PIL import Image

image_path = "./examples/sam2/hand.png"
m = SegmentAnything2(model_id="sam2/hiera_large")

embedding, img_shape, id_ = m.embed_image(image_path)
raw_masks, raw_low_res_masks = m.segment_image(image_path)
raw_masks = raw_masks >= m.predictor.mask_threshold
poly_masks = masks2poly(raw_masks)

point = [250, 300]
prompt = Sam2PromptSet(prompts=[{"points": [{"x": point[0], "y": point[1], "positive": False}]}])
raw_masks2, raw_low_res_masks2 = m.segment_image(image_path, prompts=prompt)
raw_masks2 = raw_masks2 >= m.predictor.mask_threshold
raw_masks2 = raw_masks2[0]

image = np.array(Image.open(image_path).convert("RGB"))
mask_annotator, dot_annotator = sv.MaskAnnotator(), sv.DotAnnotator()


def draw(mask):
    detections = sv.Detections(xyxy=np.array([[0, 0, 100, 100]]), mask=np.array([mask]))
    detections.class_id = np.arange(len(detections))
    return mask_annotator.annotate(image.copy(), detections)


Image.fromarray(draw(raw_masks)).save("sam.png")
dot = np.array([[point[0] - 1, point[1] - 1, point[0] + 1, point[1] + 1]])
annotated = dot_annotator.annotate(draw(raw_masks2), sv.Detections(xyxy=dot, class_id=np.array([1])))
Image.fromarray(annotated).save("sam_negative_prompted.png")
