"""Label Studio's tags for masks, and what its regions hold."""

import base64
import io

import numpy as np
import pytest
from maskwire_adapters.label_config import Target, find_target
from maskwire_adapters.label_studio_regions import bitmask, vertices
from maskwire_core.http.problems import Problem
from PIL import Image


def config(*tags: str) -> str:
    labels = "".join(f'<{tag} name="{tag}-1" toName="img"><Label value="cup"/></{tag}>' for tag in tags)
    return f'<View><Image name="img" value="$picture"/>{labels}</View>'


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        (["VectorLabels", "PolygonLabels", "BitmaskLabels", "BrushLabels"], "brushlabels"),
        (["VectorLabels", "PolygonLabels", "BitmaskLabels"], "bitmasklabels"),
        (["RectangleLabels", "VectorLabels", "PolygonLabels"], "polygonlabels"),
        (["KeyPointLabels", "VectorLabels"], "vectorlabels"),
    ],
)
def test_masks_belong_to_the_tag_that_holds_them_best(tags: list[str], kind: str) -> None:
    found = find_target(config(*tags))
    assert found == Target(kind, f"{next(tag for tag in tags if tag.lower() == kind)}-1", "img", "picture")


def test_without_a_tag_for_masks_all_are_named() -> None:
    with pytest.raises(Problem, match="no BrushLabels, BitmaskLabels, PolygonLabels or VectorLabels with a name"):
        find_target(config("RectangleLabels"))


def test_a_bitmask_is_black_inside_the_mask_and_transparent_outside() -> None:
    mask = np.random.default_rng(1).random((17, 23)) < 0.5
    head, _, data = bitmask(mask).partition(",")
    assert head == "data:image/png;base64"
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(data))))
    assert pixels.shape == (17, 23, 4)
    np.testing.assert_array_equal(pixels[..., 3], np.where(mask, 255, 0))
    assert not pixels[..., :3].any()


def test_vertices_of_a_closed_path_name_the_one_before_them() -> None:
    made = vertices([[1.5, 2], [3, 4], [5, 6]])
    assert [(vertex["x"], vertex["y"]) for vertex in made] == [(1.5, 2), (3, 4), (5, 6)]
    assert [vertex["prevPointId"] for vertex in made] == [made[index - 1]["id"] for index in range(3)]
    assert len({vertex["id"] for vertex in made}) == 3
