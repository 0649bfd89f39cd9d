"""HTML pages: their common parts, and what may run in them."""

import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest

from homeserver.client_api.account_pages.devices import ShownDevice
from homeserver.client_api.accounts.login_fallback import LoginFallbackApi
from homeserver.client_api.accounts.stage_forms import FIELDS
from homeserver.config.settings import Settings
from homeserver.protocol.errors import LimitExceeded, MatrixError, NotFound, Unrecognized
from homeserver.web.html import Pages, accepts_html
from homeserver.web.pages import WelcomePage
from homeserver.web.routes import Response

NAME = "<b>example.org"  # not a possible server name, but nothing may be in a page unescaped
UNUSED = {"problem": "", "documents": (), "hidden": {}, "fields": (), "public_key": ""}
EVIL = '"><script>'
ADDRESS = '/x?a="><script>&b'
DOCUMENT = {"name": "<i>Privacy", "url": 'https://example.org/"><script>'}


def all_pages() -> Iterator[tuple[str, Response]]:
    """Each page in each of its states."""
    pages = Pages(NAME)
    yield "welcome", WelcomePage(pages, Settings()).welcome()
    yield from pages_of_accounts(pages)
    yield "login", LoginFallbackApi(pages, with_password=True).show_login()
    yield "no login", LoginFallbackApi(pages, with_password=False).show_login()
    for stage, fields in FIELDS.items():
        values = UNUSED | {"fields": fields, "problem": "<u>wrong"}
        yield stage, pages.page("authentication", stage=stage, **values)
    yield "terms", pages.page("authentication", stage="terms", **UNUSED | {"documents": [DOCUMENT]})
    hidden = UNUSED | {"hidden": {"sid": '"><script>'}}
    yield "mail", pages.page("authentication", stage="mail_sent", **hidden)
    yield "done", pages.page("authentication_done", script="authentication_done.js")
    for outcome in ("asked", "done", "invalid"):
        yield outcome, pages.page("validation", outcome=outcome)
    yield from pages_of_single_sign_on(pages)
    for error in (NotFound("<s>no"), Unrecognized("?"), LimitExceeded(1_000), MatrixError("oh")):
        yield f"error {error.status} {error.errcode}", pages.error_page(error)


def pages_of_single_sign_on(pages: Pages) -> Iterator[tuple[str, Response]]:
    """Names come from providers and clients."""
    provider = '<i>Example"><script>'
    address = '/x?a="><script>&b'
    yield (
        "login by provider",
        LoginFallbackApi(pages, with_password=True, providers=[(provider, address)]).show_login(),
    )
    yield "providers", pages.page("sso/choose_provider", choices=[(provider, address)])
    for is_web in (True, False):
        yield (
            f"client {is_web}",
            pages.page(
                "sso/continue", url=address, client="app:<b>", is_web=is_web, user_id="@<u>:x"
            ),
        )
    yield "forward", pages.page("sso/forward", url=address)
    new = {"action": "/x", "state": '"><script>', "localpart": '"><script>', "provider": provider}
    for documents in ([], [DOCUMENT]):
        yield (
            f"new account {len(documents)}",
            pages.page(
                "sso/new_account",
                problem="<u>taken",
                display_name="<b>Ann",
                email="<i>a@example.org",
                documents=documents,
                **new,
            ),
        )
    option = {"id": '"><script>', "name": provider}
    yield (
        "confirm",
        pages.page(
            "sso/confirm",
            action="/x",
            state='"><script>',
            user_id="@<u>:x",
            operation="remove a device",
            options=[option],
        ),
    )
    for user_id in (None, "@<u>:x"):
        yield (
            f"other user {user_id is None}",
            pages.page("sso/other_user", user_id=user_id, wanted="@<b>:x", again=address),
        )


