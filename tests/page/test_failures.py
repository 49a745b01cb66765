"""What the page does when the server fails, or answers only after people have gone on."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Route, WebSocketRoute, expect

from testing.chromium import Tab

OpenTab = Callable[..., Tab]
CLICK, OUTSIDE, THIRD = (260, 130), (300, 330), (420, 200)


@pytest.fixture
def tab(open_tab: OpenTab) -> Tab:
    """The page with the sample and one click."""
    made = open_tab()
    made.open_sample()
    made.click(*CLICK)
    made.until("it.mask")
    return made


def test_an_answer_that_cannot_be_read_costs_one_click(tab: Tab) -> None:
    before = tab.mask
    tab.page.evaluate(
        """() => {
            const { session } = app.editor;
            session.segment = async () => { delete session.segment; return { results: [{ masks: [{}] }] } };
            return app.editor.click(300, 330, true);
        }"""
    )
    expect(tab.page.locator(".notice")).to_contain_text("The server's answer cannot be read")
    assert len(tab.prompt["points"]) == 1
    assert (tab.mask == before).all()
    tab.click(*OUTSIDE, button="right")
    tab.until("it.prompt.points.length === 2")
    tab.page.keyboard.press("Control+z")
    tab.until("it.prompt.points.length === 1")
    assert (tab.mask == before).all()


def test_points_that_are_removed_in_quick_succession_are_those_that_were_chosen(tab: Tab) -> None:
    for number, place in enumerate((OUTSIDE, THIRD), 2):
        tab.click(*place)
        tab.until(f"it.prompt.points.length === {number}")
    # The crosshair is in the middle, and the first click is closest to it.
    tab.page.evaluate(
        """() => {
            const press = (key, altKey) => document.querySelector('#overlay').dispatchEvent(
                new KeyboardEvent('keydown', { key, altKey }));
            press('Enter', true);
            press('Enter', true); // there is nothing more to do
            for (let i = 0; i < 50; i++) press('ArrowRight', false); // to the edge, which is closest to the third
            press('Enter', true);
        }"""
    )
    tab.until("it.prompt.points.length === 1")
    tab.page.evaluate("() => app.editor._last")
    (left,) = tab.prompt["points"]
    assert (left["x_px"], left["y_px"]) == OUTSIDE
    expect(tab.page.locator(".notice")).to_have_count(0)
    tab.page.keyboard.press("Control+z")
    tab.until("it.prompt.points.length === 2")


def test_undo_of_a_click_that_then_fails_leaves_the_one_before(tab: Tab) -> None:
    before = tab.mask
    tab.page.evaluate(
        """async () => {
            const clicked = app.editor.click(9999, 9999, false);
            await Promise.all([clicked, app.editor.timeline.undo()]);
        }"""
    )
    expect(tab.page.locator(".notice")).to_contain_text("outside of the image")
    assert len(tab.prompt["points"]) == 1
    assert (tab.mask == before).all()
    assert not tab.page.evaluate("() => app.editor.timeline.canRedo")
    tab.page.keyboard.press("Control+z")
    tab.until("!it.prompt.points.length")


def test_an_undo_that_fails_can_be_tried_again(tab: Tab) -> None:
    tab.click(*OUTSIDE, button="right")
    tab.until("it.prompt.points.length === 2")
    tab.page.evaluate(
        """() => {
            const { session, timeline } = app.editor;
            session.segment = async () => { delete session.segment; throw new Error('out of order') };
            return timeline.undo();
        }"""
    )
    expect(tab.page.locator(".notice")).to_contain_text("out of order")
    assert len(tab.prompt["points"]) == 2
    assert not tab.page.evaluate("() => app.editor.timeline.canRedo")
    for left in (1, 0):
        tab.page.keyboard.press("Control+z")
        tab.until(f"it.prompt.points.length === {left}")


def test_an_image_that_is_lost_again_and_again_is_given_up(open_tab: OpenTab) -> None:
    """The server stores it each time, and each time denies to have it: the page does not upload it for ever."""
    tab = open_tab()
    uploads: list[str] = []
    denies = True

    def upload(route: Route) -> None:
        uploads.append(route.request.url)
        route.continue_()

    def relay(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def answer(frame: Any) -> None:
            request = json.loads(frame)
            if denies and "set_image" in request:
                socket.send(json.dumps({"error": {"code": 5, "message": "there is no such image"}}))
            else:
                server.send(frame)

        socket.on_message(answer)

    tab.page.route("**/v1/images*", upload)  # with a query from the second time on
    tab.page.route_web_socket("**/v1/stream", relay)
    tab.page.get_by_role("button", name="Or try this one").click()
    tab.page.wait_for_selector("#connection[data-state=failed]")
    expect(tab.page.locator(".notice")).to_contain_text("keeps losing the image")
    assert len(uploads) == 3
    denies = False
    tab.page.locator("#connection").click()
    tab.until_connected()
    tab.click(*CLICK)
    tab.until("it.mask")


def test_a_connection_that_was_closed_tells_nothing_more(open_tab: OpenTab) -> None:
    """Not even if the answer to why it could not be opened comes only then."""
    told = open_tab().page.evaluate(
        """async () => {
            const { Connection } = await import('/assets/connection.js');
            let answer;
            const asked = new Promise((resolve) => (answer = resolve));
            let refuse;
            const models = () => new Promise((_, reject) => { refuse = reject; answer(); });
            const api = { socketUrl: () => 'ws://127.0.0.1:1/', protocols: [], models };
            const connection = new Connection(api, { image: async () => ({}), recover: async () => {} });
            const told = [];
            for (const name of ['failed', 'state']) connection.addEventListener(name, () => told.push(name));
            await asked;
            told.length = 0;
            connection.close();
            refuse(Object.assign(new Error('refused'), { isTransient: false }));
            await new Promise((resolve) => setTimeout(resolve, 100));
            return told;
        }"""
    )
    assert told == []
