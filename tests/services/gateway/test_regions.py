"""Regions over HTTP: cut from the file that the encoder keeps of an image."""

import httpx

from testing.wire import picture

SPACE = {"namespace": "http-regions"}


def test_a_region_is_cut_from_the_kept_file(http: httpx.Client) -> None:
    data = picture(51, 300, 200)
    kept = http.post("/v1/images", content=data, params={**SPACE, "keep_source": "true"}).json()["image"]
    of = {**SPACE, "region": "10,20,110,120", "region_of": kept["content_key"], "from_source": "true"}
    answer = http.post("/v1/images", params=of)
    assert answer.status_code == 200, answer.text
    assert answer.json()["image"]["region"] == {"x_min_px": 10, "y_min_px": 20, "x_max_px": 110, "y_max_px": 120}
    refused = http.post("/v1/images", params=of, content=data)
    assert (refused.status_code, refused.json()["reason"]) == (400, "BAD_SOURCE")
    not_kept = http.post("/v1/images", content=picture(52, 300, 200), params=SPACE).json()["image"]
    refused = http.post("/v1/images", params={**of, "region_of": not_kept["content_key"]})
    assert (refused.status_code, refused.json()["reason"], refused.json()["field"]) == (
        409,
        "SOURCE_NOT_KEPT",
        "from_source",
    )
