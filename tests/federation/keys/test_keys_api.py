"""Keys over the API, for servers that know no keys yet."""

from typing import Any

import msgspec
from twisted.internet import reactor

from homeserver.protocol.signing.canonical_json import encode_canonical
from homeserver.protocol.signing.server_keys import parse_server_keys
from homeserver.protocol.signing.signatures import SigningKey
from tests.support.fake_server.scripted_peer import KEYS, ScriptedPeer
from tests.support.organisations import FederationTestCase

QUERY = "/_matrix/key/v2/query"
OLD = SigningKey.from_seed("old", b"o" * 32)
HOUR = 3_600_000


class KeysApiTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        old = {"key_id": OLD.key_id, "key": OLD.verify_key, "expired_ts": 1_700_000_000_000}
        self.here = await self.organisation(federation={"old_verify_keys": [old]})
        self.peer = ScriptedPeer(self.authority)
        self.addCleanup(self.peer.stop)

    async def test_keys_need_no_authentication(self) -> None:
        """They are signed, valid for some hours, and include old keys."""
        now_ms = int(reactor.seconds() * 1000)  # type: ignore[attr-defined]
        for path in (KEYS, f"{KEYS}/ed25519:any"):
            answer = await self.here.anybody.request("GET", path)

            found = parse_server_keys(answer, self.here.name, now_ms)
            current, old = found.keys
            self.assertGreater(current.valid_until_ts, now_ms + HOUR)
            self.assertEqual((old.key_id, old.valid_until_ts), (OLD.key_id, 1_700_000_000_000))

    async def test_they_come_as_canonical_json(self) -> None:
        """A server that verifies the signature over the raw bytes need not encode them again."""
        response = await self.http.get(self.here.url + KEYS)
        body = await response.content()

        self.assertEqual(body, encode_canonical(msgspec.json.decode(body)))

    async def test_a_notary_is_queried_in_three_ways(self) -> None:
        """For all keys of a server, for one of them, and for those of several servers."""
        key_id = self.peer.key.key_id
        both = {self.peer.name: {key_id: {"minimum_valid_until_ts": 0}}, self.here.name: {}}

        answers = [
            await self.ask("GET", f"{QUERY}/{self.peer.name}"),
            await self.ask("GET", f"{QUERY}/{self.peer.name}/{key_id}?minimum_valid_until_ts=5"),
            await self.ask("POST", QUERY, {"server_keys": both}),
        ]

        named = [[one["server_name"] for one in answer] for answer in answers]
        self.assertEqual(named, [[self.peer.name]] * 2 + [[self.peer.name, self.here.name]])
        for answer in answers:
            self.assertEqual(set(answer[0]["signatures"]), {self.peer.name, self.here.name})

    async def test_invalid_queries_are_refused(self) -> None:
        """With an error message, and without a request to another server."""
        many = {f"s{number}.example": {} for number in range(101)}
        for errcode, method, path, body in (
            ("M_INVALID_PARAM", "GET", f"{QUERY}/no%20name", None),
            ("M_INVALID_PARAM", "GET", f"{QUERY}/{self.peer.name}?minimum_valid_until_ts=x", None),
            ("M_INVALID_PARAM", "POST", QUERY, {"server_keys": {"a b": {}}}),
            ("M_INVALID_PARAM", "POST", QUERY, {"server_keys": many}),
            ("M_BAD_JSON", "POST", QUERY, {"server_keys": []}),
            ("M_BAD_JSON", "POST", QUERY, {}),
        ):
            await self.assert_refused(
                errcode, self.ask(method, path.replace(" ", "%20"), body), 400
            )

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The notary's response."""
        answer = await self.here.anybody.request(method, path, body)
        return answer["server_keys"]
