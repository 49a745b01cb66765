"""The files of the pages."""

import httpx
import pytest

RUNTIME = "/assets/decoder/onnxruntime/ort.wasm.min.mjs"


@pytest.mark.usefixtures("browser_runtime")
def test_large_files_come_compressed_as_callers_understand(http: httpx.Client) -> None:
    sizes = []
    for accepted, coding in (("identity", None), ("gzip", "gzip"), ("gzip, deflate, br", "br")):
        with http.stream("GET", RUNTIME, headers={"Accept-Encoding": accepted}) as answer:
            sizes.append(sum(len(part) for part in answer.iter_raw()))
        assert answer.headers.get("content-encoding") == coding
        assert answer.headers["vary"] == "Accept-Encoding"
        assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 3 * sizes[1]
