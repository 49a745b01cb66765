"""Training of the demo model: the same arithmetic as sam2's, reproducible, on data that is kept apart."""

import json
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire_encoder.checkpoints import loading

from training.demo import candidates, evaluate, pack, regions
from training.demo.asker import Answer, bounds, iou
from training.demo.batches import Batch, Batches
from training.demo.clicks import centre, correction
from training.demo.curriculum import STAGES, Stage
from training.demo.damage import damaged
from training.demo.decoder import FOREGROUND, PAD
from training.demo.heldout import COMPOSED, cases
from training.demo.loop import precision, run
from training.demo.losses import overlap
from training.demo.network import Network, source
from training.demo.objective import objective
from training.demo.order import unorder
from training.demo.prompts import Prompts, pick, pixels
from training.demo.shapes import patchwork
from training.demo.state import State
from training.demo.train import main as train

SIZE = 64
STAGE = Stage("full", SIZE, 2, 2, updates=200, rate=1e-2, easy=0.5, real=0.5, corrections=1.0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed pictures of coloured discs: 10 photographs with masks, 9 backgrounds and 9 cut-outs."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name in ("photos", "backgrounds", "cutouts"):
        (folder / name).mkdir()
    document: dict[str, list[Any]] = {"images": [], "annotations": []}
    for number in range(10):
        picture = random.integers(0, 100, (90, 120, 3), np.uint8)
        x, y, radius = (int(value) for value in random.integers(30, 60, 3))
        cv2.circle(picture, (x, y), radius // 2, (200, 220, int(random.integers(256))), -1)
        angles = np.linspace(0, 2 * np.pi, 40)
        outline = np.stack([x + radius / 2 * np.cos(angles), y + radius / 2 * np.sin(angles)], 1)
        cv2.imwrite(str(folder / "photos" / f"{number}.png"), picture)
        document["images"].append({"id": number, "file_name": f"{number}.png", "width": 120, "height": 90})
        document["annotations"].append({"image_id": number, "segmentation": [outline.flatten().tolist()]})
        if number < 9:
            cv2.imwrite(str(folder / "backgrounds" / f"{number}.jpg"), random.integers(0, 256, (80, 80, 3), np.uint8))
            cutout = np.full((50, 50, 4), random.integers(0, 256, 4), np.uint8)
            cutout[..., 3] = 0
            cv2.circle(cutout, (25, 25), 20, (10, number * 20, 200, 255), -1)
            cv2.imwrite(str(folder / "cutouts" / f"{number}.png"), cutout)
    (folder / "photos" / "annotations.json").write_text(json.dumps(document))
    out = folder / "data.zip"
    counts = pack.write(out, [folder / "photos"], [folder / "backgrounds"], [folder / "cutouts"])
    assert list(counts.values()) == [10, 9, 9]
    return out


@pytest.fixture(scope="module")
def batches(data: Path) -> Batches:
    return Batches(pack.Pack.load(data, held_out=False), STAGE, seed=3)


@pytest.fixture
def threads() -> Iterator[None]:
    """Training on a CPU sets the number of threads, and that denormal numbers count as zero, for good."""
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)
    torch.set_flush_denormal(False)


def test_batches_are_reproducible_and_their_parts_agree(batches: Batches) -> None:
    for number in range(6):
        batch = batches[number]
        for one, other in zip(batch, batches[number], strict=True):
            assert torch.equal(one, other)
        targets = unorder(batch.targets[..., None], SIZE // 4, SIZE // 4, 8)[..., 0].numpy()
        for target, box, point in zip(targets, batch.boxes.tolist(), batch.centres.long().tolist(), strict=True):
            rows, columns = np.nonzero(target)
            assert columns.min() == int(box[0]) // 4
            assert rows.max() == (int(box[3]) - 1) // 4
            assert target[point[1] // 4, point[0] // 4] > 0
    assert not torch.equal(batches[0].images, batches[1].images)


def test_parts_are_mostly_asked_for_by_boxes(data: Path) -> None:
    loaded = pack.Pack.load(data, held_out=False)
    stage = replace(STAGE, batch=20, easy=0.0, real=1.0)
    boxes = {}
    for source_name in ("regions", "coco"):
        loaded.photos = {source_name: next(iter(loaded.photos.values()))}
        batch = Batches(loaded, stage, seed=3)[0]
        assert (batch.parts == (source_name == "regions")).all()
        torch.manual_seed(0)
        boxes[source_name] = int(Prompts(batch, SIZE).boxed.sum())
    assert boxes["regions"] > 1.3 * boxes["coco"] > 0


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_corrective_clicks_lie_where_the_mask_is_wrong(batches: Batches, seed: int) -> None:
    torch.manual_seed(seed)
    batch = batches[seed % 5]
    prompts = Prompts(batch, SIZE)
    guess = torch.randn(batch.targets.shape)
    prompts.correct(guess)
    assert not prompts.labels.eq(PAD).any()  # a click stands in the place of no prompt
    inside, masks = batch.targets > 0.5, guess > 0
    where = pixels(SIZE, CPU)
    for index, (point, label) in enumerate(zip(prompts.points[:, -1], prompts.labels[:, -1], strict=True)):
        (place,) = torch.nonzero((where == point // 4 * 4).all(1))[0]
        assert bool(inside[index, place]) == (int(label) == FOREGROUND)
        assert bool(masks[index, place]) != (int(label) == FOREGROUND)
    prompts.correct(torch.where(inside, 1.0, -1.0))  # without error: one more click inside
    assert prompts.labels[inside.any(1), -1].eq(FOREGROUND).all()


@given(st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_the_evaluations_clicks_are_in_the_deepest_error(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask, target = (cv2.blur(random.random((40, 50)), (9, 9)) > 0.5 for _ in range(2))
    (x, y), label = correction(mask, target)
    assert target[y, x] == (label == FOREGROUND)
    assert mask[y, x] != target[y, x]
    if target.any():
        x, y = centre(target)
        assert target[y, x]
        assert correction(target, target) == ((x, y), FOREGROUND)


def test_some_corrective_clicks_are_in_the_middle_of_the_error(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.demo.prompts.CENTRED", 1.0)
    torch.manual_seed(1)
    batch = batches[2]
    prompts, guess = Prompts(batch, SIZE), torch.randn(batch.targets.shape)
    prompts.correct(guess)
    masks, targets = (
        unorder(part[..., None], SIZE // 4, SIZE // 4, 8)[..., 0].numpy() for part in (guess > 0, batch.targets > 0.5)
    )
    for index, (mask, target) in enumerate(zip(masks, targets, strict=True)):
        if target.any():
            place, label = correction(mask, target)
            assert tuple(prompts.points[index, -1].long().tolist()) == tuple(
                4 * at + rest for at, rest in zip(place, (prompts.points[index, -1] % 4).long().tolist(), strict=True)
            )
            assert int(prompts.labels[index, -1]) == label


def test_damage_is_within_and_near_the_object(batches: Batches) -> None:
    torch.manual_seed(0)
    where, overlaps = pixels(SIZE, CPU), []
    for number in range(20):
        batch = batches[number]
        mask, inside = damaged(batch.targets, batch.boxes, where) > 0, batch.targets > 0.5
        low, high = batch.boxes[:, None, :2], batch.boxes[:, None, 2:]
        far = ((where < low - (high - low) / 2) | (where > high + (high - low) / 2)).any(2)
        sure = damaged(batch.targets, batch.boxes, where)[far]
        assert not mask[far].any() or float(sure.max()) < 3  # nothing but the logits' noise
        overlaps += overlap(mask, inside).tolist()
    assert 0.4 < np.mean(overlaps) < 0.9
    assert min(overlaps) < 0.4
    assert max(overlaps) > 0.9


def test_a_place_is_picked_within_its_region() -> None:
    regions = torch.rand(50, 30) > 0.8
    regions[0] = False
    for _ in range(20):
        index, any_there = pick(regions)
        assert regions[torch.arange(50), index][any_there].all()
        assert torch.equal(any_there, regions.any(1))


class Same:
    """Always the first batch of others."""

    def __init__(self, batches: Batches) -> None:
        self.stage, self.seed, self._batch = batches.stage, batches.seed, batches[0]

    def __getitem__(self, number: int) -> Batch:
        return self._batch


def steps(state: State, batches: Any, limit: int) -> list[float]:
    losses: list[float] = []
    network, loss = Network(SIZE).train(), partial(objective, corrections=STAGE.corrections)

    def report(_: State, figures: dict[str, float]) -> None:
        losses.append(figures["loss"])

    run(state, network, loss, batches, nullcontext(), 0, limit, precision(CPU), report)
    return losses


def test_steps_lower_the_loss(batches: Batches) -> None:
    state = State.of(Network.fresh(SIZE, 0), "full", CPU)
    torch.manual_seed(0)
    same = Same(batches)

    def loss() -> float:
        torch.manual_seed(5)
        with torch.no_grad():
            return float(objective(state.network(SIZE), same[0], corrections=0)[0])

    state.average = state.weights  # what is compared is the last weights
    before = loss()
    steps(state, same, 4)
    assert loss() < 0.8 * before


def test_resumed_training_is_the_same_training(batches: Batches, tmp_path: Path) -> None:
    whole, first = (State.of(Network.fresh(SIZE, 0), "full", CPU) for _ in range(2))
    steps(whole, batches, 2)
    steps(first, batches, 1)
    first.save(tmp_path / "checkpoint.pt")
    second = State.load(tmp_path / "checkpoint.pt", CPU)
    assert second.updates == 1
    steps(second, batches, 2)
    for name, value in vars(whole).items():
        if isinstance(value, torch.Tensor):
            if name == "counters":
                assert int(value[0]) == second.updates == 2
            else:
                assert torch.equal(value, vars(second)[name]), name


def test_the_command_trains_resumes_and_exports(data: Path, tmp_path: Path, threads: None) -> None:
    small = [Stage(stage.name, SIZE, 1, 1, 4, 1e-3, 0.5, 0.5, 1.0) for stage in STAGES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.demo.train.STAGES", small)
        arguments = ["--data", str(data), "--out", str(tmp_path), "--device", "cpu", "--start", "scenes"]
        train([*arguments, "--scale", "0.5"])
        state = State.load(tmp_path / "checkpoint.pt", CPU)
        assert (state.stage, state.updates) == ("full", 2)
        train(arguments)  # twice as many updates: goes on
        assert State.load(tmp_path / "checkpoint.pt", CPU).updates == 4
    assert (tmp_path / "held-out.jpg").is_file()
    loading.build(source(tmp_path / "demo.safetensors"))


def test_candidates_are_trained_alone(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "better.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.demo.candidates.STAGES", [STAGE])
        candidates.main(["--data", str(data), "--updates", "2", "--rate", "1e-2", "--out", str(out)])
    assert "candidates 2/2: click 0." in capsys.readouterr().out
    before, after = Network(SIZE), Network(SIZE)
    before.load(source().checkpoint)
    after.load(out)
    weights = dict(after.named_parameters())
    changed = {name for name, weight in before.named_parameters() if not torch.equal(weight, weights[name])}
    decoder = "sam_mask_decoder."
    heads = tuple(
        decoder + head for head in ("iou_prediction_head", *(f"output_hypernetworks_mlps.{n}" for n in (1, 2, 3)))
    )
    assert changed == {name for name in weights if name.startswith(heads)}


def test_what_is_held_out_is_not_trained_on(data: Path) -> None:
    trained, held_out = (pack.Pack.load(data, held_out=flag) for flag in (False, True))
    for kind in ("backgrounds", "cutouts"):
        ours, theirs = ({picture.tobytes() for picture in getattr(part, kind)} for part in (trained, held_out))
        assert (len(ours), len(theirs)) == (7, 2)
        assert not ours & theirs
    ours, theirs = ({photo.pixels.tobytes() for photo in part.photos["photos"]} for part in (trained, held_out))
    assert (len(ours), len(theirs)) == (8, 2)
    assert not ours & theirs


def test_packed_masks_are_the_annotations(data: Path) -> None:
    (photos,) = pack.Pack.load(data, held_out=False).photos.values()
    for photo in photos:
        bright = photo.pixels[..., 1] > 150
        assert iou(photo.mask(0), bright) > 0.9


def photographs(folder: Path, files: list[str]) -> Path:
    """A folder of annotations of one square on each of some pictures, whose paths lead from the folder."""
    folder.mkdir(exist_ok=True)
    square = [10, 10, 30, 10, 30, 30, 10, 30]
    images = [{"id": index, "file_name": name, "width": 120, "height": 90} for index, name in enumerate(files)]
    annotations = [{"image_id": index, "segmentation": [square]} for index in range(len(files))]
    (folder / "annotations.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder


def packed(path: Path, held_out: bool) -> dict[str, set[bytes]]:
    """The pictures of one part, by source and kind."""
    part = pack.Pack.load(path, held_out)
    found = {source: {photo.pixels.tobytes() for photo in photos} for source, photos in part.photos.items()}
    return found | {"backgrounds": {pixels.tobytes() for pixels in part.backgrounds}}


def test_a_picture_of_several_folders_is_held_out_from_all(data: Path, tmp_path: Path) -> None:
    backgrounds = data.parent / "backgrounds"
    beside = [f"../backgrounds/{number}.jpg" for number in range(9)]
    (tmp_path / "backgrounds").symlink_to(backgrounds)
    people = photographs(tmp_path / "people", beside[4:])
    regions = photographs(tmp_path / "regions", beside)
    out = tmp_path / "data.zip"
    counts = pack.write(out, [people, regions], [tmp_path / "backgrounds"], [], hold_out=["2.jpg"])
    assert list(counts.values()) == [5, 9, 9]
    with zipfile.ZipFile(out) as file:
        assert len(file.namelist()) == 1 + 9  # each picture is stored once
    trained, held_out = packed(out, held_out=False), packed(out, held_out=True)
    kept = set().union(*held_out.values())
    expected = {pack.read((backgrounds / f"{number}.jpg").read_bytes()).tobytes() for number in (0, 2, 4)}
    assert kept == expected  # people's first, the one that is named, and regions' first
    assert not kept & set().union(*trained.values())
    assert [len(held_out[name]) for name in ("people", "regions", "backgrounds")] == [1, 3, 3]
    assert [len(trained[name]) for name in ("people", "regions", "backgrounds")] == [4, 6, 6]
    with pytest.raises(SystemExit, match=r"no picture '2\.jpeg'; did you mean"):
        pack.write(out, [people], [], [], hold_out=["2.jpeg"])


def test_regions_of_photographs_are_what_is_well_bounded(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    rgb = np.full((240, 320, 3), (60, 90, 60), np.uint8)
    discs = [np.zeros(rgb.shape[:2], np.uint8) for _ in range(2)]
    for disc, x, colour in zip(discs, (90, 230), ((200, 60, 50), (60, 80, 210)), strict=True):
        cv2.circle(disc, (x, 120), 45, 1, -1)
        rgb[disc > 0] = colour
    rgb = np.clip(rgb + random.normal(0, 2, rgb.shape), 0, 255).astype(np.uint8)
    found = regions.regions(rgb)
    assert [max(iou(mask, disc > 0) for mask in found) > 0.95 for disc in discs] == [True, True]
    assert all(iou(one, other) < 0.8 for index, one in enumerate(found) for other in found[:index])
    assert regions.regions(np.full((100, 100, 3), 128, np.uint8)) == []

    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "discs.png"), rgb[..., ::-1])
    assert regions.write([folder], tmp_path / "regions", processes=1) == len(found)
    pack.write(tmp_path / "data.zip", [tmp_path / "regions"], [], [])
    (photo,) = pack.Pack.load(tmp_path / "data.zip", held_out=True).photos["regions"]
    assert np.array_equal(photo.pixels, rgb)
    assert np.array_equal(photo.mask(0), found[0])


def test_a_patchwork_is_of_all_its_surfaces() -> None:
    surfaces = [np.full((96, 96, 3), value, np.float32) for value in (0, 100, 200)]
    made = patchwork(surfaces, np.random.default_rng(0))
    assert {0, 100, 200} <= set(np.unique(made))
    assert patchwork(surfaces[:1], np.random.default_rng(0)) is surfaces[0]


def test_missing_data_is_told() -> None:
    with pytest.raises(SystemExit, match=r"training\.demo\.pack"):
        pack.Pack.load(Path("nowhere.zip"), held_out=False)


def test_evaluating_the_sample(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "scores"
    options = ["--composed", "0", "--objects", "1", "--sources", "coco", "nuclei", "--json", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["evaluate", *options])
        evaluate.main()
    printed = capsys.readouterr().out
    assert "| coco | 1 | " in printed
    assert f"| {evaluate.ALL} | 2 | " in printed
    assert "Mean absolute error" in printed
    ((weights, scores),) = json.loads(out.read_text()).items()
    assert weights == "the package's weights"
    assert list(scores) == ["coco", "nuclei", evaluate.ALL]
    for row in scores.values():
        assert all(0 <= row[column] <= 1 for column in (*evaluate.COLUMNS[:-1], *evaluate.CURVE))


class Knowing:
    """An annotator's dream: every answer is right."""

    def look(self, rgb: Any) -> None:
        pass

    def corrected(self, target: Any, clicks: int) -> list[Answer]:
        self.last = target
        return [
            Answer(np.stack([target, ~target]), np.array([0.9, 0.1], np.float32), np.zeros((2, 4, 4), np.float32))
        ] + [self.nothing() for _ in range(clicks)]

    def box(self, box: Any) -> Answer:
        assert box == bounds(self.last)
        return self.nothing()

    def nothing(self) -> Answer:
        return Answer(self.last[None], np.ones(1, np.float32), np.zeros((1, 4, 4), np.float32))


def test_evaluation_counts_right(data: Path) -> None:
    held_out = list(cases(pack.Pack.load(data, held_out=True), composed=2, objects=1))
    again = list(cases(pack.Pack.load(data, held_out=True), composed=2, objects=1))
    assert all(np.array_equal(one.rgb, other.rgb) for one, other in zip(held_out, again, strict=True))
    scores = evaluate.evaluate(Knowing(), held_out)  # type: ignore[arg-type]
    for name in ("photos", COMPOSED):
        answered = {column: scores.summary()[name][column] for column in (*evaluate.COLUMNS, *evaluate.CURVE)}
        assert 0 < answered.pop("box filled") < 1
        assert 0 < answered.pop("ellipse") < 1
        assert set(answered.values()) == {1.0}
    ellipse = scores.summary()["photos"]["ellipse"]
    assert ellipse > 0.9  # its objects are discs
    filled = scores.summary()["photos"]["box filled"]
    assert (
        scores.table().splitlines()[2]
        == f"| photos | 2 | 1.000 | 1.000 | 1.000 | {filled:.3f} | {ellipse:.3f} | 1.000 |"
    )
    assert scores.table().splitlines()[-1].startswith(f"| {evaluate.ALL} | 4 | 1.000 ")
    assert scores.curve().splitlines()[2] == "| photos | 2 | " + " | ".join(["1.000"] * 10) + " |"
    assert "| 0.0 to 0.2 | 4 | 0.10 | 0.00 |" in scores.calibration()
    assert "| 0.8 to 1.0 | 20 | 0.98 | 1.00 |" in scores.calibration()


def test_the_figures_of_boxes_without_a_model() -> None:
    box, shape = (10, 20, 50, 40), (60, 80)
    filled, ellipse = evaluate.filled(box, shape), evaluate.ellipse(box, shape)
    assert filled.sum() == 800
    assert bounds(filled) == bounds(ellipse) == box
    assert not (ellipse & ~filled).any()
    assert ellipse.sum() == pytest.approx(800 * np.pi / 4, rel=0.02)
    assert np.array_equal(ellipse[20:40, 10:50], ellipse[20:40, 10:50][::-1, ::-1])
    assert iou(evaluate.filled((0, 0, 80, 60), shape), np.ones(shape, bool)) == 1


def test_a_source_that_is_not_there_is_named(data: Path) -> None:
    with pytest.raises(SystemExit, match="no source 'photso'; did you mean 'photos'"):
        list(cases(pack.Pack.load(data, held_out=True), composed=0, objects=1, sources=["photso"]))
