"""Proofs before delicate operations: whose they are, and what they are given for."""

from typing import Any

from homeserver.accounts.interactive_auth import authentication_sessions
from homeserver.accounts.interactive_auth.authentication_sessions import (
    AuthenticationSessions,
    SessionContent,
)
from homeserver.accounts.interactive_auth.user_interactive_auth import (
    AuthenticationNeeded,
    Confirmable,
)
from homeserver.accounts.sessions.expired_rows import ExpiredRowCleanup
from homeserver.accounts.sessions.requester import Requester
from tests.accounts.support import ALICE, PASSWORD, AccountsTestCase


class Delete(Confirmable):
    """A request for which the user has to confirm who they are."""

    devices: tuple[str, ...] = ()


def proof(user: str | None = "alice", password: str = PASSWORD, **more: Any) -> dict[str, Any]:
    """The stage with a password."""
    identifier = {"type": "m.id.user", "user": user} if user else None
    given = {"type": "m.login.password", "identifier": identifier, "password": password}
    return given | more


class ConfirmationTests(AccountsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.user()
        await self.user("bob")

    async def confirm(self, body: Delete, operation: str = "delete", **how: Any) -> Delete:
        """Alice asks for something."""
        return await self.uia.confirm(operation, Requester(ALICE, "A"), body, **how)

    async def needed(self, body: Delete) -> dict[str, Any]:
        """The error that Alice gets until she has confirmed."""
        error = await self.assertFailure(self.started(self.confirm(body)), AuthenticationNeeded)
        response: dict[str, Any] = error.body()
        return response

    async def test_a_request_without_proof_gets_the_flows(self) -> None:
        """An access token alone, which may be stolen, is not enough."""
        body = await self.needed(Delete())

        self.assertEqual(body["flows"], [{"stages": ["m.login.password"]}])
        self.assertNotIn("errcode", body)

    async def test_the_password_confirms(self) -> None:
        """The owner gets the result of the request."""
        session = (await self.needed(Delete(devices=("A",))))["session"]

        done = await self.confirm(Delete(devices=("A",), auth=proof(session=session)))

        self.assertEqual(done.devices, ("A",))

    async def test_the_caller_need_not_be_named(self) -> None:
        """The server knows the caller."""
        await self.confirm(Delete(auth=proof(user=None)))

    async def test_a_wrong_password_can_be_tried_again(self) -> None:
        """After a typing error the session continues."""
        body = await self.needed(Delete(auth=proof(password="wrong horse")))

        self.assertEqual((body["errcode"], body["completed"]), ("M_FORBIDDEN", []))
        self.assertTrue(body["error"])
        await self.confirm(Delete(auth=proof(session=body["session"])))

    async def test_the_password_of_another_user_does_not_confirm(self) -> None:
        """A thief of a token must not confirm with an account of their own."""
        await self.refused(self.confirm(Delete(auth=proof("bob"))), "M_FORBIDDEN", 403)

    async def test_a_session_is_for_one_operation(self) -> None:
        """Consent to one thing must not be used for another."""
        session = (await self.needed(Delete()))["session"]
        body = Delete(auth=proof(session=session))

        await self.refused(self.confirm(body, "deactivate"), "M_FORBIDDEN", 403)

    async def test_a_session_is_for_one_user(self) -> None:
        """A session id that leaked is of no use to others."""
        session = (await self.needed(Delete()))["session"]
        body = Delete(auth=proof("bob", session=session))

        await self.refused(
            self.uia.confirm("delete", Requester("@bob:example.org", "B"), body),
            "M_FORBIDDEN",
            403,
        )

    async def test_what_was_confirmed_cannot_be_exchanged(self) -> None:
        """Consent to removing device A is not consent to removing device B."""
        session = (await self.needed(Delete(devices=("A",))))["session"]
        await self.confirm(Delete(devices=("A",), auth=proof(session=session)))
        changed = Delete(devices=("B",), auth={"session": session})

        await self.refused(self.confirm(changed), "M_FORBIDDEN", 403)

    async def test_a_confirmed_request_can_be_repeated(self) -> None:
        """A client that lost the answer is not asked for the password again."""
        session = (await self.needed(Delete(devices=("A",))))["session"]
        await self.confirm(Delete(devices=("A",), auth=proof(session=session)))

        again = await self.confirm(Delete(auth={"session": session}))

        self.assertEqual(again.devices, ("A",))

    async def test_some_requests_have_to_be_confirmed_each_time(self) -> None:
        """Each login token logs in another device, so each needs the password."""
        session = (await self.needed(Delete()))["session"]
        await self.confirm(Delete(auth=proof(session=session)), once=True)

        body = await self.needed(Delete(auth={"session": session}))

        self.assertNotEqual(body["session"], session)

    async def test_an_unknown_stage_leads_back_to_the_flows(self) -> None:
        """A client learns what it may try instead."""
        body = await self.needed(Delete(auth={"type": "org.magic"}))

        self.assertEqual(body["errcode"], "M_UNRECOGNIZED")
        self.assertEqual(body["flows"], [{"stages": ["m.login.password"]}])

    async def test_malformed_proofs_are_refused(self) -> None:
        """Malformed proofs are errors of the client, not of the server."""
        for auth in (
            {"type": "m.login.password"},
            {"type": "m.login.password", "password": 7},
            proof() | {"identifier": {"type": 7}},
            proof() | {"identifier": {"user": "alice"}},
            *({name: wrong} for name in ("type", "session") for wrong in (7, {}, [], False)),
        ):
            await self.refused(self.confirm(Delete(auth=auth)), "M_BAD_JSON", 400)
        for session in (None, "", "\0", "unknown"):
            await self.needed(Delete(auth={"session": session}))

    async def test_a_stage_can_be_completed_on_a_page(self) -> None:
        """Clients that do not know a stage open it in a browser and go on with the session."""
        session = (await self.needed(Delete(devices=("A",))))["session"]

        await self.uia.complete(session, "m.login.password", proof())

        done = await self.confirm(Delete(auth={"session": session}))
        self.assertEqual(done.devices, ("A",))

    async def test_sessions_expire_and_are_deleted(self) -> None:
        """A proof is not valid on the next day."""
        session = (await self.needed(Delete()))["session"]
        self.clock.advance(24 * 3600)

        self.assertIsNone(await self.uia.sessions.find(session))
        await ExpiredRowCleanup(self.db, self.clock).clean_up()
        self.clock.rightNow -= 24 * 3600
        self.assertIsNone(await self.uia.sessions.find(session))

    async def test_the_database_cannot_read_a_session(self) -> None:
        """Requests that wait may hold a new password in plain text."""
        session = (await self.needed(Delete(devices=("secret",))))["session"]

        cursor = await self.db.run(
            lambda db: db.execute("SELECT session_hash, sealed FROM authentication_sessions")
        )
        [(name, sealed)] = await cursor.fetchall()

        self.assertNotIn(b"secret", sealed)
        self.assertNotIn(session.encode(), name)

    async def test_unauthenticated_sessions_are_bounded(self) -> None:
        """A client cannot fill the disk, or keep others from registering."""
        self.patch(authentication_sessions, "MAX_OF_PARTY", 3)
        self.patch(authentication_sessions, "MAX_IN_ALL", 5)
        sessions = AuthenticationSessions(self.db, self.clock)
        content = SessionContent("register", None, "{}")
        other = await sessions.save(None, content, "192.0.2.2")
        of_one = []
        for _ in range(5):
            self.clock.advance(1)
            of_one.append(await sessions.save(None, content, "192.0.2.1"))

        found = [await sessions.find(each) is not None for each in of_one]
        self.assertEqual(found, [False, False, True, True, True])
        self.assertIsNotNone(await sessions.find(other))
        await sessions.save(None, content, "192.0.2.3")
        await self.refused(sessions.save(None, content, "192.0.2.4"), "M_LIMIT_EXCEEDED", 429)
        await sessions.end(of_one[-1])
        await sessions.save(None, content, "192.0.2.4")

    async def test_a_session_is_bounded_in_bytes(self) -> None:
        """A request that waits for authentication has an ordinary size."""
        sessions = AuthenticationSessions(self.db, self.clock)
        for user_id, size in ((None, 16_384), (ALICE, 65_536)):
            large = SessionContent("register", user_id, "x" * size)
            await self.refused(sessions.save(None, large), "M_TOO_LARGE", 413)

    async def test_a_damaged_session_is_as_good_as_none(self) -> None:
        """A row that cannot be opened leads to a new session, not to an error."""
        session = (await self.needed(Delete()))["session"]
        await self.db.run(
            lambda db: db.execute("UPDATE authentication_sessions SET sealed = '\\x00'::bytea")
        )

        sessions = AuthenticationSessions(self.db, self.clock)

        self.assertIsNone(await sessions.find(session))
