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


@pytest.mark.usefixtures("browser_runtime")
def test_the_runtime_for_webgpu_is_there_and_compressed(http: httpx.Client) -> None:
    for name in ("ort.jspi.min.mjs", "ort-wasm-simd-threaded.jspi.mjs", "ort-wasm-simd-threaded.jspi.wasm"):
        path = f"/assets/decoder/onnxruntime/{name}"
        answer = http.head(path, headers={"Accept-Encoding": "br"})
        assert answer.status_code == 200
        assert answer.headers["content-encoding"] == "br"
        assert int(answer.headers["content-length"]) < 2_700_000
    assert http.head("/assets/decoder/onnxruntime/ort.other.mjs").status_code == 404
