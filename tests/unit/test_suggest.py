"""The words for names that do not exist."""

import pytest
from maskwire.suggest import no_such

NAMES = ["points", "labels", "box", "mask_threshold"]


@pytest.mark.parametrize(
    ("name", "meant"), [("pionts", "points"), ("mask_treshold", "mask_threshold"), ("Labels", "labels")]
)
def test_a_close_name_is_suggested(name: str, meant: str) -> None:
    assert no_such("argument", name, NAMES) == f"no argument {name!r}; did you mean {meant!r}?"


def test_few_names_are_listed_where_none_is_close() -> None:
    assert no_such("field", "zzz", NAMES) == "no field 'zzz'; choose from box, labels, mask_threshold, points"


def test_many_names_are_not_listed() -> None:
    assert no_such("field", "zzz", [f"name_{number}" for number in range(40)]) == "no field 'zzz'"


def test_what_is_no_name_at_all_is_cut_short() -> None:
    said = no_such("field", "x" * 1_000_000, NAMES)
    assert said.startswith("no field 'xxx")
    assert len(said) < 200
