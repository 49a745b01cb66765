"""Masks of a clip as data sets, pictures of object numbers, and drawn over the frames."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from maskwire import InvalidRequest
from maskwire.video import Clip, MaskSequence, save
from maskwire.video.colours import object_colour, outline_colour, text_colour
from maskwire.video.drawing import draw_objects
from maskwire.video.film_writer import FilmWriter
from maskwire.video.gif_writer import GifWriter
from maskwire.video.saving import check_path
from PIL import Image, ImageChops
from pycocotools import mask as coco

from testing.clips import disc, numbered, write_film

SIZE = (96, 64)
FRAMES = 8


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shown at 10 frames a second, with a pause of a second before the last frame."""
    times_s = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.6]
    pictures = [numbered(index, SIZE) for index in range(FRAMES)]
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", pictures, times_s=times_s)


@pytest.fixture
def masks() -> MaskSequence:
    """A ball that rolls to the right, and a cup that stands there from frame 2 to frame 5; frame 7 was not followed."""
    made = MaskSequence(*SIZE)
    for index in range(FRAMES - 1):
        found = {"ball": disc(SIZE, 20 + 8 * index, 32, 9)}
        if index >= 2:
            found["cup"] = disc(SIZE, 60, 40, 12) if index <= 5 else np.zeros(SIZE[::-1], bool)
        made.add(index, found)
    return made


def test_masks_are_kept_in_every_form(masks: MaskSequence) -> None:
    assert masks.objects == ["ball", "cup"]
    assert list(masks) == list(range(7))
    assert len(masks) == 7
    assert 6 in masks
    assert 7 not in masks
    expected = disc(SIZE, 36, 32, 9)
    assert np.array_equal(masks.arrays(2)["ball"], expected)
    rle = masks.rles(2)["ball"]
    assert isinstance(rle["counts"], str)
    assert np.array_equal(coco.decode(rle), expected)  # type: ignore[arg-type]
    assert set(masks.arrays(6)) == {"ball"}  # the cup's mask is empty
    assert masks.arrays(7) == {}
    masks.add(2, {"ball": rle, "cup": expected.astype(float)})
    assert np.array_equal(masks.arrays(2)["cup"], expected)
    masks.remove("ball")
    assert masks.objects == ["cup"]
    assert set(masks.arrays(2)) == {"cup"}


def test_masks_of_another_size_are_refused(masks: MaskSequence) -> None:
    with pytest.raises(InvalidRequest, match="'cup' is for 64x96 pixels; the frames have 96x64") as caught:
        masks.add(0, {"cup": np.zeros(SIZE, bool)})
    assert caught.value.reason == "BAD_MASK"
    with pytest.raises(InvalidRequest, match="HxW"):
        masks.add(0, {"cup": np.zeros((1, 64, 96), bool)})


def test_a_data_set_of_a_film(film: Path, masks: MaskSequence, tmp_path: Path) -> None:
    (path,) = save(masks, tmp_path / "new" / "masks.json", Clip(film))
    document = json.loads(path.read_text())
    (video,) = document["videos"]
    assert (video["width"], video["height"], video["length"]) == (96, 64, FRAMES)
    assert video["file_names"][3] == "film/00003.jpg"
    assert video["times_s"] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.6])
    assert document["categories"] == [{"id": 1, "name": "ball"}, {"id": 2, "name": "cup"}]
    ball, cup = document["annotations"]
    assert (cup["id"], cup["video_id"], cup["category_id"], cup["object"], cup["iscrowd"]) == (2, 1, 2, "cup", 0)
    assert [each is not None for each in cup["segmentations"]] == [False, False, True, True, True, True, False, False]
    assert [each is not None for each in ball["areas"]] == [True] * 7 + [False]
    expected = disc(SIZE, 60, 40, 12)
    assert np.array_equal(coco.decode(cup["segmentations"][4]), expected)
    assert cup["areas"][4] == expected.sum()
    assert cup["bboxes"][4] == [48, 28, 25, 25]
    assert cup["bboxes"][0] is None


def test_objects_of_one_class_share_a_category(masks: MaskSequence, tmp_path: Path) -> None:
    for index in range(FRAMES):
        numbered(index, SIZE).save(tmp_path / f"{index}.png")
    classes = {"ball": "thing", "cup": "thing"}
    (path,) = save(masks, tmp_path / "masks.json", Clip(tmp_path), classes=classes)
    document = json.loads(path.read_text())
    assert document["categories"] == [{"id": 1, "name": "thing"}]
    assert document["videos"][0]["file_names"] == [f"{index}.png" for index in range(FRAMES)]


