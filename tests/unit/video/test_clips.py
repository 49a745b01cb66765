"""Clips of every kind: their frames, their times, what is selected, and what is refused."""

import gc
import io
import struct
import sys
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maskwire import MaskwireError
from maskwire.video import Clip, Frame
from maskwire.video import films as film_module
from PIL import Image

from testing.clips import BLUE, GREEN, RED, number_of, numbered, write_film


def numbers(clip: Clip) -> list[int]:
    return [number_of(frame.picture) for frame in clip]


def times(clip: Clip) -> list[float]:
    return [round(frame.time_s, 3) for frame in clip]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds at 10 frames a second, with a key frame every 1.2 seconds."""
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", [numbered(index) for index in range(60)])


@pytest.mark.parametrize(
    ("ending", "codec"),
    [("mov", "libx264"), ("mkv", "libx264"), ("avi", "mpeg4"), ("webm", "libvpx")],
)
def test_films_of_every_kind(tmp_path: Path, ending: str, codec: str) -> None:
    path = write_film(tmp_path / f"film.{ending}", [numbered(index) for index in range(8)], codec=codec)
    for given in (path, str(path), path.read_bytes(), path.open("rb")):
        clip = Clip(given)
        assert clip.size == (64, 48)
        assert numbers(clip) == list(range(8))
        assert times(clip) == pytest.approx([index / 10 for index in range(8)], abs=0.002)
        assert clip.frame_rate == pytest.approx(10, abs=0.5)
    assert clip.estimated_frames is not None
    assert abs(clip.estimated_frames - 8) <= 1


def test_frames_have_colours_numbers_and_names(film: Path) -> None:
    clip = Clip(film)
    assert (clip.name, clip.estimated_frames) == ("film.mp4", 60)
    frames = list(clip)
    assert [frame.index for frame in frames] == list(range(60))
    assert frames[7].name == "frame 7 at 0.700 s"
    for place, colour in (((8, 8), RED), ((56, 8), GREEN), ((56, 40), BLUE)):
        shown: Any = frames[3].picture.getpixel(place)
        assert np.abs(np.subtract(shown, colour)).max() <= 6
    assert clip.listing()[59] == ("film/00059.jpg", 5.9)
    assert numbers(clip) == list(range(60))  # once more


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"every": 7}, range(0, 60, 7)),
        ({"every": 7, "start_s": 0.5}, range(5, 60, 7)),
        ({"fps": 5}, range(0, 60, 2)),
        ({"fps": 4}, [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28, 30, 33, 35, 38, 40, 43, 45, 48, 50, 53, 55, 58]),
        ({"fps": 30}, range(60)),
        ({"start_s": 0.3, "end_s": 0.8}, range(3, 8)),
        ({"start_s": 4.1, "max_frames": 4}, range(41, 45)),  # by the file's index
        ({"start_s": 3.6}, range(36, 60)),  # a key frame itself
        ({"max_frames": 3}, range(3)),
    ],
)
def test_frames_are_selected(film: Path, options: dict[str, Any], expected: Any) -> None:
    clip = Clip(film, **options)
    assert numbers(clip) == list(expected)
    assert times(clip) == pytest.approx([number / 10 for number in expected], abs=1e-3)
    assert clip.estimated_frames == len(list(expected))
    assert [frame.index for frame in clip] == list(range(len(list(expected))))


def test_a_late_start_decodes_only_from_the_key_frame(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    read = film_module.Film._decode

    def counted(self: film_module.Film, seek_s: float) -> Any:
        for frame in read(self, seek_s):
            decoded.append(frame.time_s)
            yield frame

    monkeypatch.setattr(film_module.Film, "_decode", counted)
    clip = Clip(film, start_s=5.0, max_frames=2)
    decoded.clear()
    assert numbers(clip) == [50, 51]
    assert decoded[0] == pytest.approx(4.8)


def test_varying_frame_rates_keep_their_times(tmp_path: Path) -> None:
    shown = [0, 0.04, 0.08, 0.5, 0.54, 2.0, 2.04]
    path = write_film(tmp_path / "film.mp4", [numbered(index) for index in range(7)], times_s=shown, fps=25)
    assert times(Clip(path)) == pytest.approx(shown, abs=1e-3)
    assert numbers(Clip(path, fps=2)) == [0, 3, 5]
    assert numbers(Clip(path, start_s=0.5, end_s=2.02)) == [3, 4, 5]


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((1, 0, 0, 1), (0, 0)),
        ((0, 1, -1, 0), (1, 0)),  # a phone, held upright: a quarter turn clockwise
        ((-1, 0, 0, -1), (1, 1)),
        ((0, -1, 1, 0), (0, 1)),
        ((-1, 0, 0, 1), (1, 0)),  # a mirror
        ((1, 0, 0, -1), (0, 1)),
    ],
)
def test_films_are_shown_upright(film: Path, matrix: tuple[int, ...], corner: tuple[int, int]) -> None:
    a, b, c, d = matrix
    data = film.read_bytes()
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    place = data.index(identity, data.index(b"tkhd"))
    turned = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    clip = Clip(data[:place] + turned + data[place + 36 :], max_frames=1)
    assert clip.size == ((64, 48) if a else (48, 64))
    (frame,) = clip
    width, height = clip.size
    shown: Any = frame.picture.getpixel((corner[0] * (width - 16) + 8, corner[1] * (height - 16) + 8))
    assert np.abs(np.subtract(shown, RED)).max() <= 6


def test_pixels_become_square(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", [numbered(9)] * 2, pixel_shape=Fraction(4, 3))
    assert Clip(path).size == (85, 48)
    assert numbers(Clip(path)) == [9, 9]


def test_frames_are_scaled_down(film: Path) -> None:
    clip = Clip(film, max_side=32, max_frames=2)
    assert clip.size == (32, 24)
    assert numbers(clip) == [0, 1]
    assert Clip(film, max_side=100).size == (64, 48)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_animations(tmp_path: Path, form: str) -> None:
    path = tmp_path / "animation"
    first, *others = [numbered(index) for index in range(5)]
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    first.save(path, form, save_all=True, append_images=others, duration=[100, 40, 200, 100, 100], **options)
    clip = Clip(path)
    assert numbers(clip) == list(range(5))
    assert times(clip) == [0, 0.1, 0.14, 0.34, 0.44]
    assert numbers(Clip(path.read_bytes(), start_s=0.14)) == [2, 3, 4]
    assert clip.listing()[1] == ("animation/00001.jpg", 0.1)


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    frames = [Image.new("RGBA", (20, 10), (255, 0, 0, alpha)) for alpha in (255, 0)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True, duration=50)
    assert [frame.picture.getpixel((5, 5)) for frame in Clip(tmp_path / "a.webp")] == [(255, 0, 0), (255, 255, 255)]


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for number in (1, 2, 10, 9):
        numbered(number).save(tmp_path / f"shot-{number}.png")
    numbered(11).save(tmp_path / "shot-011.jpg", quality=95)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".shot-3.png").write_bytes(b"of another program")
    clip = Clip(tmp_path, frame_rate=5)
    assert numbers(clip) == [1, 2, 9, 10, 11]
    assert times(clip) == [0, 0.2, 0.4, 0.6, 0.8]
    assert [name for name, _ in clip.listing()] == [
        "shot-1.png",
        "shot-2.png",
        "shot-9.png",
        "shot-10.png",
        "shot-011.jpg",
    ]
    assert numbers(Clip(tmp_path, every=2)) == [1, 9, 11]
    (first, *_, last) = clip
    assert first.encode() == (tmp_path / "shot-1.png").read_bytes()  # files are sent as they are
    assert last.encode(lossless=True) == (tmp_path / "shot-011.jpg").read_bytes()
    assert Clip(tmp_path).frame_rate == 24


def test_lists_of_pictures(tmp_path: Path) -> None:
    numbered(2).save(tmp_path / "2.png")
    buffer = io.BytesIO()
    numbered(3).save(buffer, "PNG")
    clip = Clip([np.asarray(numbered(0)), numbered(1), tmp_path / "2.png", buffer.getvalue()])
    assert numbers(clip) == [0, 1, 2, 3]
    assert clip.estimated_frames == 4
    assert numbers(Clip(np.stack([np.asarray(numbered(index)) for index in range(3)]))) == [0, 1, 2]


def test_frames_are_encoded_for_sending(film: Path) -> None:
    frame = next(iter(Clip(film)))
    jpeg = Image.open(io.BytesIO(frame.encode()))
    assert (jpeg.format, jpeg.size) == ("JPEG", (64, 48))
    assert {layer[1:3] for layer in jpeg.layer} == {(1, 1)}  # type: ignore[attr-defined]  # no chroma subsampling
    assert np.abs(np.asarray(jpeg, int) - np.asarray(frame.picture, int)).mean() < 1.5
    assert np.array_equal(Image.open(io.BytesIO(frame.encode(lossless=True))), frame.picture)


def test_scaled_files_are_not_sent_as_they_are(tmp_path: Path) -> None:
    numbered(5).save(tmp_path / "5.png")
    (frame,) = Clip([tmp_path / "5.png"], max_side=32)
    assert Image.open(io.BytesIO(frame.encode())).size == (32, 24)


def test_memory_does_not_grow_with_the_clip(film: Path, tmp_path: Path) -> None:
    first, *others = [numbered(index) for index in range(30)]
    first.save(tmp_path / "a.gif", save_all=True, append_images=others, duration=50)
    for index in range(30):
        numbered(index).save(tmp_path / f"{index}.png")
    (tmp_path / "a.gif").rename(tmp_path / "a.animation")
    gc.freeze()  # what is looked for is not in what there was before
    for clip in (Clip(film), Clip(tmp_path / "a.animation"), Clip(tmp_path)):
        pictures: list[weakref.ref[Image.Image]] = []
        most = 0
        for frame in clip:
            pictures.append(weakref.ref(frame.picture))
            gc.collect()
            most = max(most, sum(picture() is not None for picture in pictures))
        assert most <= 3


def refused(reason: str, *arguments: Any, **options: Any) -> MaskwireError:
    with pytest.raises(MaskwireError) as caught:
        list(Clip(*arguments, **options))
    assert caught.value.reason == reason
    return caught.value


def test_what_is_no_clip_is_refused(tmp_path: Path, film: Path) -> None:
    numbered(1).save(tmp_path / "picture.png")
    (tmp_path / "text.mp4").write_text("this is not a film at all, but a text of some length. " * 30)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes(film.read_bytes()[:1500])
    assert "single picture" in str(refused("NOT_A_CLIP", tmp_path / "picture.png"))
    assert "text.mp4 cannot be read as a film" in str(refused("CLIP_UNREADABLE", tmp_path / "text.mp4"))
    assert "0 bytes" in str(refused("CLIP_UNREADABLE", tmp_path / "empty.mp4"))
    refused("CLIP_UNREADABLE", tmp_path / "cut.mp4")
    refused("NO_SUCH_FILE", tmp_path / "none.mp4")
    refused("NO_FRAMES", [])
    assert "live()" in str(refused("NOT_A_CLIP", iter([numbered(1)])))
    refused("NOT_A_CLIP", 7)
    refused("NOT_A_CLIP", (tmp_path / "text.mp4").open())
    (tmp_path / "folder").mkdir()
    assert ".jpg" in str(refused("NO_FRAMES", tmp_path / "folder"))


def test_a_damaged_film_says_what_to_do(film: Path) -> None:
    data = bytearray(film.read_bytes())
    begin, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    begin += (end - begin) * 3 // 4
    data[begin:end] = bytes(end - begin)
    clip = Clip(bytes(data), max_frames=1)
    assert len(list(clip)) == 1
    error = refused("CLIP_UNREADABLE", bytes(data))
    assert "end_s" in str(error)


def test_playlists_open_nothing_else(tmp_path: Path, film: Path) -> None:
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\nfile:{film}\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(playlist)
    refused("CLIP_UNREADABLE", tmp_path / "list.m3u8")
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{film}'\n")
    refused("CLIP_UNREADABLE", tmp_path / "list.mp4")


def test_without_pyav_films_are_refused_with_a_remedy(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert 'pip install "maskwire[video]"' in str(refused("NO_PYAV", film))
    first, second = numbered(0), numbered(1)
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second], duration=50)
    assert numbers(Clip(tmp_path / "a.gif")) == [0, 1]


def test_frames_of_several_sizes_are_refused() -> None:
    error = refused("SIZES_DIFFER", [numbered(0), numbered(1), numbered(2, (60, 48))])
    assert "frame 2" in str(error)
    assert "60x48" in str(error)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    numbered(0).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"damaged")
    assert "1.png" in str(refused("IMAGE_UNREADABLE", tmp_path))


@pytest.mark.parametrize(
    ("options", "field", "reason"),
    [
        ({"every": 0}, "every", "BAD_SELECTION"),
        ({"every": 1.5}, "every", "BAD_SELECTION"),
        ({"fps": 0}, "fps", "BAD_SELECTION"),
        ({"fps": float("nan")}, "fps", "BAD_SELECTION"),
        ({"fps": 5, "every": 2}, "fps", "TWO_NAMES"),
        ({"start_s": -1}, "start_s", "BAD_SELECTION"),
        ({"start_s": 3, "end_s": 3}, "end_s", "BAD_SELECTION"),
        ({"max_frames": 0}, "max_frames", "BAD_SELECTION"),
        ({"max_frames": True}, "max_frames", "BAD_SELECTION"),
        ({"max_side": 0}, "max_side", "BAD_SELECTION"),
        ({"frame_rate": 30}, "frame_rate", "BAD_SELECTION"),  # a film has its own
        ({"start_s": 60}, "start_s", "NO_FRAMES"),
        ({"evry": 2}, "evry", "NO_SUCH_ARGUMENT"),
    ],
)
def test_wrong_options_are_refused(film: Path, options: dict[str, Any], field: str, reason: str) -> None:
    assert refused(reason, film, **options).field == field


def test_a_frame_describes_itself() -> None:
    assert repr(Frame(3, 0.125, "frame 3", numbered(3))) == "<Frame 3 at 0.125 s>"
    assert repr(Clip([numbered(0)] * 3)) == "<Clip 'clip', 64x48, 3 frames>"
