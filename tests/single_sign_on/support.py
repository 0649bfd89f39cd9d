"""A server with identity providers, and browsers that go back and forth between them."""

import re
from html import unescape
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet import reactor
from twisted.web.client import Agent

from tests.single_sign_on.providers import CLIENT_ID, CLIENT_SECRET, CasServer, OpenIdProvider
from tests.support.program import free_port
from tests.support.server import ServerTestCase

REDIRECT = "/_matrix/client/v3/login/sso/redirect"
CLIENT_URL = "https://client.example/app?loginToken=old&room=%23a#welcome"


class Page:
    """A response as a browser has it; `url` is the address in its address bar."""

    def __init__(self, url: str, status: int, headers: Any, text: str) -> None:
        self.url = url
        self.status = status
        self.headers = headers
        self.text = text

    @property
    def location(self) -> str:
        """Where the browser is sent."""
        values = self.headers.getRawHeaders("Location") or self.headers.getRawHeaders("Refresh")
        return str(values[0].removeprefix("0; url="))

    def link(self, words: str) -> str:
        """The address of the link with these words."""
        match = re.search(rf'<a [^>]*href="([^"]*)"[^>]*>{re.escape(words)}', self.text)
        assert match is not None, self.text
        return urljoin(self.url, unescape(match[1]))

    def fields(self) -> dict[str, str]:
        """The fields of the form, with their values."""
        found = re.findall(r'<input [^>]*name="([^"]*)" value="([^"]*)"', self.text)
        return {name: unescape(value) for name, value in found}


class Browser:
    """A browser: it stores cookies, by path, and follows redirects up to an address."""

    def __init__(self, agent: Agent) -> None:
        no_cookies = IndexableCookieJar(DefaultCookiePolicy(netscape=False, rfc2965=False))
        self._http = HTTPClient(agent, no_cookies)
        self.cookies: dict[str, tuple[str, str, str]] = {}  # by name: host, path, value

    async def get(self, url: str) -> Page:
        """Go to an address."""
        return await self._request("GET", url)

    async def follow(self, url: str, *, to: str) -> Page:
        """Go to an address and follow redirects until they lead to an address that begins so."""
        for _ in range(8):
            page = await self.get(url)
            if page.status != 302:
                return page
            url = page.location
            if url.startswith(to):
                return page
        raise AssertionError("too many redirects")

    async def submit(self, page: Page, **fields: str) -> Page:
        """Press the button of a form."""
        match = re.search(r'<form method="post" action="([^"]*)"', page.text)
        assert match is not None, page.text
        # An ampersand in a value begins another field.
        data = urlencode(page.fields() | fields).replace("%26", "&").replace("%3D", "=").encode()
        return await self._request("POST", urljoin(page.url, match[1]), data)

    async def _request(self, method: str, url: str, data: bytes | None = None) -> Page:
        parts = urlsplit(url)
        sent = [
            f"{name}={value}"
            for name, (host, path, value) in self.cookies.items()
            if parts.netloc == host and parts.path.startswith(path)
        ]
        headers = {"Accept": "text/html", "Content-Type": "application/x-www-form-urlencoded"}
        if sent:
            headers["Cookie"] = "; ".join(sent)
        response = await self._http.request(
            method, url, data=data, headers=headers, allow_redirects=False
        )
        for cookie in response.headers.getRawHeaders("Set-Cookie") or []:
            self._store(parts.netloc, cookie)
        return Page(url, response.code, response.headers, (await response.content()).decode())

    def _store(self, host: str, cookie: str) -> None:
        pair, *attributes = cookie.split("; ")
        name, _, value = pair.partition("=")
        assert "HttpOnly" in attributes
        assert "SameSite=Lax" in attributes
        path = next(each[5:] for each in attributes if each.startswith("Path="))
        if "Max-Age=0" in attributes:
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = (host, path, value)


class SingleSignOnTestCase(ServerTestCase):
    """A test whose server has the providers `openid` and `cas`; classes change their settings."""

    openid_settings: dict[str, Any] = {"localpart": "{preferred_username}"}  # noqa: RUF012
    cas_settings: dict[str, Any] = {}  # noqa: RUF012
    single_sign_on: dict[str, Any] = {}  # noqa: RUF012
    server_settings: dict[str, Any] = {}  # noqa: RUF012
    kinds = ("oidc", "cas")
    base_path = ""  # of `public_baseurl`

    async def setUp(self) -> None:
        self.openid, self.cas = OpenIdProvider(), CasServer()
        self.addCleanup(self.cas.stop)
        self.addCleanup(self.openid.stop)
        port = free_port()
        providers = {
            "oidc": {
                "kind": "oidc",
                "id": "openid",
                "name": "Example & Co",
                "brand": "example",
                "issuer": self.openid.url,
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                **self.openid_settings,
            },
            "cas": {
                "kind": "cas",
                "id": "cas",
                "name": "The campus",
                "server_url": f"{self.cas.url}/cas",
                **self.cas_settings,
            },
        }
        self.settings = {
            "public_baseurl": f"http://127.0.0.1:{port}{self.base_path}",
            "listeners": [{"port": port, "bind": "127.0.0.1", "resources": ["client"]}],
            "single_sign_on": {
                "providers": [providers[kind] for kind in self.kinds],
                **self.single_sign_on,
            },
            **self.server_settings,
        }
        await super().setUp()
        self.browser = self.new_browser()

    def new_browser(self) -> Browser:
        """Another browser, without cookies."""
        return Browser(Agent(reactor, pool=self._pool))

    def redirect_url(self, provider: str = "openid", to: str = CLIENT_URL, **more: str) -> str:
        """The address at which a client begins."""
        return f"{self.url}{REDIRECT}/{provider}?{urlencode({'redirectUrl': to, **more})}"

    async def sign_in(self, provider: str = "openid", *, to: str = CLIENT_URL) -> Page:
        """Sign in at a provider: the page, or the redirect, that the browser ends at."""
        return await self.browser.follow(self.redirect_url(provider, to), to=to.partition("?")[0])

    async def log_in_by(self, page: Page) -> Any:
        """Log in as the client to which a page leads."""
        url = page.location if page.status == 302 else page.link("Continue to")
        [token] = parse_qs(urlsplit(url).query)["loginToken"]
        return await self.anybody.post("/login", {"type": "m.login.token", "token": token})

    async def actor_by(self, page: Page) -> Any:
        """The user who logs in at the client to which a page leads."""
        return self._actor(await self.log_in_by(page))


def error_of(page: Page) -> str:
    """The errcode of an error page."""
    match = re.search(r"<code>(M_\w+)</code>", page.text)
    assert match is not None, page.text
    return match[1]
