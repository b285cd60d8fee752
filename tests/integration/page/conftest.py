"""A headless Chromium and a server that speaks the planner's API, if the machine has a Chromium."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web

from tests.integration.page import histories
from tests.integration.page.fake_api import FakeApi

T = TypeVar("T")

#: What keeps the browser from calling anyone but the server under test.
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-precise-memory-info",
)  # fmt: skip

#: Seconds to wait for what the page is to show; generous, since machines of tests are busy.
PATIENCE_S = 90.0


class Server:
    """A server in a thread, that can be stopped and started again at the same port.

    Args:
        app: makes the application, at each start.
        fake: what it serves, unless that is the real thing.
    """

    def __init__(self, app: Callable[[], web.Application], fake: FakeApi | None = None) -> None:
        self.app = app
        self._fake = fake
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.start()

    @property
    def fake(self) -> FakeApi:
        assert self._fake is not None
        return self._fake

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def start(self) -> None:
        async def run() -> None:
            self._runner = web.AppRunner(self.app(), shutdown_timeout=1.0)
            await self._runner.setup()
            site = web.TCPSite(self._runner, "127.0.0.1", self._port)
            await site.start()
            self._port = self._runner.addresses[0][1]

        self._wait(run())

    def stop(self) -> None:
        self._wait(self._runner.cleanup())

    def change(self, how: Callable[[FakeApi], object]) -> None:
        """Change what is answered, between two answers."""

        async def run() -> None:
            how(self.fake)

        self._wait(run())

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Page:
    """The page in the browser."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def look(self, *, width: int, dark: bool, height: int = 1000) -> None:
        """Set the size of the window and the colours that the user prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": theme})

    def run(self, script: str, *args: object) -> Any:
        return self.driver.execute_script(script, *args)

    def text(self, selector: str) -> str:
        """Visible text of the first match."""
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def until(self, what: str, holds: Callable[[], T]) -> T:
        """Wait until `holds` gives something true."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            found = holds()
            if found:
                return found
            time.sleep(0.05)
        pytest.fail(f"not within {PATIENCE_S:.0f} s: {what}; verdict {self.text('#verdict')!r}")

    def until_script(self, script: str) -> Any:
        return self.until(script, lambda: self.run(f"return {script}"))

    def open(self, url: str, decisions: int) -> None:
        """Load the page and wait until it lists and draws its decisions."""
        self.driver.get(url)
        self.until(f"{decisions} decisions", lambda: f"{decisions:,} decisions" in self.text("#shown"))
        self.until_script("document.querySelectorAll('#chart-load .scatterlayer .trace').length > 0")

    def complaints(self) -> list[str]:
        """What the browser's console holds since the last call: refused scripts and styles, failed requests, errors."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra dev)")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no Chromium with chromedriver on this machine (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile: Path = tmp_path_factory.mktemp("chromium")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    try:
        yield started
    finally:
        started.quit()


@pytest.fixture
def page(driver: Any) -> Page:
    made = Page(driver)
    driver.get("about:blank")
    made.complaints()
    made.look(width=1440, dark=False)
    return made


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts a fake API with some decisions; polls come quickly, since its interval is short."""
    servers: list[Server] = []

    def start(rows: list[histories.Json], *, interval_s: float = 3.0, speed_up: float = 1.0) -> Server:
        fake = FakeApi(rows, speed_up=speed_up)
        fake.replaced["settings"] = histories.state([], 0.0)["settings"] | {"interval_s": interval_s}
        servers.append(Server(fake.app, fake))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