def pages_of_accounts(pages: Pages) -> Iterator[tuple[str, Response]]:
    """Names come from users, clients and links."""
    form = {"form_token": "x", "problem": "<u>wrong"}
    more: dict[str, Any]
    for user_id in ("", "@<b>:x"):
        more = {"with_password": True, "providers": [{"name": "<i>Example", "address": ADDRESS}]}
        more |= {"user_id": user_id, "user_name": EVIL, "sign_up": ADDRESS, "reset": ADDRESS}
        yield f"sign in {user_id == ''}", pages.page("account/sign_in", **form, **more)
    yield "sign up", pages.page("account/sign_up", **form, user_name=EVIL, sign_in=ADDRESS)
    for step in ("address", "password", "done"):
        more = {"step": step, "hidden": {"sid": EVIL}, "action": ADDRESS, "sign_in": ADDRESS}
        yield f"reset {step}", pages.page("account/reset_password", **form, **more)
    device = ShownDevice(EVIL, "<i>Phone", EVIL, "today", "127.0.0.1", "<s>App")
    for name, more in {
        "overview": {"display_name": "<i>Ann", "has_password": True},
        "profile": {
            "display_name": EVIL,
            "has_picture": True,
            "addresses": ["<b>a@example.org"],
            "can_change_addresses": True,
        },
        "addresses": {"addresses": [{"medium": "email", "address": EVIL}], "can_add": True},
        "address_mail": {"hidden": {"sid": EVIL}},
        "devices": {"devices": [device], "others": 1},
        "device": {"device": device},
        "device_delete": {"device": device},
        "device_unknown": {"device_id": EVIL},
        "password": {"logout_devices": True, "has_password": True},
        "deactivate": {"erase": True},
        "cross_signing": {},
        "sign_out_everywhere": {},
    }.items():
        visit = {"user_id": "@<b>:x", "account": "/account", "address": ADDRESS}
        yield f"account {name}", pages.page(f"account/{name}", **form, **visit, **more)
    for outcome in (
        "profile",
        "address_added",
        "address_removed",
        "device_deleted",
        "password",
        "deactivated",
        "cross_signing",
    ):
        more = {"user_id": "@<b>:x", "device_id": EVIL, "account": "/account"}
        yield f"done {outcome}", pages.page("account/done", outcome=outcome, **more)


@pytest.fixture(params=list(all_pages()), ids=lambda page: page[0])
def answer(request: pytest.FixtureRequest) -> Response:
    """Every page."""
    found: Response = request.param[1]
    return found


def text_of(answer: Response) -> str:
    assert isinstance(answer.body, bytes)
    return answer.body.decode()


def digest(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()


def test_a_page_says_which_server_it_is_of(answer: Response) -> None:
    """No user gives a password to a page without a name; screen readers need the language."""
    page = text_of(answer)

    assert '<html lang="en">' in page
    for element in ("title", "h1"):
        [heading] = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        assert heading.strip()
    assert "<strong>&lt;b&gt;example.org</strong>" in page
    assert '<link rel="icon" href="data:image/svg+xml,' in page


def test_nothing_can_be_injected_into_a_page(answer: Response) -> None:
    """Untrusted text is shown as text, and only the page's own scripts may run."""
    page, policy = text_of(answer), answer.headers["Content-Security-Policy"]

    for text in ("<b>", "<i>", "<u>", "<s>", '"><script>'):
        assert text not in page
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert f"style-src 'sha256-{digest(style)}';" in policy
    assert re.findall(r"script-src ([^;]*)", policy) == [f"'sha256-{digest(s)}'" for s in scripts]
    assert "default-src 'none'; " in policy
    assert "unsafe" not in policy
    assert not re.search(r"\s(style|on\w+)=", page)
    assert not re.search(r'(src|<link[^>]* href)="https?:', page)


def test_each_field_has_a_label_and_tells_browsers_what_it_is_for(answer: Response) -> None:
    """Password managers fill it in, and screen readers read its label."""
    page = text_of(answer)

    for field in re.findall(r"<input ([^>]*)>", page):
        if 'type="hidden"' in field or field.endswith(" hidden"):
            continue
        [name] = re.findall(r'\bid="([^"]+)"', field)
        assert f'<label for="{name}">' in page
        assert re.search(r'\bautocomplete="[\w-]+"', field)


def test_the_style_is_for_day_and_night_and_for_fingers(answer: Response) -> None:
    """44 pixels are the size of a finger."""
    page = text_of(answer)

    assert "prefers-color-scheme: dark" in page
    assert page.count("min-height: 2.75rem") == 4  # fields, buttons, boxes, lists of links
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page


@pytest.mark.parametrize(
    ("accept", "is_person"),
    [(None, False), ("*/*", False), ("application/json", False), ("text/html,*/*;q=0.8", True)],
)
def test_a_browser_says_that_it_shows_pages(accept: str | None, is_person: bool) -> None:
    """Clients get JSON, whatever they run in."""
    assert accepts_html(accept) == is_person
