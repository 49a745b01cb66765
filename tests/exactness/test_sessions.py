"""Interactive sessions against sam2's own predictor, and undo and redo to the last digit."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from maskwire import Client, InvalidRequest
from numpy.typing import NDArray

from testing.clicks import CLICKS, LOGITS, click
from testing.reference.predictor import Reference, build_demo, over_white
from testing.servers import Stack, server


class ByHand:
    """What a user of SAM2ImagePredictor does: the first click's best candidate, then the logits fed back."""

    def __init__(self, path: Path) -> None:
        self._reference = Reference(build_demo(), over_white(path))
        self._clicks: list[tuple[int, int, int]] = []
        self._logits: NDArray[np.float32] | None = None

    def click(self, clicked: tuple[int, int, int]) -> tuple[NDArray[np.float32], float]:
        self._clicks.append(clicked)
        points, labels = [(x, y) for x, y, _ in self._clicks], [label for _, _, label in self._clicks]
        prompt = {"points": points, "labels": labels, "mask": self._logits}
        answer = self._reference.predict(prompt, multimask=self._logits is None)
        best = int(answer.scores.argmax())
        self._logits = answer.logits[best]
        return self._logits, float(answer.scores[best])


def test_corrective_clicks_equal_sam2_with_logits_fed_back(exact: Stack, photo: Path) -> None:
    by_hand = ByHand(photo)
    with Client(exact.encoder, exact.decoder) as client, client.session(photo, **LOGITS) as session:
        for clicked in CLICKS:
            logits, score = by_hand.click(clicked)
            result = click(session, clicked)
            np.testing.assert_allclose(result.logits, logits, atol=1e-3)
            assert result.score == pytest.approx(score, abs=1e-3)
        assert session.counters == {"decodes": 5, "superseded": 0}


def test_a_box_and_a_click_on_it_equal_sam2(exact: Stack, photo: Path) -> None:
    reference, box = Reference(build_demo(), over_white(photo)), (135, 40, 500, 345)
    first = reference.predict({"box": box}, multimask=False)
    clicks = {"points": [(300, 330)], "labels": [0]}
    fed = reference.predict({"box": box, **clicks, "mask": first.logits[0]}, multimask=False)
    fresh = reference.predict({"box": box, **clicks}, multimask=True)
    with Client(exact.encoder, exact.decoder) as client, client.session(photo, **LOGITS) as session:
        np.testing.assert_allclose(session.box(*box).logits, first.logits[0], atol=1e-3)
        np.testing.assert_allclose(session.click(300, 330, positive=False).logits, fed.logits[0], atol=1e-3)
    with (
        Client(exact.encoder, exact.decoder) as client,
        client.session(photo, multimask=True, every=True, **LOGITS) as session,
    ):
        session.box(*box)
        result = session.click(300, 330, positive=False, refine=False)
        np.testing.assert_allclose([mask.logits for mask in result.candidates], fresh.logits, atol=1e-3)


@pytest.mark.parametrize("kept", ["all", "one"])
def test_undo_and_redo_restore_prompts_and_logits(exact: Stack, photo: Path, kept: str) -> None:
    """Also where the logits were dropped for want of memory, and are decoded again."""
    with contextlib.ExitStack() as stack:
        options = () if kept == "all" else ("--logits-cache-bytes", "0")
        address = stack.enter_context(server("maskwire_decoder", exact.redis_url, *options))
        client = stack.enter_context(Client(exact.encoder, address))
        session = stack.enter_context(client.session(photo, **LOGITS))
        states = [click(session, clicked) for clicked in CLICKS]
        states.append(session.box(135, 40, 500, 345))
        states.append(session.remove_point(1))  # type: ignore[arg-type]
        for before in states[-2::-1]:
            undone = session.undo()
            assert undone is not None
            np.testing.assert_array_equal(undone.logits, before.logits)
            assert (undone.rle, undone.score) == (before.rle, before.score)
        assert session.undo() is None
        with pytest.raises(InvalidRequest) as caught:
            session.undo()
        assert caught.value.reason == "NOTHING_TO_UNDO"
        for after in states:
            redone = session.redo()
            assert redone is not None
            np.testing.assert_array_equal(redone.logits, after.logits)
        assert session.undo() is not None
        other = session.click(50, 60)  # the change that was taken back is gone
        with pytest.raises(InvalidRequest, match="nothing was taken back"):
            session.redo()
        session.clear()
        fresh = click(session, CLICKS[0])
        np.testing.assert_array_equal(fresh.logits, states[0].logits)
        session.undo()
        cleared = session.undo()
        assert cleared is not None
        np.testing.assert_array_equal(cleared.logits, other.logits)
        # With the logits of all steps kept, nothing is decoded twice.
        assert kept == "one" or session.counters["decodes"] == 8