def test_pictures_of_object_numbers(film: Path, masks: MaskSequence, tmp_path: Path) -> None:
    files = save(masks, tmp_path / "out", Clip(film))
    assert [file.name for file in files] == ["objects.json", *(f"{index:05}.png" for index in range(FRAMES))]
    assert json.loads(files[0].read_text()) == {"1": "ball", "2": "cup"}
    picture = Image.open(files[1 + 3])
    assert (picture.mode, picture.size) == ("P", SIZE)
    palette = picture.getpalette() or []
    assert palette[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]  # of DAVIS
    ball, cup = disc(SIZE, 44, 32, 9), disc(SIZE, 60, 40, 12)
    assert (ball & cup).any()
    assert np.array_equal(np.asarray(picture), np.where(ball, 1, np.where(cup, 2, 0)))
    assert not np.asarray(Image.open(files[-1])).any()


def test_more_objects_than_a_picture_has_numbers_are_refused(film: Path, tmp_path: Path) -> None:
    many = MaskSequence(*SIZE)
    many.add(0, {str(number): disc(SIZE, 5, 5, 3) for number in range(256)})
    with pytest.raises(InvalidRequest, match="256 objects do not fit"):
        save(many, tmp_path / "out", Clip(film))


def differences(drawn: Image.Image, frame: Image.Image) -> Any:
    return np.abs(np.asarray(drawn, int) - np.asarray(frame, int)).max(2)


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm"])
def test_overlays_are_films(film: Path, masks: MaskSequence, tmp_path: Path, ending: str) -> None:
    told: list[int] = []
    (path,) = save(masks, tmp_path / f"overlay.{ending}", Clip(film), names=False, progress=told.append)
    assert told == list(range(1, FRAMES + 1))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    drawn, frames = list(Clip(path)), list(Clip(film))
    assert [frame.time_s for frame in drawn] == pytest.approx([frame.time_s for frame in frames], abs=0.003)
    for index in (1, 4, 7):
        differs = differences(drawn[index].picture, frames[index].picture)
        inside = np.zeros(SIZE[::-1], bool)
        for mask in masks.arrays(index).values():
            inside |= mask
        far = ~np.asarray(Image.fromarray(inside).convert("L").resize(SIZE)).astype(bool)
        rows, columns = np.nonzero(inside)
        for row, column in zip(rows, columns, strict=True):
            far[max(0, row - 6) : row + 7, max(0, column - 6) : column + 7] = False
        assert np.median(differs[far]) <= 8  # the same colours as before
        assert index == 7 or np.median(differs[inside]) >= 25


def test_odd_sizes_lose_a_line(tmp_path: Path) -> None:
    masks = MaskSequence(51, 33)
    masks.add(0, {"a": disc((51, 33), 20, 15, 8)})
    (path,) = save(masks, tmp_path / "a.mp4", Clip([numbered(1, (51, 33))] * 2))
    assert Clip(path).size == (50, 32)
    tiny = MaskSequence(1, 1)
    (path,) = save(tiny, tmp_path / "b.mp4", Clip([numbered(1, (1, 1))] * 2))
    assert Clip(path).size == (2, 2)


def test_films_say_which_colours_they_have(film: Path, masks: MaskSequence, tmp_path: Path) -> None:
    (path,) = save(masks, tmp_path / "a.mp4", Clip(film))
    with av.open(str(path)) as container:
        context: Any = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range, context.pix_fmt) == (1, 1, "yuv420p")
        assert context.name == "h264"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # players can begin before they have all of it


def test_overlays_are_gifs(film: Path, masks: MaskSequence, tmp_path: Path) -> None:
    (path,) = save(masks, tmp_path / "overlay.gif", Clip(film))
    drawn = Clip(path)
    assert [round(frame.time_s, 2) for frame in drawn] == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.6]
    assert Image.open(path).info["loop"] == 0
    for shown, frame in zip(drawn, Clip(film), strict=True):
        expected = draw_objects(frame.picture, masks.arrays(frame.index), masks.objects)
        assert differences(shown.picture, expected).mean() < 12
    assert Clip(save(masks, tmp_path / "small.gif", Clip(film), max_side=48)[0]).size == (48, 32)


