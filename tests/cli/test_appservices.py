"""`homeserver appservice`, and what the doctor says of application services."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import yaml
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from homeserver.cli.doctor.doctor import examine
from homeserver.cli.doctor.findings import Severity
from homeserver.storage.database.migrate import migrate
from homeserver.streams.positions import seconds_at
from tests.appservices.fake_bridge import TRANSACTIONS, Answer, Answering, FakeBridge
from tests.appservices.support import HS_TOKEN, registration
from tests.cli.command_line import homeserver
from tests.support.postgres import drop_database, fresh_database
from tests.support.process import free_port

PING = "/_matrix/app/v1/ping"


class AppserviceCommandTests(TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.dsn = fresh_database()
        self.addCleanup(drop_database, self.dsn)
        self.bridge = FakeBridge()
        self.bridge.listen()
        self.addCleanup(self.bridge.stop)
        (self.folder / "appservices.d").mkdir()
        self.config = self.folder / "homeserver.yaml"
        settings = {
            "server_name": "example.org",
            "database": {"dsn": self.dsn},
            "listeners": [{"port": 0, "bind": "127.0.0.1", "resources": ["client"]}],
        }
        self.config.write_text(json.dumps(settings))

    def write(self, appservice_id: str = "irc", **changes: Any) -> Path:
        path = self.folder / "appservices.d" / f"{appservice_id}.yaml"
        path.write_text(yaml.safe_dump(registration(appservice_id, **changes)))
        path.chmod(0o600)
        return path

    def add_users(self, *users: tuple[str, str | None]) -> None:
        migrate(self.dsn)
        with psycopg.connect(self.dsn) as connection:
            for user_id, maker in users:
                connection.execute(
                    "INSERT INTO users (user_id, created_ms, appservice) VALUES (%s, 0, %s)",
                    (user_id, maker),
                )

    async def command(self, *words: str) -> tuple[int, str]:
        """Run `homeserver …`; the exit status and all output."""
        done = await deferToThread(homeserver, *words, "--config", self.config)
        return done.returncode, done.stdout + done.stderr

    async def ping(self, answering: Answering | None = None) -> tuple[int, str]:
        if answering is not None:
            self.bridge.answers[PING] = answering
        return await self.command("appservice", "ping", "irc")

    async def test_registrations_are_listed(self) -> None:
        """An operator sees which bridges there are, and what they have made."""
        status, printed = await self.command("appservice", "list")
        assert (status, "There are none" in printed) == (0, True), printed
        self.write(url=self.bridge.url, protocols=["irc"])
        self.add_users(("@_irc_a:example.org", "irc"), ("@_irc_b:example.org", "irc"))

        status, printed = await self.command("appservice", "list")

        assert status == 0, printed
        assert printed.splitlines() == [
            "irc",
            f"  url        {self.bridge.url}",
            "  sender     @_irc_bot:example.org",
            "  users      @_irc_.*, exclusive",
            "  aliases    #_irc_.*, exclusive",
            "  protocols  irc",
            "  has made   2 users",
        ]

    async def test_one_is_shown(self) -> None:
        """The details are those of its file, without the tokens."""
        path = self.write()
        self.add_users(*((f"@_irc_{n:02}:example.org", "irc") for n in range(25)))

        status, printed = await self.command("appservice", "show", "irc")

        assert status == 0, printed
        lines = printed.splitlines()
        assert "  url        none: nothing is sent to it" in lines
        assert f"  file       {path}" in lines
        assert "  made       @_irc_19:example.org" in lines
        assert lines[-1] == "             and 5 more"
        assert "token" not in printed
        status, printed = await self.command("appservice", "show", "xmpp")
        assert (status, printed.strip()) == (
            1,
            "There is no application service xmpp; the ids are: irc",
        )

    async def test_moves_wait_for_a_server_that_is_stopped(self) -> None:
        """An operator leaves out what a bridge cannot take, or sends it again."""
        self.write(url=self.bridge.url)
        migrate(self.dsn)

        skipped = await self.command("appservice", "skip", "irc")
        replayed = await self.command("appservice", "replay", "irc", "--since", "2h")
        wrong = await self.command("appservice", "replay", "irc", "--since", "soon")

        assert skipped == (0, "irc: what waits is left out at the next start of the server\n")
        assert replayed == (0, "irc: its events are sent again at the next start of the server\n")
        assert (wrong[0], "such as 2h" in wrong[1]) == (2, True)
        with psycopg.connect(self.dsn) as connection:
            moves = connection.execute("SELECT * FROM appservice_moves").fetchall()
        ((appservice, position),) = moves
        age = time.time() - seconds_at(position)
        assert (appservice, 7_000 < age < 7_400) == ("irc", True)

    async def test_a_ping_is_answered(self) -> None:
        """An operator sees that the way to a bridge is free."""
        self.write(url=self.bridge.url)

        status, printed = await self.ping(lambda _: Answer())

        assert (status, f"irc: {self.bridge.url} answers in" in printed) == (0, True), printed
        assert self.bridge.requests[0].token == f"{HS_TOKEN} irc"

    async def test_an_older_bridge_gets_an_empty_transaction(self) -> None:
        """Bridges that do not know pings can be checked, too."""
        self.write(url=self.bridge.url)
        self.bridge.answers[TRANSACTIONS] = lambda _: Answer()

        status, printed = await self.ping()

        assert (status, "does not know pings" in printed) == (0, True), printed
        assert self.bridge.transactions[0].body == {"events": []}

    async def test_each_failure_has_its_remedy(self) -> None:
        """Nobody has to guess what is wrong."""
        self.write(url=self.bridge.url)
        answers = {
            "its hs_token differs": Answer(403, b"{}"),
            "something else listens there": Answer(302, b"", {"Location": "http://[::1]/"}),
            "status 500: \\x1b[31mred": Answer(500, b"\x1b[31mred"),
            "knows neither pings nor transactions": Answer(404, b""),
        }
        for explained, answer in answers.items():
            status, printed = await self.ping(lambda _, answer=answer: answer)
            assert (status, explained in printed) == (1, True), printed

        await self.bridge.stop()
        status, printed = await self.ping()
        assert (status, "refuses connections\n  -> start" in printed) == (1, True), printed

    async def test_tls_and_names_are_explained(self) -> None:
        """The usual mistakes in an address differ."""
        for url, explained in (
            (self.bridge.url.replace("http", "https"), "use http:// in `url`"),
            ("http://no-such-host.invalid:1", "is not known"),
        ):
            self.write(url=url)
            status, printed = await self.ping()
            assert (status, explained in printed) == (1, True), printed

    async def test_the_doctor_pings(self) -> None:
        """A bridge that is away is a problem of the installation."""
        self.write(url=f"http://127.0.0.1:{free_port()}")

        status, printed = await self.command("doctor")

        assert status == 1, printed
        assert "problem  application services: irc: http://127.0.0.1:" in printed

    def findings(self) -> list[str]:
        return [
            str(finding)
            for finding in examine(self.config)
            if finding.subject == "application services" and finding.severity is not Severity.OK
        ]

    def test_wrong_files_are_problems(self) -> None:
        """The doctor names file and line of what the server would refuse."""
        self.write(as_token=7)

        (found,) = self.findings()

        assert found.startswith("problem"), found
        assert "irc.yaml, line" in found

    def test_a_good_registration_is_well(self) -> None:
        """Nobody is alarmed without a reason; a double puppeting registration is none."""
        self.add_users(("@alice:example.org", None), ("@_irc_a:example.org", "irc"))
        local = [{"exclusive": True, "regex": r"@_irc_.*:example\.org"}]
        self.write(url=self.bridge.url, namespaces={"users": local})
        everybody = [{"exclusive": False, "regex": r"@.*:example\.org"}]
        self.write("puppets", namespaces={"users": everybody})

        assert self.findings() == []

    def test_tokens_that_others_can_read_are_noticed(self) -> None:
        """With the tokens any user of the machine could act as all users of the bridge."""
        self.write().chmod(0o644)

        assert any("chmod o-r" in line for line in self.findings())

    def test_namespaces_that_are_too_wide_are_noticed(self) -> None:
        """A bridge that reserves all names is a mistake."""
        self.write(url=self.bridge.url, namespaces={"users": [{"exclusive": True, "regex": "@.*"}]})

        found = self.findings()

        assert any("reserves all user names" in line for line in found), found

    def test_names_that_belong_to_others_are_noticed(self) -> None:
        """A bridge could act as a person whose account is in its namespace."""
        self.write()
        self.write("xmpp", namespaces={"users": [{"exclusive": True, "regex": "@_irc_.*"}]})
        self.add_users(("@_irc_alice:example.org", None), ("@_irc_ghost:example.org", "irc"))

        found = "\n".join(self.findings())

        assert "irc reserves names of people: @_irc_alice:example.org" in found
        assert "names of the application service irc: @_irc_ghost:example.org" in found
        assert "both reserve the users '@_irc_.*'" in found
        assert "the user of one is in an exclusive namespace of the other" in found
