"""Logging in where clients or servers cannot do what is usual."""

import re
from base64 import b64encode
from hashlib import sha256
from typing import Any, ClassVar

from tests.support.server import ServerTestCase

PAGE = "/_matrix/static/client/login/"


def digest(text: str) -> str:
    """A hash as a content security policy has it."""
    return b64encode(sha256(text.encode()).digest()).decode()


class LoginPageTests(ServerTestCase):
    async def test_nothing_but_the_page_itself_runs_in_it(self) -> None:
        """Here people type their passwords."""
        response = await self._http.get(f"{self.url}{PAGE}?device_id=X")
        page = await response.text()

        (policy,) = response.headers.getRawHeaders("Content-Security-Policy")
        (kind,) = response.headers.getRawHeaders("Content-Type")
        (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
        (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
        self.assertEqual(kind, "text/html; charset=utf-8")
        self.assertIn(f"script-src 'sha256-{digest(script)}';", policy)
        self.assertIn(f"style-src 'sha256-{digest(style)}';", policy)
        self.assertIn("connect-src 'self';", policy)
        self.assertIn("matrixLogin.onLogin(response)", script)


class WithoutPasswordsTests(ServerTestCase):
    settings: ClassVar[dict[str, Any]] = {"passwords": {"enabled": False, "hash_cost": "lowest"}}

    async def test_page_has_no_password_form_without_passwords(self) -> None:
        """A form that cannot work is not shown."""
        page = await (await self._http.get(f"{self.url}{PAGE}")).text()

        self.assertIn("This server does not support log-in with a password", page)
        self.assertNotIn("<form", page)

    async def test_login_token_cannot_be_confirmed_without_a_password(self) -> None:
        """A client does not ask for a password that leads nowhere."""
        alice = await self.register("alice")

        attempt = alice.request("POST", "/_matrix/client/v1/login/get_token", {})

        await self.assert_refused("M_UNKNOWN", attempt, 400)
