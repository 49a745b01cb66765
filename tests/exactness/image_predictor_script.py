"""A script for sam2 that goes the way of sam2's notebook image_predictor_example: clicks, refinement, boxes, batches.

tests/exactness/test_image_predictor.py runs it as it is, and with `from sam2.` changed to `from maskwire.sam2.`. It
finds `CHECKPOINT`, `CONFIG` and `PICTURES` (paths of two pictures), and leaves what was predicted in `predicted`.
"""

# ruff: noqa: F821

import numpy as np
from PIL import Image
from sam2.build_sam import build_sam2
from sam2.sam2_image_predictor import SAM2ImagePredictor

predicted = {}

sam2_model = build_sam2(CONFIG, CHECKPOINT, device="cpu")
predictor = SAM2ImagePredictor(sam2_model)

first, second = (np.array(Image.open(path).convert("RGB")) for path in PICTURES)
predictor.set_image(first)

# One click, three candidates; the best one's logits refine the next prediction.
input_point = np.array([[300, 200]])
input_label = np.array([1])
masks, scores, logits = predictor.predict(point_coords=input_point, point_labels=input_label, multimask_output=True)
predicted["a click"] = masks, scores, logits
sorted_ind = np.argsort(scores)[::-1]
masks, scores, logits = masks[sorted_ind], scores[sorted_ind], logits[sorted_ind]

input_point = np.array([[300, 200], [260.5, 130.25]])
input_label = np.array([1, 1])
mask_input = logits[np.argmax(scores), :, :]
predicted["refined"] = predictor.predict(
    point_coords=input_point, point_labels=input_label, mask_input=mask_input[None, :, :], multimask_output=False
)
predicted["refined, excluding"] = predictor.predict(
    point_coords=input_point, point_labels=np.array([1, 0]), mask_input=mask_input[None, :, :], multimask_output=False
)
predicted["a mask alone"] = predictor.predict(mask_input=mask_input[None, :, :], multimask_output=True)

# A box, alone and with a click.
input_box = np.array([150, 60, 480, 330])
predicted["a box"] = predictor.predict(
    point_coords=None, point_labels=None, box=input_box[None, :], multimask_output=False
)
predicted["a box and a click"] = predictor.predict(
    point_coords=np.array([[250, 100]]), point_labels=np.array([0]), box=input_box, multimask_output=False
)

# Several boxes at once, and several clicks.
input_boxes = np.array([[150, 60, 480, 330], [10, 20, 200, 300], [300, 100, 590, 390]])
predicted["boxes"] = predictor.predict(point_coords=None, point_labels=None, box=input_boxes, multimask_output=False)
predicted["boxes and clicks, candidates"] = predictor.predict(
    point_coords=np.array([[[300, 200]], [[100, 100]], [[400, 300]]]),
    point_labels=np.array([[1], [1], [0]]),
    box=input_boxes,
    multimask_output=True,
)

# Logits of the image's size, fractions instead of pixels, and the most prominent object.
predicted["logits"] = predictor.predict(
    point_coords=np.array([[300, 200]]), point_labels=np.array([1]), return_logits=True
)
predicted["fractions"] = predictor.predict(
    box=np.array([0.25, 0.125, 0.75, 0.5]), return_logits=True, normalize_coords=False, multimask_output=False
)
predicted["the most prominent"] = predictor.predict(point_coords=np.array([[0, 0]]), point_labels=np.array([-1]))

# Two pictures at once.
predictor.set_image_batch([first, second])
masks_batch, scores_batch, logits_batch = predictor.predict_batch(
    None, None, box_batch=[input_boxes, np.array([[20, 30, 300, 400]])], multimask_output=False
)
for index in range(2):
    predicted[f"batch of boxes {index}"] = masks_batch[index], scores_batch[index], logits_batch[index]
masks_batch, scores_batch, logits_batch = predictor.predict_batch(
    [np.array([[[300, 200]], [[100, 100]]]), np.array([[[200, 300]]])],
    [np.array([[1], [1]]), np.array([[1]])],
    box_batch=None,
    multimask_output=True,
)
for index in range(2):
    predicted[f"batch of clicks {index}"] = masks_batch[index], scores_batch[index], logits_batch[index]
