"""Files in a page in Chromium: what the browser lets a web client have of another origin."""

import pytest

from tests.clients.encryption.browser import CHROMIUM, ESBUILD, open_page
from tests.clients.node import NEEDS_NODE
from tests.support.process import ServerProcess

pytestmark = [
    pytest.mark.interop,
    *NEEDS_NODE,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.skipif(not ESBUILD.exists(), reason="run `npm ci` in tests/clients/js"),
]


async def test_pictures_and_sounds(server: ServerProcess) -> None:
    """A web client shows and plays files: from its memory, and through its service worker."""
    with open_page("browser/media.mjs", server=server.url, name="somebody") as page:
        shown = await page.result(seconds=60)

    assert shown == {
        "stranger": 401,
        "again": True,
        "part": [206, 100],
        "type": "image/png",
        "picture": [200, 100],
        "duration": 2,
        "workerPicture": [200, 100],
        "workerThumbnail": [32, 32],
        "workerDuration": 2,
    }
    assert server.new_errors() == []
