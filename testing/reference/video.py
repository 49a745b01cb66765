"""sam2's own video predictor, which Maskwire's tracker must equal."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import sam2.utils.misc
import torch
from numpy.typing import NDArray
from PIL import Image
from sam2.build_sam import build_sam2_video_predictor

CONFIGS = {"2.1": "configs/sam2.1/sam2.1_hiera_t.yaml", "2.0": "configs/sam2/sam2_hiera_t.yaml"}
_VISIBLE = 0.3  # bias of the object score, with which objects of seeded models hardly ever vanish


def build_video(version: str, size: int, changes: Sequence[str] = (), seed: int = 0) -> Any:
    """Builds a `SAM2VideoPredictor` with seeded weights in which every part matters.

    sam2's initial weights leave most of the memory without effect (layer scales of 1e-6, equal layers), so that an
    error would not show: every parameter is perturbed, attention is made to choose, and masks reach the saturation that
    logits are clamped to when they are fed back.

    Args:
        version: "2.0" or "2.1", of the tiny model.
        size: Side of the model's input in pixels.
        changes: Hydra overrides.
        seed: Seed of torch's random numbers.
    """
    torch.manual_seed(seed)
    overrides = [f"++model.image_size={size}", *changes]
    model = build_sam2_video_predictor(CONFIGS[version], None, device="cpu", hydra_overrides_extra=overrides)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() == 1:
                value.add_(0.1 * torch.randn_like(value))
            elif "layers" in name:  # layers are clones, with one another's weights
                value.add_(0.3 * value.std() * torch.randn_like(value))
            if name.endswith("gamma"):
                value.add_(0.5)
        for layer in model.memory_attention.layers:
            for attention in (layer.self_attn, layer.cross_attn_image):
                attention.q_proj.weight.mul_(4)
                attention.k_proj.weight.mul_(4)
            layer.cross_attn_image.out_proj.weight.mul_(4)
        for head in model.sam_mask_decoder.output_hypernetworks_mlps:
            head.layers[-1].weight.mul_(40)
            head.layers[-1].bias.mul_(40)
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(_VISIBLE)
    _mend(model)
    return model.eval().requires_grad_(False)


def make_objects_vanish(model: Any, clip: Path, places: Sequence[tuple[float, float]], gone: Collection[int]) -> None:
    """Fits the head of the object score, so that objects are gone on some frames of a clip and visible on the others.

    The score of seeded weights hardly changes from frame to frame. The last layer of its head is fitted to what it sees
    while objects are followed through the clip both ways: first when they are never gone, then when they always are,
    and last as the layer fitted so far says.

    Args:
        model: A `SAM2VideoPredictor`, which is changed.
        clip: Folder of the clip's JPEGs.
        places: x and y of clicks on objects, in pixels of the frames.
        gone: Frames on which they are to be gone.
    """
    layer = model.sam_mask_decoder.pred_obj_score_head.layers[-1]
    given: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].reshape(-1, layer.in_features)))
    rows: list[torch.Tensor] = []
    wanted: list[float] = []
    layer.weight.zero_()
    for bias in (1.0, -1.0, None, None):
        if bias is not None:
            layer.bias.fill_(bias)
        for backwards in (False, True):
            state = model.init_state(str(clip))
            start = state["num_frames"] - 1 if backwards else 0
            for name, place in enumerate(places):
                model.add_new_points_or_box(state, start, name, points=np.array([place], np.float32), labels=np.ones(1))
            model.propagate_in_video_preflight(state)
            given.clear()
            for frame, _, _ in model.propagate_in_video(state, start, reverse=backwards):
                wanted += [-1.0 if frame in gone else 1.0] * len(given)
                rows += given
                given.clear()
        if bias != 1:
            _fit(layer, torch.cat(rows), torch.tensor(wanted))
    hook.remove()


def _fit(layer: torch.nn.Linear, rows: torch.Tensor, wanted: torch.Tensor) -> None:
    """Fits a layer with one output to rows of inputs, by ridge regression."""
    given, wanted = rows.double(), wanted.double()
    middle = given.mean(0)
    centred = given - middle
    product = centred @ centred.T
    ridge = 1e-4 * product.diagonal().mean() * torch.eye(len(given), dtype=torch.double)
    weight = centred.T @ torch.linalg.solve(product + ridge, wanted - wanted.mean())
    layer.weight.copy_(weight[None])
    layer.bias.fill_(float(wanted.mean() - weight @ middle))


def _mend(model: Any) -> None:
    """Mends what sam2 1.1.0 cannot do on a CPU, or at all."""
    # Where no pointer is in reach, bf16 memories meet fp32 weights, which fails outside of autocast.
    model.memory_attention.register_forward_pre_hook(
        lambda _, args, kwargs: (args, {**kwargs, "memory": kwargs["memory"].float()}), with_kwargs=True
    )

    # With clear_non_cond_mem_around_input it calls a method that does not exist: that of one object.
    def clear(state: dict[str, Any], frame: int, index: int) -> None:
        followed = state["output_dict_per_obj"][index]["non_cond_frame_outputs"]
        reach = model.memory_temporal_stride_for_eval * model.num_maskmem
        for near in range(frame - reach, frame + reach + 1):
            followed.pop(near, None)

    model._clear_obj_non_cond_mem_around_input = clear
    # A frame's features are kept, of all frames: sam2 keeps one frame's.
    encode, known = model.forward_image, {}

    def forward_image(image: torch.Tensor) -> Any:
        key = image.numpy().tobytes()
        if key not in known:
            known[key] = encode(image)
        return {name: list(value) if isinstance(value, list) else value for name, value in known[key].items()}

    model.forward_image = forward_image


def fill_holes_without_cuda() -> None:
    """Makes sam2 fill holes without its CUDA extension: OpenCV finds them."""

    def components(inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        _, labels, stats, _ = cv2.connectedComponentsWithStats(inside[0, 0].numpy().astype(np.uint8), connectivity=8)
        areas = np.where(labels > 0, stats[labels, cv2.CC_STAT_AREA], 0)
        return torch.from_numpy(labels)[None, None], torch.from_numpy(areas)[None, None]

    sam2.utils.misc.get_connected_components = components


def write_clip(folder: Path, photograph: Path, frames: int, width: int, height: int, step: int = 6) -> Path:
    """Writes a clip, a photograph that slides and grows, as the folder of JPEGs that sam2 reads."""
    folder.mkdir(parents=True)
    with Image.open(photograph) as opened:
        picture = opened.convert("RGB")
    for index in range(frames):
        zoom = 1 + 0.02 * index
        enlarged = picture.resize((round(width * 1.6 * zoom), round(height * 1.6 * zoom)))
        left, top = 40 + step * index, 30 + step * index // 2
        frame = enlarged.crop((left, top, left + width, top + height))
        frame.save(folder / f"{index:05d}.jpg", quality=92)
    return folder


def embeddings(model: Any, images: torch.Tensor) -> list[dict[str, NDArray[np.float32]]]:
    """Returns what Maskwire's encoder stores for each frame, in fp32."""
    import copy

    from maskwire_encoder.backends.features import NAMES, ImageFeatures

    bare = copy.copy(model)
    bare._modules = {**model._modules, "image_encoder": copy.deepcopy(model.image_encoder)}  # ImageFeatures changes it
    features = ImageFeatures(bare).eval()
    with torch.inference_mode():
        return [
            {name: value[0].numpy() for name, value in zip(NAMES, features(image[None]), strict=True)}
            for image in images
        ]
