"""`homeserver doctor SERVER`: each step towards another server, and the errors."""

from pathlib import Path
from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.internet.error import ConnectError, DNSLookupError

from homeserver.cli.doctor.federation_checks import (
    check_federation,
    own_name_to_check,
    suggested_fix,
)
from homeserver.cli.doctor.findings import Severity
from homeserver.config.settings import Settings
from homeserver.config.signing_key import load_or_create_signing_key
from tests.federation.transport.client_test_case import ClientTestCase
from tests.support.fake_server.scripted_peer import KEYS, error

VERSION = "/_matrix/federation/v1/version"


class FederationCheckTests(ClientTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = self.peer()
        self.there.answers[VERSION] = {"server": {"name": "Other", "version": "7"}}

    async def test_a_server_that_works_is_well(self) -> None:
        """Its certificate, its keys and its version are reported."""
        reported = await self.examine(self.there.name)

        self.assertEqual([severity for severity, _ in reported], [Severity.OK] * 3)
        text = "\n".join(line for _, line in reported)
        self.assertIn("certificate for 127.0.0.1, valid until", text)
        self.assertIn(f"publishes the keys {self.there.key.key_id}", text)
        self.assertIn("runs Other 7", text)

    async def test_the_reason_is_reported_if_a_server_cannot_be_reached(self) -> None:
        """It is a problem."""
        reported = await self.examine("127.0.0.1:1")

        severity, line = reported[0]
        self.assertEqual(severity, Severity.PROBLEM)
        self.assertIn("127.0.0.1, port 1: Connection was refused", line)

    def test_what_to_do_depends_on_what_is_wrong(self) -> None:
        """The operator does not look for a firewall if a name is missing."""
        self.assertIn("DNS", suggested_fix(DNSLookupError("no results")))
        self.assertIn("port", suggested_fix(ConnectError()))

    async def test_a_certificate_for_another_name_is_named_as_such(self) -> None:
        """The most frequent error in a delegation."""
        other = self.peer(certified_for="127.0.0.2")

        text = str(await self.examine(other.name))

        self.assertIn("the certificate is not one for 127.0.0.1", text)

    async def test_keys_that_cannot_be_verified_are_a_problem(self) -> None:
        """Signatures of that server would be refused."""
        self.there.answers[KEYS] = {**self.there.published(), "signatures": {}}

        last, line = (await self.examine(self.there.name))[-1]

        self.assertEqual(last, Severity.PROBLEM)
        self.assertIn("none of the keys has signed", line)

    async def test_an_old_server_need_not_publish_its_version(self) -> None:
        """The finding has the reason."""
        self.there.answers[VERSION] = error(404, "M_UNRECOGNIZED")

        last, line = (await self.examine(self.there.name))[-1]

        self.assertEqual(last, Severity.PROBLEM)
        self.assertIn("404 M_UNRECOGNIZED", line)

    async def test_another_installation_behind_the_own_name_is_noticed(self) -> None:
        """After a move, the name may still point to the old machine."""
        reported = await self.examine(self.there.name, server_name=self.there.name)

        self.assertIn("not the key of this installation", str(reported))

    def test_the_own_name_is_checked_if_federation_is_served(self) -> None:
        """A server without federation gets no such finding."""
        serving = {"listeners": [{"port": 0, "resources": ["federation"]}]}

        self.assertIsNone(own_name_to_check(self.settings(server_name="example.org")))
        self.assertIsNone(own_name_to_check(self.settings(server_name="localhost", **serving)))
        self.assertEqual(
            own_name_to_check(self.settings(server_name="example.org", **serving)), "example.org"
        )

    async def examine(self, server: str, **settings: Any) -> list[tuple[Severity, str]]:
        """The findings about a server."""
        reported: list[tuple[Severity, str]] = []
        configured = self.settings(**settings)
        load_or_create_signing_key(configured.signing_key_path)
        await check_federation(
            reactor,
            configured,
            server,
            lambda finding: reported.append((finding.severity, str(finding))),
        )
        return reported

    def settings(self, **values: Any) -> Settings:
        """A configuration that trusts the test's authority."""
        federation = {"ca_file": str(self.authority.path), "allow_private_addresses": True}
        return msgspec.convert(
            {"data_dir": str(self.folder), "federation": federation, **values},
            Settings,
            dec_hook=lambda type_, value: Path(value) if type_ is Path else value,
        )
