"""A real browser, Chromium without a window, that a test drives as its user would.

It is driven by the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/): fields
are focused and typed into, buttons and links are reached and pressed with the keyboard, and the
page that follows is awaited.
"""

import asyncio
import json
import subprocess
import tempfile
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websockets.asyncio.client import ClientConnection, connect

from tests.clients.encryption.browser import CHROMIUM, OPTIONS

START_SECONDS = 30.0
LOAD_SECONDS = 20.0
MAX_STOPS = 40  # of the tabulator on a page


class Tab:
    """The one tab of a browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = count(1)
        self._loads = 0  # pages that were loaded
        self.problems: list[str] = []  # what the browser complains of, such as a blocked style

    async def command(self, method: str, **parameters: Any) -> Any:
        """The result of a command of the protocol."""
        number = next(self._numbers)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = await self._next()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message}"
                return message["result"]

    async def open(self, address: str) -> None:
        """Go to an address."""
        before = self._loads
        await self.command("Page.navigate", url=address)
        await self._loaded(before)

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, in the page."""
        found = await self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, f"{expression}: {found}"
        return found["result"].get("value")

    async def text(self) -> str:
        """What the user reads."""
        return str(await self.evaluate("document.body.innerText"))

    async def fill(self, **values: str) -> None:
        """Type into the fields with these names, in place of what is there."""
        for name, value in values.items():
            field = f"document.querySelector('[name={name}]')"
            await self.evaluate(f"{field}.focus(); {field}.select()")
            await self.command("Input.insertText", text=value)

    async def check(self, *names: str) -> None:
        """Tick the boxes with these names, with the space bar."""
        for name in names:
            await self.evaluate(f"document.querySelector('[name={name}]').focus()")
            await self._type_key(" ", "Space", 32)

    async def press(self, label: str) -> None:
        """Go to the button or link that is labelled so, press Enter, and wait for the next page."""
        await self.tab_to(label)
        before = self._loads
        await self._type_key("\r", "Enter", 13)
        await self._loaded(before)

    async def tab_to(self, label: str) -> None:
        """Move the focus by the tabulator, until it is on a button or link that is labelled so."""
        for _ in range(MAX_STOPS):
            await self._type_key("", "Tab", 9)
            focused = str(await self.evaluate("document.activeElement.innerText"))
            tag = await self.evaluate("document.activeElement.tagName")
            if tag in ("A", "BUTTON") and focused.strip().startswith(label):
                return
        raise AssertionError(f"{label!r} cannot be reached in: {await self.text()}")

    async def resize(self, width: int, height: int) -> None:
        """Give the page the size of a screen, in pixels."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    async def screenshot(self) -> bytes:
        """What is visible, as PNG."""
        shot = await self.command("Page.captureScreenshot", format="png")
        return b64decode(shot["data"])

    async def _type_key(self, text: str, code: str, number: int) -> None:
        """Type one key."""
        key = {"key": text if text == " " else code, "code": code, "windowsVirtualKeyCode": number}
        down = "keyDown" if text else "rawKeyDown"
        await self.command("Input.dispatchKeyEvent", type=down, text=text, **key)
        await self.command("Input.dispatchKeyEvent", type="keyUp", **key)

    async def _loaded(self, before: int) -> None:
        """A page more than `before` has been loaded, perhaps while a command was waited for."""
        async with asyncio.timeout(LOAD_SECONDS):
            while self._loads == before:
                await self._next()

    async def _next(self) -> Any:
        message = json.loads(await self._socket.recv())
        if message.get("method") == "Page.loadEventFired":
            self._loads += 1
        elif message.get("method") == "Log.entryAdded":
            entry = message["params"]["entry"]
            # A page that says what is wrong has the status of an error, and a test may type before
            # the browser has moved the focus.
            if entry["source"] != "network" and not entry["text"].startswith("Autofocus"):
                self.problems.append(entry["text"])
        return message


@asynccontextmanager
async def open_browser() -> AsyncIterator[Tab]:
    """A browser with one empty tab, whose pages run no scripts of their own."""
    # Processes of the browser may write for a moment after it was ended.
    folder = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
    with folder as name, _running(Path(name)) as address:
        async with connect(address, max_size=None) as socket:
            tab = Tab(socket)
            for domain in ("Page", "Log", "Runtime"):
                await tab.command(f"{domain}.enable")
            await tab.command("Emulation.setScriptExecutionDisabled", value=True)
            yield tab


@contextmanager
def _running(folder: Path) -> Iterator[str]:
    """A process of the browser; gives the address of the tab's WebSocket."""
    profile = folder / "profile"
    options = (*OPTIONS, "--remote-debugging-port=0", f"--user-data-dir={profile}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(CHROMIUM), *options, "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield _address(profile / "DevToolsActivePort")
        finally:
            process.terminate()
            process.wait()


def _address(port: Path) -> str:
    """The address of the tab's WebSocket, once the browser has written its port."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if port.exists() and (number := port.read_text().partition("\n")[0]):
            with urlopen(f"http://127.0.0.1:{number}/json/list") as response:
                for each in json.load(response):
                    if each["type"] == "page":
                        return str(each["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise AssertionError("the browser did not start")
