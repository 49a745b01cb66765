"""The published models and what people call them."""

import re

import pytest
from maskwire.model_names import PUBLISHED_NAMES, canonical
from maskwire_core.models.registry import PUBLISHED


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sam2.1_hiera_tiny", "sam2.1_hiera_tiny"),
        ("hiera_tiny", "sam2.1_hiera_tiny"),
        ("hiera_b_plus", "sam2.1_hiera_base_plus"),
        ("sam2/hiera_large", "sam2.1_hiera_large"),
        ("facebook/sam2.1-hiera-tiny", "sam2.1_hiera_tiny"),
        ("facebook/sam2-hiera-base-plus", "sam2_hiera_base_plus"),
        ("sam2_hiera_s", "sam2_hiera_small"),
        ("sam2.1_hiera_b+", "sam2.1_hiera_base_plus"),
        ("demo", "demo"),
        ("my-model", "my-model"),
    ],
)
def test_what_people_call_models(name: str, expected: str) -> None:
    assert canonical(name) == expected


def test_eight_models_are_published() -> None:
    assert len(PUBLISHED) == 8
    assert set(PUBLISHED) == PUBLISHED_NAMES
    assert all(re.fullmatch("[0-9a-f]{64}", model.sha256) for model in PUBLISHED.values())
    assert PUBLISHED["sam2_hiera_tiny"].url.endswith("/072824/sam2_hiera_tiny.pt")
    assert PUBLISHED["sam2.1_hiera_large"].url.endswith("/092824/sam2.1_hiera_large.pt")
