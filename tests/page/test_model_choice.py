"""The choice of the model on the page."""

from pathlib import Path
from types import SimpleNamespace

from maskwire_core.models.registry import add, describe
from playwright.sync_api import Browser, expect

from testing import small_model
from testing.chromium import Tab
from testing.servers import running_gateway, server

CLICK = (260, 130)


def test_people_choose_one_of_several_models(browser: Browser, valkey: str, tmp_path: Path) -> None:
    small = small_model.options(tmp_path)
    add(tmp_path, describe("mine", small["config"], Path(small["checkpoint"])))
    options = ("--models", str(tmp_path), "--model", "demo", "--model", "mine")
    with (
        server("maskwire_decoder", valkey) as decoder,
        server("maskwire_encoder", valkey, *options) as encoder,
        running_gateway(SimpleNamespace(encoder=encoder, decoder=decoder)) as (address, _),
    ):
        tab = Tab(browser, address)
        tab.open_sample()
        choice = tab.page.get_by_label("Model", exact=True)
        expect(choice).to_have_value("demo")
        tab.click(*CLICK)
        tab.until("it.mask")
        rough = tab.mask
        choice.select_option("mine")
        tab.until_connected()
        assert tab.page.evaluate("() => app.editor.session.image.model") == "mine"
        expect(tab.page.get_by_role("alert")).to_contain_text("made by the model demo. From now on clicks are answered")
        assert (tab.mask == rough).all()  # until it is clicked
        tab.page.keyboard.press("n")
        tab.click(*CLICK)
        tab.until("it.id === 'object-2' && it.mask")
        tab.reload()
        tab.until_connected()
        expect(choice).to_have_value("mine")
        assert tab.page.evaluate("() => app.editor.session.image.model") == "mine"
        tab.close()
