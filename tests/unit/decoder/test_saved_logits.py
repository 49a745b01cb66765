"""Logits that decoders share through the store: what is damaged is dropped, and so is what exceeds the space."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from maskwire_core.config import DecoderSettings
from maskwire_core.errors import InvalidArgument
from maskwire_core.storage.logits import get_logits, save_logits, saved_prompts
from maskwire_core.storage.store import Store
from maskwire_decoder.prompts.parsing import Prompt
from maskwire_decoder.saved_logits import SavedLogits

SIZE = 4
ONE = np.arange(SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
IMAGE: Any = SimpleNamespace(
    header=SimpleNamespace(namespace="default", content_key="a" * 64),
    predictor=SimpleNamespace(config=SimpleNamespace(mask_size=SIZE)),
)


def saved(store: Store, masks: int) -> SavedLogits:
    """With space for a number of masks, of an embedding that is stored."""
    store.put_embedding("default", "a" * 64, b"an embedding", 100)
    return SavedLogits(DecoderSettings(saved_logits_bytes=masks * SIZE * SIZE * 4, _cli_parse_args=False), store)


def test_what_exceeds_the_space_is_dropped_oldest_first(store: Store) -> None:
    logits = saved(store, 2)
    for index, name in enumerate((b"first", b"second", b"third")):
        logits.save(IMAGE, {b"1 steps " + name: [0]}, [ONE + index])
    assert logits.load(IMAGE, "steps", b"first") is None
    found = logits.load(IMAGE, "steps", b"third")
    assert found is not None
    np.testing.assert_array_equal(found, [ONE + 2])
    assert logits.names(IMAGE, "steps")[0] == b"third"  # reading it made it the newest


def test_damaged_logits_are_dropped(store: Store) -> None:
    logits = saved(store, 9)
    logits.save(IMAGE, {b"1 steps name": [0]}, [ONE])
    field = ("default", "a" * 64, b"1 steps name")
    value = get_logits(store, *field)
    assert value is not None
    save_logits(store, *field, value[:-1] + b"?", 100)
    assert logits.load(IMAGE, "steps", b"name") is None
    assert get_logits(store, *field) is None
    assert logits.names(IMAGE, "steps") == []


def test_more_than_the_space_at_once_is_refused(store: Store) -> None:
    prompt = Prompt("", np.zeros((1, 2), np.float32), np.ones(1, np.int64))
    logits = saved(store, 2)
    assert list(logits.fields(IMAGE, [prompt] * 2).values()) == [[0, 1]]
    with pytest.raises(InvalidArgument, match="of 3 prompts") as caught:
        logits.fields(IMAGE, [prompt] * 3)
    assert caught.value.reason == "TOO_MUCH_TO_SAVE"


def test_the_tenant_that_saves_most_gives_way(store: Store) -> None:
    nbytes = SIZE * SIZE * 4
    limits = {"saved_logits_bytes": nbytes, "saved_logits_store_bytes": 4 * nbytes}
    logits = SavedLogits(DecoderSettings(**limits, _cli_parse_args=False), store)

    def save(namespace: str, key: str) -> None:
        store.put_embedding(namespace, key * 64, b"an embedding", 100)
        header = SimpleNamespace(namespace=namespace, content_key=key * 64)
        image: Any = SimpleNamespace(header=header, predictor=IMAGE.predictor)
        logits.save(image, {b"1 steps name": [0]}, [ONE])

    save("small", "a")
    for key in "abcdef":
        save("large", key)
    assert saved_prompts(store, "small", "a" * 64)
    assert [key for key in "abcdef" if saved_prompts(store, "large", key * 64)] == ["d", "e", "f"]
