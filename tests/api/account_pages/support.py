"""A browser, as far as pages without scripts need one: cookies, forms and redirects."""

import re
from html import unescape
from http.cookiejar import DefaultCookiePolicy
from typing import Any, ClassVar
from urllib.parse import urlencode, urljoin

import msgspec
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet import reactor
from twisted.web.client import Agent

from tests.support.server import ServerTestCase

BASE = "http://matrix.example.org"
_INPUT = re.compile(r"<input([^>]*)>")
_FORM = re.compile(r"<form([^>]*)>(.*?)</form>", re.DOTALL)
_ATTRIBUTE = re.compile(r'([\w-]+)="([^"]*)"')


class Page(msgspec.Struct, frozen=True):
    """A response: its status, text and headers, and the path that it is from."""

    path: str
    status: int
    text: str
    headers: dict[str, str]

    @property
    def location(self) -> str | None:
        """The path that it redirects to."""
        return self.headers.get("location")

    @property
    def heading(self) -> str:
        """What is at its top."""
        found = re.search(r"<h1>(.*?)</h1>", self.text, re.DOTALL)
        return unescape(found[1]).strip() if found else ""

    def forms(self) -> list[tuple[dict[str, str], dict[str, str]]]:
        """Its forms: the attributes of each, and the fields with the values that they have."""
        forms = []
        for attributes, content in _FORM.findall(self.text):
            inputs = [
                _attributes(each)
                for each in _INPUT.findall(content)
                if "checkbox" not in each or " checked" in each
            ]
            fields = {each["name"]: each.get("value", "") for each in inputs if "name" in each}
            forms.append((_attributes(attributes), fields))
        return forms


def _attributes(text: str) -> dict[str, str]:
    return {name: unescape(value) for name, value in _ATTRIBUTE.findall(text)}


class Browser:
    """A browser that keeps cookies, and does what its user does."""

    def __init__(self, http: HTTPClient, url: str) -> None:
        self._http = http
        self._url = url
        self.cookies: dict[str, str] = {}

    async def get(self, path: str) -> Page:
        """Open an address."""
        return await self._request("GET", path, None, {})

    async def post(self, path: str, fields: dict[str, str], **headers: str) -> Page:
        """Send a form, without following a redirect."""
        return await self._request("POST", path, urlencode(fields).encode(), headers)

    async def post_body(self, path: str, body: bytes) -> Page:
        """Send what no form makes."""
        return await self._request("POST", path, body, {})

    async def submit(self, page: Page, number: int = 0, **values: str) -> Page:
        """Fill in and send a form of a page, and follow redirects."""
        form, fields = page.forms()[number]
        target = urljoin(page.path, form.get("action", page.path))
        return await self.follow(await self.post(target, fields | values))

    async def follow(self, page: Page) -> Page:
        """The page that redirects lead to."""
        while page.location is not None:
            assert page.location.startswith("/"), page.location
            page = await self.get(page.location)
        return page

    async def _request(
        self, method: str, path: str, data: bytes | None, headers: dict[str, str]
    ) -> Page:
        sent = {"Accept": "text/html", **headers}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        response = await self._http.request(
            method, self._url + path, data=data, headers=sent, allow_redirects=False
        )
        found = {
            name.decode().lower(): values[0].decode()
            for name, values in response.headers.getAllRawHeaders()
        }
        self._keep(found.get("set-cookie"))
        return Page(path, response.code, await response.text(), found)

    def _keep(self, cookie: str | None) -> None:
        if cookie is None:
            return
        name, _, value = cookie.partition(";")[0].partition("=")
        if "Max-Age=0" in cookie:
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value


class PagesTestCase(ServerTestCase):
    """A server whose pages are enabled, and one browser."""

    settings: ClassVar[dict[str, Any]] = {"public_baseurl": BASE, "oauth": {"enabled": True}}

    async def setUp(self) -> None:
        await super().setUp()
        self.browser = self.new_browser()

    def new_browser(self) -> Browser:
        """Another browser."""
        no_cookies = IndexableCookieJar(DefaultCookiePolicy(netscape=False, rfc2965=False))
        http = HTTPClient(Agent(reactor, pool=self._pool), no_cookies)
        return Browser(http, self.url)

    async def sign_in(
        self,
        name: str,
        browser: Browser,
        *,
        password: str | None = None,
        as_name: str | None = None,
    ) -> Page:
        """The page after a registered user has filled in the form, as a browser shows it."""
        page = await browser.get("/_matrix/account/sign_in")
        password = password or f"the password of {name}"
        return await browser.submit(page, user=as_name or name, password=password)
