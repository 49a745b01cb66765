"""One browser for the files of tests that follow one another and use it."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


class SharedBrowser:
    """Keeps a Chromium from a file of tests to the next if that uses it, too, as a plugin of pytest. Each test opens a
    context of its own in it. Playwright runs an event loop meanwhile, beside which other tests could run none."""

    def __init__(self) -> None:
        self._started = ExitStack()
        self._browser: Browser | None = None
        self._is_wanted = False

    def get(self) -> "Browser":
        """The browser, which is started unless it runs."""
        from testing.chromium import chromium  # Playwright, which the unit tier does without

        if self._browser is None or not self._browser.is_connected():
            self._started.close()
            self._browser = self._started.enter_context(chromium())
        return self._browser

    def leave(self) -> None:
        """Ends the browser, unless the next test uses it."""
        if not self._is_wanted:
            self._browser = None
            self._started.close()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, nextitem: pytest.Item | None) -> None:
        self._is_wanted = isinstance(nextitem, pytest.Function) and "browser" in nextitem.fixturenames
