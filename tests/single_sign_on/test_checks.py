"""What `homeserver doctor` says of identity providers."""

from typing import Any

from twisted.internet import reactor
from twisted.web.server import Request

from homeserver.cli.doctor.single_sign_on_checks import check_identity_providers
from tests.single_sign_on.support import SingleSignOnTestCase


class CheckTests(SingleSignOnTestCase):
    async def findings(self) -> list[tuple[str, str]]:
        """The severity and the text of each finding."""
        found = await check_identity_providers(reactor, self._settings())
        return [(each.severity.value, each.text) for each in found]

    async def test_providers_that_work_are_reported(self) -> None:
        """The operator sees that the addresses are right."""
        self.assertEqual(
            await self.findings(),
            [
                ("ok", f"openid: the OpenID provider {self.openid.url} can be reached"),
                ("ok", f"cas: the CAS server {self.cas.url}/cas can be reached"),
            ],
        )

    async def test_what_is_wrong_is_said(self) -> None:
        """An issuer that is written otherwise, no keys, nobody there, another service."""
        self.openid.metadata = {"issuer": f"{self.openid.url}/"}
        self.cas.answers.clear()
        [openid, cas] = await self.findings()
        self.assertEqual(openid[0], "problem")
        self.assertIn("its metadata is that of the issuer", openid[1])
        self.assertEqual(cas, ("problem", f"cas: {self.cas.url}/cas/login responds with 404"))

        self.openid.metadata = {}
        self.openid.keys = []
        self.assertIn("no public key", (await self.findings())[0][1])
        self.openid.answers["/jwks"] = _nothing
        self.assertIn("not a set of keys", (await self.findings())[0][1])
        await self.cas.stop()
        self.assertEqual((await self.findings())[1][0], "problem")

    async def test_a_secret_that_cannot_be_read_is_a_problem(self) -> None:
        """The server would not start."""
        provider: dict[str, Any] = self.settings["single_sign_on"]["providers"][0]
        del provider["client_secret"]
        provider["client_secret_file"] = "/nowhere/secret"

        [finding] = await self.findings()

        self.assertEqual(finding[0], "problem")
        self.assertIn("cannot read /nowhere/secret", finding[1])


def _nothing(_request: Request) -> bytes:
    return b""
