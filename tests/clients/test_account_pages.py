"""The pages of an account in a real browser, without scripts, on two sizes of screens."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.devtools import Tab, open_browser
from tests.clients.encryption.browser import CHROMIUM
from tests.clients.plain_client import Http
from tests.support.process import ServerProcess, running_server

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
TERMS = [{"id": "privacy", "version": "1", "name": "Privacy", "url": "https://example.org/privacy"}]
SCREENS = {"desktop": (1280, 900), "phone": (360, 740)}
FIRST, SECOND = "a first horse", "a second horse"
ACCOUNT = "/_matrix/account"
LOGIN = "/_matrix/client/v3/login"


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server with the pages, on which users accept terms."""
    overrides: dict[str, Any] = {
        "public_baseurl": "http://localhost",
        "oauth": {"enabled": True},
        "registration": {"enabled": True, "terms": TERMS},
    }
    with running_server(overrides) as process:
        yield process


class Person:
    """A user at a browser. Screenshots are saved in the folder `SCREENSHOTS`, if it is set."""

    def __init__(self, tab: Tab, url: str, screen: str) -> None:
        self.tab = tab
        self.url = url
        self._screen = screen
        self._folder = os.environ.get("SCREENSHOTS")

    async def reads(self, text: str, name: str) -> None:
        """The page has a text, and fits on the screen; `name` is that of the screenshot."""
        shown = await self.tab.text()
        assert text in shown, shown
        wide = await self.tab.evaluate("document.documentElement.scrollWidth")
        assert wide <= SCREENS[self._screen][0], f"{name} is {wide} pixels wide"
        unnamed = await self.tab.evaluate(
            "[...document.querySelectorAll('input:not([type=hidden], [hidden])')]"
            ".filter(each => each.labels.length === 0).length"
        )
        assert unnamed == 0, f"{name} has fields without a label"
        if self._folder:
            self._save(f"{self._screen}-{name}.png", await self.tab.screenshot())

    def _save(self, name: str, picture: bytes) -> None:
        (Path(str(self._folder)) / name).write_bytes(picture)

    async def opens(self, action: str = "", device_id: str = "") -> None:
        """Follow a link of a client."""
        query = f"?action={action}&device_id={device_id}" if action else ""
        await self.tab.open(f"{self.url}{ACCOUNT}{query}")


@pytest.mark.parametrize("screen", SCREENS)
async def test_user_lives_with_the_pages(server: ServerProcess, screen: str) -> None:
    """From signing up to the end of the account, with a keyboard, without a script."""
    name = f"{screen}.user.whose.name.is.longer.than.the.screen"
    async with open_browser() as tab:
        await tab.resize(*SCREENS[screen])
        person = Person(tab, server.url, screen)
        await sign_up(person, name)
        await change_name(person)
        await sign_a_device_out(person, server, name)
        await change_password(person)
        await allow_reset(person)
        await sign_in_again(person, name)
        await deactivate(person, name)
        assert tab.problems == []


async def sign_up(person: Person, name: str) -> None:
    tab = person.tab
    await person.opens()
    await person.reads("Sign in to localhost", "sign-in")
    await tab.press("Create an account")
    await person.reads("Create an account on localhost", "sign-up")
    await tab.fill(user=name, password=FIRST, repeated_password="another")
    await tab.press("Continue")
    await person.reads("are not the same", "sign-up-wrong")
    await tab.fill(password=FIRST, repeated_password=FIRST)
    await tab.press("Continue")
    await person.reads("The terms of localhost", "terms")
    await tab.press("I agree")
    await person.reads(f"@{name}:localhost", "overview")


async def change_name(person: Person) -> None:
    await person.tab.press("Profile")
    await person.reads("Your profile", "profile")
    await person.tab.fill(display_name="Alice <b>Example</b>")
    await person.tab.press("Save")
    await person.reads("Your profile was changed", "profile-done")


async def sign_a_device_out(person: Person, server: ServerProcess, name: str) -> None:
    tab = person.tab
    phone, laptop = log_in(server, name, "Phone"), log_in(server, name, "Laptop at work")
    await person.opens("org.matrix.devices_list")
    await person.reads("Phone", "devices")
    await tab.press("Phone")
    await person.reads(phone["device_id"], "device")
    await tab.press("Sign out of this device")
    await person.reads("Sign out of “Phone”?", "device-delete")
    await tab.press("Sign out of this device")
    await person.reads("The device was signed out", "device-done")
    await tab.press("Your devices")
    await person.reads("Laptop at work", "devices-after")
    assert "Phone" not in await tab.text()
    await person.opens("org.matrix.device_delete", phone["device_id"])
    await person.reads("There is no such device", "device-unknown")
    await person.opens("org.matrix.device_view", laptop["device_id"])
    await person.reads("Laptop at work", "device-other")


async def change_password(person: Person) -> None:
    tab = person.tab
    await person.opens()
    await tab.press("Password")
    await tab.fill(password="wrong", new_password=SECOND, repeated_password=SECOND)
    await tab.press("Change the password")
    await person.reads("The current password is wrong", "password-wrong")
    await tab.fill(password=FIRST, new_password=SECOND, repeated_password=SECOND)
    await tab.press("Change the password")
    await person.reads("Your password was changed", "password-done")


async def allow_reset(person: Person) -> None:
    await person.opens("org.matrix.cross_signing_reset")
    await person.reads("Reset your cryptographic identity?", "reset")
    await person.tab.press("Allow it for ten minutes")
    await person.reads("Go back to your client now", "reset-done")


async def sign_in_again(person: Person, name: str) -> None:
    tab = person.tab
    await person.opens()
    await tab.press("Sign out in this browser")
    await person.reads("Sign in to localhost", "signed-out")
    await person.opens("org.matrix.account_deactivate")
    await tab.fill(user=name, password=FIRST)
    await tab.press("Sign in")
    await person.reads("Invalid username or password", "sign-in-wrong")
    await tab.fill(password=SECOND)
    await tab.press("Sign in")


async def deactivate(person: Person, name: str) -> None:
    tab = person.tab
    await person.reads("Deactivate your account?", "deactivate")
    await tab.check("erase", "understood")
    await tab.press("Deactivate the account")
    await person.reads("Your account was deactivated", "deactivated")
    await person.opens()
    await tab.fill(user=name, password=SECOND)
    await tab.press("Sign in")
    await person.reads("Invalid username or password", "gone")


def log_in(server: ServerProcess, name: str, device: str) -> Any:
    """A client that the user has logged in."""
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": name},
        "password": FIRST,
        "initial_device_display_name": device,
    }
    return Http(server.url).request("POST", LOGIN, body)