def test_gifs_store_what_changes(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    still = Image.fromarray(noise)
    sizes = []
    for frames in (1, 30):
        writer = GifWriter(tmp_path / "a.gif", still.size, 10)
        for index in range(frames):
            moving = still.copy()
            moving.paste((255, 255, 255), (index, 0, index + 4, 4))
            writer.write(moving, index / 10)
        writer.close()
        sizes.append((tmp_path / "a.gif").stat().st_size)
    assert sizes[1] < sizes[0] + 30 * 1200  # 768 bytes of each are the palette
    clip = Clip(tmp_path / "a.gif")
    shown: Any = [frame.picture for frame in clip]
    assert len(shown) == 30
    assert ImageChops.difference(shown[0], shown[29]).getbbox() == (0, 0, 33, 4)


def test_gifs_of_fast_films_leave_frames_out(tmp_path: Path) -> None:
    writer = GifWriter(tmp_path / "a.gif", (32, 24), 100)
    for index in range(100):
        writer.write(numbered(index % 60, (32, 24)), 5 + index / 100)
    writer.close()
    picture: Any = Image.open(tmp_path / "a.gif")
    total = 0
    for index in range(picture.n_frames):
        picture.seek(index)
        assert picture.info["duration"] >= 20
        total += picture.info["duration"]
    assert abs(total - 1000) <= 20


def test_gifs_of_rates_without_whole_hundredths_keep_the_time(tmp_path: Path) -> None:
    writer = GifWriter(tmp_path / "a.gif", (32, 24), 30)
    for index in range(60):
        writer.write(numbered(index, (32, 24)), index / 30)
    writer.close()
    assert [frame.time_s for frame in Clip(tmp_path / "a.gif")] == pytest.approx(
        [index / 30 for index in range(60)], abs=0.006
    )


def test_a_folder_of_drawn_frames(film: Path, masks: MaskSequence, tmp_path: Path) -> None:
    files = save(masks, tmp_path / "out", Clip(film), form="overlay", max_side=48)
    picture = Image.open(files[4])
    assert (picture.mode, picture.size, len(files)) == ("RGB", (48, 32), 1 + FRAMES)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "out"])
def test_ctrl_c_keeps_what_is_written(film: Path, masks: MaskSequence, tmp_path: Path, name: str) -> None:
    def interrupt(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(masks, tmp_path / name, Clip(film), progress=interrupt)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    if name == "out":
        (tmp_path / "out" / "objects.json").unlink()
    assert len(list(Clip(tmp_path / name))) == 5


def test_outputs_are_checked(masks: MaskSequence, film: Path, tmp_path: Path) -> None:
    assert check_path(tmp_path) == ""
    assert check_path(Path("a.MP4")) == ".mp4"
    for path, form, field in (("a.xyz", None, "path"), ("a.mp4", "masks", "form"), ("folder", "coco", "form")):
        with pytest.raises(InvalidRequest) as caught:
            save(masks, tmp_path / path, Clip(film), form=form)  # type: ignore[arg-type]
        assert (caught.value.reason, caught.value.field) == ("BAD_OUTPUT", field)
    with pytest.raises(InvalidRequest, match="did you mean 'overlay'"):
        save(masks, tmp_path / "out", Clip(film), form="overlays")  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    for path in ("file/a.mp4", "file/a.gif", "file/a.json", "file"):
        with pytest.raises(InvalidRequest, match="cannot write"):
            save(masks, tmp_path / path, Clip(film))


def test_a_film_of_nothing_can_be_closed(tmp_path: Path) -> None:
    FilmWriter(tmp_path / "a.mp4", ".mp4", (32, 24), 24).close()
    GifWriter(tmp_path / "a.gif", (32, 24), 24).close()


def test_masks_are_drawn_in_their_colours() -> None:
    picture = Image.new("RGB", (200, 120), (128, 128, 128))
    masks = {"b": disc(picture.size, 60, 70, 30), "a": disc(picture.size, 140, 70, 30)}
    pixels = np.asarray(draw_objects(picture, masks, ["a", "b"]))
    for x, number in ((140, 0), (60, 1)):
        inside = pixels[70, x].astype(int)
        assert np.abs(inside - (128 + 0.45 * (np.array(object_colour(number)) - 128))).max() <= 1
        near = np.abs(pixels[70, x - 33 : x - 26].astype(int) - np.array(outline_colour(object_colour(number)))).max(1)
        assert near.min() <= 40  # an outline at its left
    assert (pixels[100:, 95:105] == 128).all()
    assert (np.asarray(picture) == 128).all()


def test_names_lie_inside_and_apart() -> None:
    picture = Image.new("RGB", (240, 160), (0, 0, 0))
    masks = {f"object {index}": disc(picture.size, 10 + index, 6, 8) for index in range(3)}
    masks["ещё"] = disc(picture.size, 236, 156, 6)  # at the edge, in other letters than Pillow's own font has
    drawn = draw_objects(picture, masks, list(masks))
    pixels = np.asarray(drawn).reshape(-1, 3)
    for number in range(4):
        of_colour = (pixels == object_colour(number)).all(1).reshape(160, 240)
        rows, _ = np.nonzero(of_colour)
        assert len(rows) > 150  # its plate, which nothing covers
        assert np.ptp(rows) < 40
    without = draw_objects(picture, masks, list(masks), names=False)
    assert not (np.asarray(without).reshape(-1, 3) == object_colour(3)).all(1).any()


def test_text_is_dark_on_light_colours() -> None:
    assert text_colour((250, 204, 21)) != (255, 255, 255)
    assert text_colour((38, 132, 255)) == (255, 255, 255)
    assert len({object_colour(number) for number in range(64)}) == 64


def test_rates_are_fractions(tmp_path: Path) -> None:
    writer = FilmWriter(tmp_path / "a.mp4", ".mp4", (32, 24), 30000 / 1001)
    for index in range(30):
        writer.write(numbered(index, (32, 24)), index * 1001 / 30000)
    writer.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
