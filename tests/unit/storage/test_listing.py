"""Listing of stored images, over the in-memory twin here and over real stores in tests/services."""

from maskwire_core.storage import listing
from maskwire_core.storage.embedding import Header, pack
from maskwire_core.storage.store import Store

KEY = "ab" * 32


def put(store: Store, namespace: str, image_ids: list[str]) -> None:
    header = Header(namespace, KEY, "demo", "f", "d", 40, 60, "fp16", 1.0)
    store.put_embedding(namespace, KEY, pack(header, {}), 60)
    for image_id in image_ids:
        store.set_alias(namespace, image_id, KEY, 60)


def all_pages(store: Store, namespace: str, prefix: str = "", size: int = 7) -> list[str]:
    found, token = [], ""
    while True:
        images, token = listing.list_page(store, namespace, prefix, size, token)
        found += images
        if not token:
            return found


def test_pages_hold_every_name_of_one_namespace(store: Store) -> None:
    names = [f"photo-{number}" for number in range(1000)] + ["a*b", "a?b", "axb", "[ab]", "a}b", "ü/1", "back\\slash"]
    put(store, "listing", names)
    put(store, "listing2", ["photo-other"])
    put(store, "listin", ["g/photo-trap"])
    assert sorted(set(all_pages(store, "listing"))) == sorted(names)
    assert set(all_pages(store, "listing2")) == {"photo-other"}
    for prefix, expected in (
        ("a*", {"a*b"}),
        ("a?", {"a?b"}),
        ("[", {"[ab]"}),
        ("back\\", {"back\\slash"}),
        ("ü", {"ü/1"}),
    ):
        assert set(all_pages(store, "listing", prefix)) == expected
    store.delete_embedding("listing2", KEY)
    assert all_pages(store, "listing2") == []  # a name that stands for nothing is no image
