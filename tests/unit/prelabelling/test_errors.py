"""Which errors fail an image, which stop the job, and which are waited for."""

import threading

import pytest
from maskwire import (
    DeadlineExceeded,
    ImageNotFound,
    InvalidRequest,
    MaskwireError,
    NotAllowed,
    NotAuthenticated,
    Overloaded,
    ServerUnavailable,
)
from maskwire.prelabelling import masks


@pytest.mark.parametrize(
    ("error", "stops"),
    [
        (InvalidRequest("no picture", "UNKNOWN_FORMAT"), False),
        (InvalidRequest("no such file", "NO_SUCH_FILE", "image"), False),
        (Overloaded("too large", "IMAGE_TOO_LARGE"), False),
        (DeadlineExceeded("late"), False),
        (MaskwireError("not finite", "MODEL_OUTPUT_NOT_FINITE"), False),
        (
            ServerUnavailable("two were lost", "SERVERS_LOST", retry_after_s=-1),
            False,
        ),  # the image may be what ends them
        (ServerUnavailable("cannot reach the encoder"), True),
        (ServerUnavailable("no store", "STORE_UNAVAILABLE", retry_after_s=1), True),
        (Overloaded("busy", "QUEUE_FULL", retry_after_s=0.5), True),
        (NotAuthenticated("no token"), True),
        (NotAllowed("no right"), True),
        (ImageNotFound("no model", "MODEL_NOT_FOUND"), True),
        (InvalidRequest("another server", "WRONG_SERVER"), True),
        (MaskwireError("closed", "CLOSED"), True),
    ],
    ids=lambda value: getattr(value, "reason", None),
)
def test_errors_of_an_image_do_not_stop_the_job(error: MaskwireError, stops: bool) -> None:
    assert masks.stops_job(error) is stops


def test_busy_servers_are_asked_again_until_the_job_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "_PAUSE_S", 0.0)
    answers: list[object] = [Overloaded("busy", retry_after_s=0), Overloaded("busy", retry_after_s=0.001), "masks"]

    def ask() -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    stopping = threading.Event()
    assert masks.when_not_busy(ask, stopping) == "masks"
    for final in (Overloaded("too large"), Overloaded("never", retry_after_s=-1), NotAllowed("no right")):
        answers = [final]
        with pytest.raises(MaskwireError) as raised:
            masks.when_not_busy(ask, stopping)
        assert raised.value is final
    stopping.set()
    answers = [Overloaded("busy", retry_after_s=100)]
    with pytest.raises(Overloaded):
        masks.when_not_busy(ask, stopping)
