"""The keyring: verifies signatures with fetched keys, for as long as these are valid."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred

from federation.keys.key_fetching import KeyFetcher
from federation.keys.key_store import KeyStore
from federation.keys.keyring import Keyring, KeyUnavailable
from federation.keys.notary import Notary
from federation.keys.own_keys import OwnKeys
from homeserver.protocol.events import Event, build_event
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing.signatures import BadSignature, SigningKey, sign_json
from homeserver.storage.database.database import Database
from tests.federation.transport.client_test_case import HERE, KEY, ClientTestCase
from tests.support.fake_server.scripted_peer import KEYS, SILENT, ScriptedPeer, error, plain
from tests.support.postgres import drop_database, fresh_database

DAY = 86_400_000
OLD = SigningKey.from_seed("old", b"o" * 32)
QUERY = "/_matrix/key/v2/query"


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return int(reactor.seconds() * 1000)  # type: ignore[attr-defined]


class KeyringTestCase(ClientTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        dsn = fresh_database()
        self.addCleanup(drop_database, dsn)
        self.db = Database(reactor, dsn, pool_size=2)
        await self.db.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.db.close()))
        self.there = self.peer()
        self.keyring = self.make_keyring()

    def make_keyring(self, *notaries: str) -> Keyring:
        """A keyring with an empty cache over the database."""
        store = KeyStore(self.db)
        fetcher = KeyFetcher(
            reactor,  # type: ignore[arg-type]
            self.client,
            store,
            notaries,
        )
        own = OwnKeys(HERE, [KEY], [], reactor)  # type: ignore[arg-type]
        self.notary = Notary(reactor, own, store, fetcher)  # type: ignore[arg-type]
        return Keyring(reactor, own, store, fetcher)  # type: ignore[arg-type]

    def signed(
        self, by: ScriptedPeer | None = None, key: SigningKey | None = None
    ) -> dict[str, Any]:
        """Something that a peer has signed."""
        peer = by or self.there
        return sign_json({"text": "hello"}, peer.name, key or peer.key)

    def fetched(self, peer: ScriptedPeer | None = None) -> int:
        """The number of requests for keys that a peer received."""
        return len((peer or self.there).requests_to(KEYS))

    async def refused(self, kind: type[Exception], attempt: Any) -> None:
        """The attempt fails in just this way."""
        failed = await self.assertFailure(ensureDeferred(attempt), BadSignature)
        self.assertIs(type(failed), kind)


class FetchingTests(KeyringTestCase):
    async def test_keys_are_fetched_once(self) -> None:
        """One fetch serves any number of messages of a server, in any number of rooms."""
        together = [
            ensureDeferred(self.keyring.verify_json(self.there.name, self.signed()))
            for _ in range(5)
        ]
        await DeferredList(together, fireOnOneErrback=True)
        await self.keyring.verify_json(self.there.name, self.signed())

        self.assertEqual(self.fetched(), 1)

    async def test_keys_survive_a_restart(self) -> None:
        """A start does not fetch the keys of every server again."""
        await self.keyring.verify_json(self.there.name, self.signed())

        await self.make_keyring().verify_json(self.there.name, self.signed())

        self.assertEqual(self.fetched(), 1)

    async def test_the_own_signature_is_known(self) -> None:
        """Events of this server come back from other servers."""
        await self.keyring.verify_json(HERE, sign_json({}, HERE, KEY))

        await self.refused(BadSignature, self.keyring.verify_json(HERE, sign_json({}, "x", KEY)))
        forged = sign_json({}, HERE, SigningKey.from_seed(KEY.version, b"f" * 32))
        await self.refused(BadSignature, self.keyring.verify_json(HERE, forged))

    async def test_forged_and_changed_objects_are_refused(self) -> None:
        """A server cannot sign for another server."""
        changed = {**self.signed(), "text": "bye"}
        forged = self.signed(key=SigningKey.from_seed("peer", b"f" * 32))
        unsigned = {"text": "hello"}

        for value in (changed, forged, unsigned):
            await self.refused(BadSignature, self.keyring.verify_json(self.there.name, value))

    async def test_invalid_responses_about_keys_are_not_trusted(self) -> None:
        """Forged or malformed ones, those about another server, or none at all."""
        other = self.peer(seed=b"q" * 32)
        for answer in (
            lambda _: {**self.there.published(), "valid_until_ts": now_ms() + 5 * DAY},
            lambda _: other.published(),
            lambda _: other.published(server_name=self.there.name),
            lambda _: {**self.there.published(), "signatures": {}},
            plain(200, b"[]"),
            plain(200, b"{" + b" " * 100_000 + b"}"),
            error(404, "M_UNRECOGNIZED"),
        ):
            self.there.answers[KEYS] = answer
            self.destinations._known.pop(self.there.name)
            attempt = self.make_keyring().verify_json(self.there.name, self.signed())
            await self.refused(KeyUnavailable, attempt)

    async def test_an_unavailable_key_is_not_fetched_endlessly(self) -> None:
        """A flood of events with invented keys does not become a flood of requests."""
        for number in range(30):
            stranger = SigningKey.from_seed(f"k{number}", b"s" * 32)
            attempt = self.keyring.verify_json(self.there.name, self.signed(key=stranger))
            await self.refused(KeyUnavailable, attempt)

        self.assertLessEqual(self.fetched(), 10)

    async def test_a_failed_server_is_asked_again_only_if_it_is_reachable(self) -> None:
        """Its events from other servers wait; a request from the server itself does not."""
        self.there.answers[KEYS] = plain(502, b"")
        await self.refused(KeyUnavailable, self.keyring.verify_json(self.there.name, self.signed()))
        self.there.answers[KEYS] = lambda _: self.there.published()

        await self.refused(KeyUnavailable, self.keyring.verify_json(self.there.name, self.signed()))
        await self.keyring.verify_json(self.there.name, self.signed(), despite_backoff=True)

    async def test_one_silent_server_does_not_hold_up_another(self) -> None:
        """Keys of all servers are fetched at the same time."""
        silent = self.peer(seed=b"q" * 32)
        silent.answers[KEYS] = lambda _: SILENT
        waiting = ensureDeferred(self.keyring.verify_json(silent.name, self.signed(silent)))
        waiting.addErrback(lambda _: None)

        await self.keyring.verify_json(self.there.name, self.signed())

        waiting.cancel()


class ValidityTests(KeyringTestCase):
    async def test_a_key_is_fetched_again_when_its_validity_has_ended(self) -> None:
        """Servers publish the same key again and again."""
        self.there.answers[KEYS] = lambda _: self.there.published(valid_until_ts=now_ms() - DAY)
        long_ago = now_ms() - 2 * DAY
        await self.keyring.verify_json(self.there.name, self.signed(), long_ago)
        await self.refused(KeyUnavailable, self.keyring.verify_json(self.there.name, self.signed()))
        self.there.answers[KEYS] = lambda _: self.there.published()

        await self.keyring.verify_json(self.there.name, self.signed())

    async def test_an_old_key_is_good_for_old_events_only(self) -> None:
        """History stays readable after a rotation, and a stolen old key is worth nothing."""
        old_keys = {OLD.key_id: {"key": OLD.verify_key, "expired_ts": now_ms() - DAY}}
        self.there.answers[KEYS] = lambda _: self.there.published(old_verify_keys=old_keys)
        old = self.signed(key=OLD)

        await self.keyring.verify_json(self.there.name, old, now_ms() - 2 * DAY)

        await self.refused(KeyUnavailable, self.keyring.verify_json(self.there.name, old))
        self.assertEqual(self.fetched(), 1)

    async def test_events_are_verified_by_their_own_time(self) -> None:
        """From room version 5 on; before, any key that the server ever had is valid."""
        old_keys = {OLD.key_id: {"key": OLD.verify_key, "expired_ts": now_ms() - DAY}}
        self.there.answers[KEYS] = lambda _: self.there.published(old_verify_keys=old_keys)
        before, after = now_ms() - 2 * DAY, now_ms()

        outcomes = await self.keyring.verify_events(
            [
                self.event("5", OLD, at=before),
                self.event("5", OLD, at=after),
                self.event("4", OLD, at=after),
                self.event("12", self.there.key, at=after),
                self.event("12", self.there.key, at=after + 30 * DAY),
            ]
        )

        self.assertEqual(
            [type(outcome) for outcome in outcomes],
            [type(None), KeyUnavailable, type(None), type(None), KeyUnavailable],
        )

    async def test_one_invalid_event_does_not_affect_the_others(self) -> None:
        """A transaction has events of many servers, and each has its own result."""
        good = self.event("12", self.there.key)
        forged = self.event("12", SigningKey.from_seed("peer", b"f" * 32))
        unsigned = Event(good.version, {**good.pdu, "signatures": {}}, good.json, good.event_id)
        away = self.event("12", self.there.key, server="127.0.0.1:1")

        outcomes = await self.keyring.verify_events([good, forged, unsigned, away, good])

        self.assertEqual(
            [type(outcome) for outcome in outcomes],
            [type(None), BadSignature, BadSignature, KeyUnavailable, type(None)],
        )

    def event(
        self, version: str, key: SigningKey, *, at: int | None = None, server: str | None = None
    ) -> Event:
        """The first event of a room of a user of the peer."""
        server = server or self.there.name
        row = ROOM_VERSIONS[version]
        return build_event(
            row,
            room_id=None if row.room_id_is_create_hash else f"!room:{server}",
            type="m.room.create",
            sender=f"@user:{server}",
            content={"room_version": version, "creator": f"@user:{server}"},
            state_key="",
            prev_events=(),
            auth_events=(),
            depth=1,
            origin_server_ts=now_ms() if at is None else at,
            redacts=None,
            server_name=server,
            key=key,
        )


class NotaryClientTests(KeyringTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.notary_peer = self.peer(seed=b"n" * 32)
        self.keyring = self.make_keyring(self.notary_peer.name)
        self.published = self.there.published()
        self.there.answers[KEYS] = plain(502, b"")

    def vouch(self, *responses: dict[str, Any]) -> None:
        """Have the notary say this."""
        self.notary_peer.answers[QUERY] = {
            "server_keys": [
                sign_json(response, self.notary_peer.name, self.notary_peer.key)
                for response in responses
            ]
        }

    async def test_a_notary_helps_where_a_server_is_unavailable(self) -> None:
        """Old messages of a server that is gone can still be verified."""
        self.vouch(self.published)

        await self.keyring.verify_json(self.there.name, self.signed())

        self.assertEqual(len(self.notary_peer.requests_to(QUERY)), 1)

    async def test_a_notary_cannot_invent_keys(self) -> None:
        """Not unsigned, not changed, and not for servers that were not requested."""
        unsigned = {"server_keys": [self.published]}
        self.notary_peer.answers[QUERY] = unsigned
        await self.refused(KeyUnavailable, self.keyring.verify_json(self.there.name, self.signed()))
        other = self.peer(seed=b"q" * 32)
        forger = SigningKey.from_seed("peer", b"f" * 32)
        for response in (
            {**self.published, "verify_keys": {forger.key_id: {"key": forger.verify_key}}},
            other.published(),
            {},
        ):
            self.vouch(response)
            keyring = self.make_keyring(self.notary_peer.name)
            await self.refused(
                KeyUnavailable, keyring.verify_json(self.there.name, self.signed(key=forger))
            )

    async def test_an_old_response_cannot_bring_a_retired_key_back(self) -> None:
        """A thief of a key gains nothing from a response from before the rotation."""
        stolen = self.there.key
        old_keys = {stolen.key_id: {"key": stolen.verify_key, "expired_ts": now_ms() - DAY}}
        replay = self.there.published(valid_until_ts=now_ms() + DAY // 2)
        self.there.key = SigningKey.from_seed("new", b"w" * 32)
        self.there.answers[KEYS] = lambda _: self.there.published(old_verify_keys=old_keys)
        await self.keyring.verify_json(self.there.name, self.signed(), despite_backoff=True)
        self.vouch(replay)
        unknown = SigningKey.from_seed("unknown", b"u" * 32)
        await self.refused(
            KeyUnavailable, self.keyring.verify_json(self.there.name, self.signed(key=unknown))
        )
        self.assertEqual(len(self.notary_peer.requests_to(QUERY)), 1)

        for keyring in (self.keyring, self.make_keyring()):
            attempt = keyring.verify_json(self.there.name, self.signed(key=stolen))
            await self.refused(KeyUnavailable, attempt)


class NotaryTests(KeyringTestCase):
    async def test_responses_are_passed_on_with_a_signature(self) -> None:
        """Clients can verify that of the server and that of the notary."""
        [answer] = await self.notary.query({self.there.name: {}})

        await self.keyring.verify_json(self.there.name, answer)
        await self.keyring.verify_json(HERE, answer)

    async def test_a_valid_response_is_cached_and_refreshed(self) -> None:
        """Keys are fetched again after half of their validity, or when a request needs more."""
        wanted = {self.there.name: {self.there.key.key_id: None}}
        await self.notary.query(wanted)
        await self.notary.query(wanted)
        self.assertEqual(self.fetched(), 1)

        await self.notary.query({self.there.name: {self.there.key.key_id: now_ms() + 3 * DAY}})
        self.assertEqual(self.fetched(), 2)

    async def test_a_notary_answers_for_an_unavailable_server(self) -> None:
        """With the last response of that server, even an expired one."""
        self.there.answers[KEYS] = lambda _: self.there.published(valid_until_ts=now_ms() - DAY)
        await self.notary.query({self.there.name: {}})
        self.there.answers[KEYS] = plain(502, b"")

        [answer] = await self.notary.query({self.there.name: {}})

        self.assertEqual(answer["server_name"], self.there.name)

    async def test_the_response_for_unknown_servers_is_empty(self) -> None:
        """An unknown server is not an error."""
        self.assertEqual(await self.notary.query({"127.0.0.1:1": {"ed25519:a": None}}), [])
        self.assertEqual(await self.notary.query({}), [])

    async def test_the_own_keys_are_included(self) -> None:
        """They need no request."""
        [answer] = await self.notary.query({HERE: {}})

        self.assertIn(KEY.key_id, answer["verify_keys"])
