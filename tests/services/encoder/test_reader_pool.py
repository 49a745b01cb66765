"""The processes that read image files: the same pixels as in this process, and limits that end a process alone."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from maskwire.pictures import Picture, PictureError, Stretch
from maskwire.pictures.cost import Cost, estimate
from maskwire_encoder.image_input.reader_pool import Abandoned, Handle, ReaderPool
from maskwire_encoder.image_input.reader_process import Job
from maskwire_encoder.image_input.reading import read_image
from numpy.typing import NDArray
from PIL import ExifTags, Image

from testing.paths import ROOT
from testing.picture_files import by_pillow, deep_tiffs, pngs, slow_bmp

MOST = 20_000_000


@pytest.fixture(scope="module")
def pool() -> Iterator[ReaderPool]:
    one = ReaderPool(2, 3 * MOST)
    one.wait_until_ready()
    yield one
    one.close()


def read(pool: ReaderPool, data: bytes, stretch: Stretch = "auto", cost: Cost | None = None) -> NDArray[np.uint8]:
    def use(picture: Picture, warnings: list[str]) -> NDArray[np.uint8]:
        view = picture.pixels
        assert view.strides == in_process.strides or view.size == 3 or 1 in view.shape
        return view.copy()

    in_process = read_image(data, MOST, stretch).pixels if cost is None else np.empty((1, 1, 3), np.uint8)
    return pool.read(Job(data, stretch, MOST, cost or estimate(data)), Handle(), use)


def test_sample_pictures_are_the_same(pool: ReaderPool) -> None:
    for path in (ROOT / "examples").glob("*.jpg"):
        data = path.read_bytes()
        np.testing.assert_array_equal(read(pool, data), read_image(data, MOST).pixels)


def test_each_kind_of_file_is_the_same(pool: ReaderPool) -> None:
    for name, (data, _) in {**deep_tiffs(), **pngs()}.items():
        np.testing.assert_array_equal(read(pool, data), read_image(data, MOST).pixels, err_msg=name)


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(0, 2**32),
    st.sampled_from(["RGB", "L", "RGBA", "P", "CMYK", "1", "I;16"]),
    st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "PPM", "TGA"]),
    st.integers(1, 8),
    st.sampled_from(["auto", "none", "range", "percentile"]),
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_pictures_are_the_same(
    pool: ReaderPool, width: int, height: int, seed: int, mode: str, form: str, orientation: int, stretch: Stretch
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    image = Image.fromarray(noise).convert("L" if mode == "I;16" else mode).convert(mode)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    try:
        data = by_pillow(image, form, exif=exif)
    except (OSError, KeyError, ValueError):  # the format does not have that mode
        data = by_pillow(image.convert("RGB"), form, exif=exif)
    np.testing.assert_array_equal(read(pool, data, stretch), read_image(data, MOST, stretch).pixels)


def test_errors_are_the_same(pool: ReaderPool) -> None:
    png = by_pillow(Image.new("RGB", (60, 40)), "PNG")
    for data in (png[:60], png[:30], b"hello", b"", by_pillow(Image.new("RGB", (5000, 5000)), "PNG")):
        errors = []
        for way in (lambda d: read_image(d, MOST), lambda d: read(pool, d, cost=Cost(1, 1 << 28, 5))):
            with pytest.raises(Exception) as caught:  # noqa: PT011 - compared below
                way(data)
            errors.append((caught.value.reason, caught.value.message))  # type: ignore[attr-defined]
        assert errors[0] == errors[1]


def refused(pool: ReaderPool, data: bytes, cost: Cost) -> PictureError:
    with pytest.raises(PictureError) as caught:
        read(pool, data, cost=cost)
    return caught.value


def test_limits_end_the_process_and_nothing_else(pool: ReaderPool) -> None:
    slow = refused(pool, slow_bmp(800), Cost(1, 1 << 28, 0))
    assert slow.reason == "IMAGE_TOO_COSTLY"
    assert "longer than" in slow.message
    assert "JPEG or PNG" in slow.message
    large = refused(pool, by_pillow(Image.new("RGB", (4000, 4000)), "PNG"), Cost(1, 10 << 20, 5))
    assert large.reason == "IMAGE_TOO_COSTLY"
    assert "memory" in large.message
    png = by_pillow(Image.new("RGB", (60, 40), "red"), "PNG")
    for _ in range(4):
        assert (read(pool, png) == (255, 0, 0)).all()


class Reading(threading.Thread):
    """Decodes a slow file on a thread of its own.

    Attributes:
        handle: Lets who wants the file leave.
        raised: What the decoding raised.
    """

    def __init__(self, pool: ReaderPool) -> None:
        super().__init__()
        self.handle = Handle()
        self.raised: Exception | None = None
        self._pool = pool

    def run(self) -> None:
        job = Job(slow_bmp(6000), "auto", MOST, Cost(1, 1 << 28, 60))
        try:
            self._pool.read(job, self.handle, lambda picture, warnings: None)
        except Exception as error:
            self.raised = error

    def working(self, known: dict[int, float]) -> int | None:
        """The process that has worked since `known`; None if the work has ended."""
        while self.is_alive():
            for pid, seconds in cpu_s(self._pool).items():
                if seconds > known.get(pid, 0.3) + 0.3:
                    return pid
            time.sleep(0.01)
        return None


def cpu_s(pool: ReaderPool) -> dict[int, float]:
    """Processor time of each process of a pool."""
    used = {}
    for pid in pool.pids:
        with contextlib.suppress(FileNotFoundError):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            used[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def test_the_work_ends_when_all_have_left(pool: ReaderPool) -> None:
    known, reading = cpu_s(pool), Reading(pool)
    reading.start()
    pid = reading.working(known)
    assert pid is not None
    reading.handle.leave()
    reading.join(5)
    assert isinstance(reading.raised, Abandoned)
    assert pid not in pool.pids
    with pytest.raises(Abandoned):  # nor does work begin that nobody wants
        pool.read(Job(b"", "auto", MOST, Cost(1, 0, 1)), reading.handle, lambda picture, warnings: None)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_is_the_files(pool: ReaderPool, number: signal.Signals) -> None:
    known, reading = cpu_s(pool), Reading(pool)
    reading.start()
    pid = reading.working(known)
    assert pid is not None
    os.kill(pid, number)
    reading.join(20)
    assert isinstance(reading.raised, PictureError)
    assert reading.raised.reason == "IMAGE_UNREADABLE"
    assert number.name in reading.raised.message
    assert "save it again" in reading.raised.message


def test_a_process_that_was_killed_is_tried_again(pool: ReaderPool) -> None:
    known, reading = cpu_s(pool), Reading(pool)
    reading.start()
    pid = reading.working(known)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    reading.join(60)
    assert reading.raised is None
    known, reading = cpu_s(pool), Reading(pool)
    reading.start()
    while (pid := reading.working(known)) is not None:  # the second one counts against the file
        os.kill(pid, signal.SIGKILL)
        known[pid] = 1e9
    assert isinstance(reading.raised, PictureError)
    assert reading.raised.reason == "IMAGE_TOO_COSTLY"


def test_idle_processes_that_were_killed_are_replaced(pool: ReaderPool) -> None:
    for pid in pool.pids:
        os.kill(pid, signal.SIGKILL)
    png = by_pillow(Image.new("RGB", (60, 40), "red"), "PNG")
    for _ in range(3):
        assert (read(pool, png) == (255, 0, 0)).all()


def test_they_import_no_models_and_no_connections(pool: ReaderPool) -> None:
    pool.wait_until_ready()
    for pid in pool.pids:
        loaded = Path(f"/proc/{pid}/maps").read_text()
        assert "PIL" in loaded
        assert "torch" not in loaded
        assert "grpc" not in loaded
