"""Fixtures: a decoder service in this process, on a store in memory, with a model that can be checked by hand."""

from collections.abc import Callable

import numpy as np
import pytest
from maskwire_core.storage.store import Store
from numpy.typing import NDArray

from testing.plain_decoder import HEIGHT, MASK_SIZE, WIDTH, PlainDecoder, put_image


@pytest.fixture
def image(store: Store) -> NDArray[np.float32]:
    """The embedding of the stored image `cup` of 120x80 pixels."""
    values = np.random.default_rng(3).normal(0, 0.5, (MASK_SIZE, MASK_SIZE)).astype(np.float32)
    put_image(store, "cup", values, WIDTH, HEIGHT)
    return values


@pytest.fixture
def decoder(store: Store) -> PlainDecoder:
    return PlainDecoder(store)


@pytest.fixture
def another(store: Store) -> Callable[[], PlainDecoder]:
    """Starts another decoder on the same store."""
    return lambda: PlainDecoder(store)
