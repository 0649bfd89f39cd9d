"""Single sign-on with a certified OpenID provider, in a real browser.

The provider is that of the package `oidc-provider` (https://github.com/panva/node-oidc-provider).
"""

import asyncio
import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import Request, urlopen

import pytest

from tests.clients.devtools import Tab, open_browser
from tests.clients.encryption.browser import CHROMIUM
from tests.clients.node import FOLDER, NEEDS_NODE
from tests.support.process import ServerProcess
from tests.support.program import free_port

pytestmark = [
    pytest.mark.interop,
    *NEEDS_NODE,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
V3 = "/_matrix/client/v3"


class WebClient(BaseHTTPRequestHandler):
    """The page of a client, to which browsers return."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<h1>The client</h1>")

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def client_url() -> Iterator[str]:
    """The address of a web client."""
    with ThreadingHTTPServer(("127.0.0.1", 0), WebClient) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/app"
        server.shutdown()


@pytest.fixture(scope="module")
def sso_server(client_url: str) -> Iterator[ServerProcess]:
    """A server with the provider twice: users choose a name, or have that of the provider."""
    directory = Path(tempfile.mkdtemp(prefix="homeserver-"))
    directory.chmod(0o755)
    port, provider_port = free_port(), free_port()
    base = f"http://127.0.0.1:{port}"
    provider = {
        "kind": "oidc",
        "issuer": f"http://127.0.0.1:{provider_port}",
        "client_id": "matrix",
        "client_secret": "a secret & more",
    }
    overrides = {
        "public_baseurl": base,
        "oauth": {"enabled": True},
        "single_sign_on": {
            "providers": [
                {**provider, "id": "choosing", "name": "The choosing provider"},
                {
                    **provider,
                    "id": "mapped",
                    "name": "The mapping provider",
                    "localpart": "{preferred_username}",
                },
            ],
            "trusted_clients": [f"{client_url}/trusted"],
        },
    }
    callback = f"{base}/_matrix/sso/callback"
    line = ["node", "oidc_provider.mjs", str(provider_port), callback]
    with (
        subprocess.Popen(
            line, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as node,
        ServerProcess(directory, overrides=overrides, port=port) as server,
    ):
        assert node.stdout is not None
        assert node.stdout.readline().strip() == b"listening"
        server.start()
        yield server
        node.terminate()


def redirect_url(server: ServerProcess, provider: str, client: str) -> str:
    """Where a client sends the browser."""
    query = urlencode({"redirectUrl": client})
    return f"{server.url}{V3}/login/sso/redirect/{provider}?{query}"


def blocked(tab: Tab) -> list[str]:
    """What the browser complains of, except for the forms of the provider."""
    return [problem for problem in tab.problems if not problem.startswith("[DOM]")]


async def wait_for(tab: Tab, text: str) -> None:
    """Wait for a page that has a text: some pages lead on by themselves."""
    for _ in range(200):
        with suppress(AssertionError):  # while the browser goes from one page to the next
            if text in await tab.text():
                return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{text!r} is not in: {await tab.text()}")


async def sign_in_at_provider(tab: Tab, name: str) -> None:
    """Fill in the provider's forms."""
    await tab.fill(login=name, password="anything")
    await tab.press("Sign-in")
    await tab.press("Continue")


def call(
    server: ServerProcess, method: str, path: str, body: Any, token: str = ""
) -> tuple[int, Any]:
    """The status and the body of a response."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = json.dumps(body).encode()
    request = Request(f"{server.url}{path}", data, headers, method=method)
    try:
        with urlopen(request) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


async def log_in_at(server: ServerProcess, tab: Tab, client: str) -> Any:
    """The client, at which the browser is, logs in with the token in its address."""
    await wait_for(tab, "The client")
    address = str(await tab.evaluate("location.href"))
    assert address.startswith(client)
    [token] = parse_qs(urlsplit(address).query)["loginToken"]
    _, session = call(server, "POST", f"{V3}/login", {"type": "m.login.token", "token": token})
    return session


async def test_a_new_user_chooses_a_name_and_logs_in(
    sso_server: ServerProcess, client_url: str
) -> None:
    """From the client through the provider and two pages of the server, back to the client."""
    client = f"{client_url}?state=1#/welcome"
    async with open_browser() as tab:
        await tab.open(redirect_url(sso_server, "choosing", client))
        await sign_in_at_provider(tab, "Ann")
        await wait_for(tab, "Choose your user name")
        await tab.fill(localpart="ann.lee")
        await tab.press("Create the account")
        await wait_for(tab, "@ann.lee:localhost")
        await tab.press("Continue to")

        session = await log_in_at(sso_server, tab, client_url)
        assert session["user_id"] == "@ann.lee:localhost"
        assert await tab.evaluate("location.hash") == "#/welcome"
        assert blocked(tab) == []


async def test_a_trusted_client_needs_no_click(sso_server: ServerProcess, client_url: str) -> None:
    """Also after the form for the name, whose policy would stop a redirect."""
    client = f"{client_url}/trusted"
    async with open_browser() as tab:
        await tab.open(redirect_url(sso_server, "choosing", client))
        await sign_in_at_provider(tab, "Bob")
        await tab.press("Create the account")

        assert (await log_in_at(sso_server, tab, client))["user_id"] == "@bob:localhost"
        assert blocked(tab) == []


async def test_the_page_for_clients_that_know_no_flow_leads_to_the_provider(
    sso_server: ServerProcess,
) -> None:
    """The browser comes back to the page, which logs in with the device id of the client."""
    async with open_browser() as tab:
        await tab.command("Emulation.setScriptExecutionDisabled", value=False)
        await tab.open(f"{sso_server.url}/_matrix/static/client/login/?device_id=FALLBACK")
        await tab.press("Continue with The mapping provider")
        await sign_in_at_provider(tab, "dora")
        await wait_for(tab, "@dora:localhost")
        await tab.press("Continue to")

        await wait_for(tab, "You are logged in, but no client waits for it")
        assert await tab.evaluate("location.search") == "?device_id=FALLBACK"
        assert blocked(tab) == []


async def test_a_user_without_a_password_removes_a_device(
    sso_server: ServerProcess, client_url: str
) -> None:
    """The page of the stage leads to the provider and back."""
    client = f"{client_url}/trusted"
    async with open_browser() as tab:
        await tab.open(redirect_url(sso_server, "mapped", client))
        await sign_in_at_provider(tab, "carol")
        first = await log_in_at(sso_server, tab, client)
        await tab.open(redirect_url(sso_server, "mapped", client))
        second = await log_in_at(sso_server, tab, client)
        token, device = first["access_token"], f"{V3}/devices/{second['device_id']}"
        status, needed = call(sso_server, "DELETE", device, {}, token)
        assert (status, needed["flows"]) == (401, [{"stages": ["m.login.sso"]}])

        session = urlencode({"session": needed["session"]})
        await tab.open(f"{sso_server.url}{V3}/auth/m.login.sso/fallback/web?{session}")
        assert "log out one of your devices" in await tab.text()
        await tab.press("Sign in with The mapping provider")
        await wait_for(tab, "You can close this window")

        auth = {"auth": {"session": needed["session"]}}
        assert call(sso_server, "DELETE", device, auth, token) == (200, {})
        assert blocked(tab) == []


async def test_the_pages_of_an_account_are_reached_by_the_provider(
    sso_server: ServerProcess,
) -> None:
    """A browser signs in to the server itself."""
    async with open_browser() as tab:
        await tab.open(f"{sso_server.url}/_matrix/account")
        await tab.press("Continue with The choosing provider")
        await sign_in_at_provider(tab, "eve")
        await tab.press("Create the account")

        await wait_for(tab, "@eve:localhost")
        assert await tab.evaluate("location.pathname") == "/_matrix/account"
        assert blocked(tab) == []
