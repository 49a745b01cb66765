"""Label Studio's own labelling page in Chromium: its smart tools, answered by the adapter."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maskwire import Client
from maskwire.datasets import read
from playwright.sync_api import Browser, Page, Request

from testing.chromium import PICTURES
from testing.contours import with_holes_filled

from .conftest import CONFIG, PASSWORD, USER, Project, Server, connected

pytestmark = [pytest.mark.compatibility, pytest.mark.timeout(1800)]

WIDTH, HEIGHT = 600, 400
TIMEOUT_MS = 120_000


class LabellingPage:
    """A task that is open, operated as people do it. Coordinates are pixels of the image."""

    def __init__(self, page: Page, project: Project) -> None:
        self._page = page
        self.asked: list[list[dict[str, Any]]] = []  # what was marked at each question to the backend
        page.on("request", self._note)
        page.goto(f"/projects/{project.number}/data?task={project.task}")
        page.get_by_role("button", name="Create an annotation").click()
        page.get_by_test_id("bottombar-auto-annotation-toggle").check(force=True)  # drawn over by what people see

    def _note(self, request: Request) -> None:
        if request.url.endswith("/interactive-annotating"):
            self.asked.append(request.post_data_json["context"]["result"])

    def choose(self, tool: str, labels: int, label: str) -> None:
        """Chooses a smart tool, and a label of the configuration's n-th tag of labels."""
        self._page.locator("button.lsf-tool_smart").first.hover()  # opens the list of smart tools
        self._page.locator(f"button.lsf-tool_smart[aria-label={tool}]").last.click()
        self._page.locator(".lsf-labels").nth(labels).locator(".lsf-label", has_text=label).click()

    def click(self, x: float, y: float) -> None:
        self._page.mouse.click(*self._window(x, y))

    def drag(self, x0: float, y0: float, x1: float, y1: float) -> None:
        self._page.mouse.move(*self._window(x0, y0))
        self._page.mouse.down()
        self._page.mouse.move(*self._window((x0 + x1) / 2, (y0 + y1) / 2), steps=5)
        self._page.mouse.move(*self._window(x1, y1), steps=5)
        self._page.mouse.up()

    def accept(self, picture: str = "") -> None:
        """Waits for the mask, which the page suggests, and accepts it.

        Args:
            picture: File in out/ that gets a screenshot of the suggestion.
        """
        button = self._page.get_by_test_id("bottombar-accept-suggestions-button")
        button.wait_for()
        if picture:
            PICTURES.mkdir(exist_ok=True)
            self._page.screenshot(path=PICTURES / picture)
        button.click()
        button.wait_for(state="detached")

    def submit(self) -> dict[str, Any]:
        """Submits the annotation. Returns it as Label Studio has it."""
        with self._page.expect_response(lambda answer: "/annotations" in answer.url and answer.status == 201) as kept:
            self._page.get_by_test_id("bottombar-submit-button").click()
        annotation: dict[str, Any] = kept.value.json()
        return annotation

    def _window(self, x: float, y: float) -> tuple[float, float]:
        picture = self._page.locator("canvas:visible").last.bounding_box()
        assert picture is not None
        return picture["x"] + x / WIDTH * picture["width"], picture["y"] + y / HEIGHT * picture["height"]


@pytest.fixture(scope="module")
def logged_in(browser: Browser, server: Server) -> Iterator[Page]:
    """A page of somebody who has logged in."""
    context = browser.new_context(base_url=str(server.http.base_url), viewport={"width": 1500, "height": 1000})
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    page.goto("/user/login/")
    page.fill("input[name=email]", USER)
    page.fill("input[name=password]", PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_url(lambda address: "/login" not in address)
    yield page
    context.close()


def prompt(marked: list[dict[str, Any]]) -> dict[str, Any]:
    """What the client is to be asked instead of the backend, given what is marked."""
    values = [region["value"] for region in marked]
    points = [(value["x"] * WIDTH / 100, value["y"] * HEIGHT / 100) for value in values if "keypointlabels" in value]
    boxes = [
        (
            value["x"] * WIDTH / 100,
            value["y"] * HEIGHT / 100,
            (value["x"] + value["width"]) * WIDTH / 100,
            (value["y"] + value["height"]) * HEIGHT / 100,
        )
        for value in values
        if "rectanglelabels" in value
    ]
    return {**({"points": points} if points else {}), **({"box": boxes[-1]} if boxes else {})}


@pytest.mark.client(
    "Label Studio",
    "its labelling page in Chromium: smart key point and rectangle, suggestions accepted and submitted",
    package="label-studio",
)
@pytest.mark.parametrize("tag", ["BrushLabels", "BitmaskLabels", "PolygonLabels", "VectorLabels"])
def test_smart_tools_of_the_labelling_page(
    server: Server,
    address: str,
    label_studio_program: Path,
    logged_in: Page,
    client: Client,
    photo: Path,
    tmp_path: Path,
    tag: str,
) -> None:
    config = CONFIG.replace("BrushLabels", tag).replace("<VectorLabels", '<VectorLabels closable="true"')
    project = connected(server, address, label_studio_program, config, (photo.name, photo.read_bytes()))
    page = LabellingPage(logged_in, project)
    page.choose("key-point-tool", 1, "Cup")
    page.click(258, 132)
    page.accept(f"label-studio-{tag}-click.png")
    page.choose("rectangle-tool", 2, "Plate")
    page.drag(132, 40, 498, 344)
    page.accept(f"label-studio-{tag}-box.png")
    submitted = page.submit()

    click, box = (prompt(marked) for marked in page.asked)
    # The page's places are near the mouse's: a point is some pixels beside it, a rectangle begins when it has moved.
    assert np.allclose(click["points"], [(258, 132)], atol=5)
    assert np.allclose(box["box"], (132, 40, 498, 344), atol=12)
    exported = project.http.get(f"/api/projects/{project.number}/export", params={"exportType": "JSON"}).json()
    assert [each["id"] for each in exported[0]["annotations"]] == [submitted["id"]]
    (tmp_path / "export.json").write_text(json.dumps(exported))
    (image,) = read(tmp_path / "export.json")
    for label, given in {"Cup": click, "Plate": box}.items():
        masks = [annotation.array for annotation in image.annotations if annotation.label == label]
        found, expected = np.logical_or.reduce(masks), client.segment(photo, **given).mask
        assert expected.sum() > 1000
        if tag in ("BrushLabels", "BitmaskLabels"):
            np.testing.assert_array_equal(found, expected)
        else:  # outlines: without holes, within a pixel
            outer = with_holes_filled(expected)
            assert (found & outer).sum() / (found | outer).sum() > 0.95
