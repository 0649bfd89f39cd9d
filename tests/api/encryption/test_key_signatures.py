"""Signatures of keys over the API: whose are accepted, who sees them, who hears of them."""

from typing import Any

import msgspec
import psycopg
from twisted.internet.defer import Deferred, gatherResults

from homeserver.encryption import key_signatures
from tests.api.encryption.cross_signing_test_case import KEYS, SIGNATURES, CrossSigningTestCase
from tests.encryption.client_keys import CrossSigningKeys, DeviceKeys
from tests.support.actors import Actor

UNSTABLE = "/_matrix/client/unstable"


class KeySignaturesTestCase(CrossSigningTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.alice.post(KEYS, self.keys.upload())
        await self.bob.post(KEYS, self.bobs.upload())
        self.phone = DeviceKeys(self.alice)
        self.master, self.bobs_master = self.keys.public("master"), self.bobs.public("master")

    async def sign_own(self, **keys: Any) -> Any:
        """Have Alice sign keys of her own; the failures by key id, as errcodes."""
        return _errcodes(await self.sign(self.alice, self.alice, **keys))

    async def sign_bob(self, **keys: Any) -> Any:
        """Have Alice sign keys of Bob; the failures by key id, as errcodes."""
        return _errcodes(await self.sign(self.alice, self.bob, **keys))

    async def signatures_of_phone(self, actor: Actor) -> Any:
        """The signatures by Alice of her device, as an actor sees them."""
        found = await self.query(actor, self.alice)
        shown = found["device_keys"][self.alice.device_id]["signatures"]
        self.assertEqual(list(shown), [self.alice.user_id])
        return shown[self.alice.user_id]


class OwnKeysTests(KeySignaturesTestCase):
    async def test_everybody_sees_that_a_device_is_signed(self) -> None:
        """Those who share a room with the user hear of it: they trust the device from now on."""
        alice = self.alice.user_id
        await self.note_tokens()
        signed = self.keys.sign(self.phone.identity, "self_signing")

        self.assertEqual(await self.sign_own(**{self.alice.device_id: signed}), {})

        self.assertEqual(await self.changed(), [{alice}, {alice}, {alice}, set()])
        await self.restart()
        self.assertEqual(await self.changed(), [{alice}, {alice}, {alice}, set()])
        for actor in self.everybody:
            self.assertEqual(
                await self.signatures_of_phone(actor), signed["signatures"][self.alice.user_id]
            )

    async def test_everybody_sees_that_a_device_signed_the_master_key(self) -> None:
        """Users who verified the device can trust the master key."""
        alice = self.alice.user_id
        await self.note_tokens()
        for device in (self.alice, self.tablet):
            signed = DeviceKeys(device).sign(self.keys.key("master"))
            self.assertEqual(await self.sign_own(**{self.master: signed}), {})

        both = DeviceKeys(self.tablet).sign(self.phone.sign(self.keys.key("master")))
        self.assertEqual(await self.changed(), [{alice}, {alice}, {alice}, set()])
        for actor in self.everybody:
            self.assertEqual((await self.query(actor, self.alice))["master_keys"], both)
        # A client sends what it found, with the signatures that it knows already.
        self.assertEqual(await self.sign_own(**{self.master: both}), {})

    async def test_clients_that_use_the_unstable_path(self) -> None:
        """It is the same endpoint; a request without signatures is allowed."""
        answer = await self.alice.request("POST", UNSTABLE + SIGNATURES, {})

        self.assertEqual(answer, {"failures": {}})

    async def test_identical_signatures_change_nothing(self) -> None:
        """A client may repeat a request without waking all others."""
        device = self.keys.sign(self.phone.identity, "self_signing")
        master = self.phone.sign(self.keys.key("master"))
        await self.sign_own(**{self.alice.device_id: device, self.master: master})
        bob = self.keys.sign(self.bobs.key("master"), "user_signing")
        await self.sign_bob(**{self.bobs_master: bob})
        await self.note_tokens()

        failures = await self.sign_own(**{self.alice.device_id: device, self.master: master})
        failures |= await self.sign_bob(**{self.bobs_master: bob})

        self.assertEqual(failures, {})
        self.assertEqual(await self.changed(), [set(), set(), set(), set()])

    async def test_what_is_valid_is_stored_and_the_rest_reported(self) -> None:
        """A client learns which of its signatures are missing."""
        identity, tablet = self.phone.identity, DeviceKeys(self.tablet)
        good = self.keys.sign(identity, "self_signing")
        by_other = CrossSigningKeys(self.alice, "other").sign(tablet.identity, "self_signing")
        garbled = {**self.keys.key("master"), "signatures": {self.alice.user_id: 1}}
        failures = await self.sign_own(
            **{
                self.alice.device_id: good,
                self.tablet.device_id: by_other,
                self.master: garbled,
                "NEVER": good,
                self.bob.device_id: good,
                self.keys.public("self_signing"): self.keys.key("self_signing"),
                "\0": good,
            }
        )

        self.assertEqual(
            failures,
            {
                self.tablet.device_id: "M_INVALID_SIGNATURE",
                self.master: "M_INVALID_SIGNATURE",
                "NEVER": "M_NOT_FOUND",
                self.bob.device_id: "M_NOT_FOUND",
                self.keys.public("self_signing"): "M_NOT_FOUND",
                "\0": "M_NOT_FOUND",
            },
        )
        self.assertIn(
            f"ed25519:{self.keys.public('self_signing')}",
            await self.signatures_of_phone(self.bob),
        )

    async def test_signatures_that_are_not_valid(self) -> None:
        """None of them is stored, whatever it was made of."""
        identity, alice = self.phone.identity, self.alice.user_id
        name = f"ed25519:{self.keys.public('self_signing')}"
        for signed, errcode in (
            (identity, "M_INVALID_SIGNATURE"),
            (self.keys.sign(identity, "master"), "M_INVALID_SIGNATURE"),
            (self.keys.sign(identity, "user_signing"), "M_INVALID_SIGNATURE"),
            (self.bobs.sign(identity, "self_signing"), "M_INVALID_SIGNATURE"),
            ({**identity, "signatures": {alice: {name: "AAAA"}}}, "M_INVALID_SIGNATURE"),
            ({**identity, "signatures": {alice: {name: "\0"}}}, "M_INVALID_SIGNATURE"),
            ({**identity, "signatures": {alice: {name: 1}}}, "M_INVALID_SIGNATURE"),
            ({**identity, "signatures": None}, "M_INVALID_SIGNATURE"),
            (self.keys.sign({**identity, "algorithms": []}, "self_signing"), "M_INVALID_PARAM"),
            (self.keys.sign({**identity, "x": 1}, "self_signing"), "M_INVALID_PARAM"),
            ({**self.keys.sign(identity, "self_signing"), "x": 0.5}, "M_INVALID_PARAM"),
            ({}, "M_INVALID_PARAM"),
        ):
            with self.subTest(signed=signed):
                failures = await self.sign_own(**{self.alice.device_id: signed})
                self.assertEqual(failures, {self.alice.device_id: errcode})

        self.assertEqual(await self.signatures_of_phone(self.alice), identity["signatures"][alice])
        self.assertEqual(self.rows("key_signatures"), 0)

    async def test_valid_signatures_beside_others(self) -> None:
        """One that is not valid is reported; one by a device that is gone is of no interest."""
        gone = await self.log_in(self.alice)
        await gone.post("/keys/upload", {"device_keys": DeviceKeys(gone).identity})
        await gone.post("/logout")
        master = self.phone.sign(self.keys.key("master"))
        signed = DeviceKeys(gone).sign(master)
        self.assertEqual(await self.sign_own(**{self.master: signed}), {})
        self.assertEqual((await self.query(self.bob, self.alice))["master_keys"], master)

        forged = DeviceKeys(self.tablet, "other keys").sign(master)
        failures = await self.sign_own(**{self.master: forged})

        self.assertEqual(failures, {self.master: "M_INVALID_SIGNATURE"})
        self.assertEqual((await self.query(self.bob, self.alice))["master_keys"], master)

    async def test_signatures_need_the_key_that_makes_them(self) -> None:
        """Without self-signing and user-signing key nothing can be signed."""
        other = CrossSigningKeys(self.carol)
        identity = DeviceKeys(self.carol).identity
        await self.carol.post("/keys/upload", {"device_keys": identity})
        await self.carol.post(KEYS, other.upload("master"))

        own = {self.carol.device_id: other.sign(identity, "self_signing")}
        bobs = {self.bobs_master: other.sign(self.bobs.key("master"), "user_signing")}

        for user, keys in ((self.carol, own), (self.bob, bobs)):
            failures = await self.sign(self.carol, user, **keys)
            self.assertEqual(set(_errcodes(failures).values()), {"M_NOT_FOUND"})

    async def test_new_identity_keys_of_a_device_lose_the_signatures(self) -> None:
        """A signature that does not match would look like an attack."""
        signed = self.keys.sign(self.phone.identity, "self_signing")
        await self.sign_own(**{self.alice.device_id: signed})
        own = signed["signatures"][self.alice.user_id]
        # The same keys with another signature of their own are still the same keys.
        bare = {**self.phone.identity, "signatures": {}}
        await self.alice.post("/keys/upload", {"device_keys": bare})
        self.assertEqual(len(await self.signatures_of_phone(self.bob)), 1)
        await self.alice.post("/keys/upload", {"device_keys": self.phone.identity})
        self.assertEqual(await self.signatures_of_phone(self.bob), own)

        new = DeviceKeys(self.alice, "new").identity
        await self.alice.post("/keys/upload", {"device_keys": new})

        self.assertEqual(
            await self.signatures_of_phone(self.bob), new["signatures"][self.alice.user_id]
        )
        self.assertEqual(self.rows("key_signatures"), 0)

    async def test_signatures_go_with_their_device(self) -> None:
        """A later device of the same name, even with the same keys, is not signed."""
        signed = self.keys.sign(self.phone.identity, "self_signing")
        await self.sign_own(**{self.alice.device_id: signed})
        await self.alice.post("/logout")
        again = await self.log_in_as(self.alice, self.alice.device_id)
        await again.post("/keys/upload", {"device_keys": self.phone.identity})

        self.assertEqual(
            await self.signatures_of_phone(self.bob),
            self.phone.identity["signatures"][self.alice.user_id],
        )

    async def test_what_a_device_signed_goes_with_its_keys(self) -> None:
        """A later device of the same name has not signed the master key."""
        master = self.keys.key("master")
        await self.sign_own(**{self.master: self.phone.sign(master)})
        await self.sign_own(**{self.master: DeviceKeys(self.tablet).sign(master)})
        new = DeviceKeys(self.alice, "new").identity

        await self.alice.post("/keys/upload", {"device_keys": new})
        by_tablet = (await self.query(self.bob, self.alice))["master_keys"]
        await self.tablet.post("/logout")

        self.assertEqual(by_tablet, DeviceKeys(self.tablet).sign(master))
        self.assertEqual((await self.query(self.bob, self.alice))["master_keys"], master)
        self.assertEqual(self.rows("key_signatures"), 0)

    async def test_a_signature_may_be_in_uploaded_device_keys(self) -> None:
        """A client that has the self-signing key need not upload it separately."""
        signed = self.keys.sign(self.phone.identity, "self_signing")
        await self.alice.post("/keys/upload", {"device_keys": signed})

        self.assertEqual(
            await self.signatures_of_phone(self.bob), signed["signatures"][self.alice.user_id]
        )
        await self.note_tokens()
        self.assertEqual(await self.sign_own(**{self.alice.device_id: signed}), {})
        self.assertEqual(await self.changed(), [set(), set(), set(), set()])


class KeysOfOthersTests(KeySignaturesTestCase):
    async def test_only_the_user_sees_whom_they_verified(self) -> None:
        """Nobody else learns whom they know, not even the other user."""
        bob = self.bob.user_id
        await self.note_tokens()
        waiting = Deferred.fromCoroutine(self.next_changed(self.tablet))
        master = self.bobs.key("master")
        signed = self.keys.sign(master, "user_signing")

        self.assertEqual(await self.sign_bob(**{self.bobs_master: signed}), {})

        self.assertEqual(await waiting, [bob])
        for _ in range(2):
            self.assertEqual(await self.changed(), [{bob}, {bob}, set(), set()])
            for actor, seen in zip(self.everybody, (signed, signed, master, master), strict=True):
                self.assertEqual((await self.query(actor, self.bob))["master_keys"], seen)
            await self.restart()

    async def test_signatures_of_both_users_are_seen_together(self) -> None:
        """Those by devices of the other user, and the user's own."""
        master = DeviceKeys(self.bob).sign(self.bobs.key("master"))
        await self.sign(self.bob, self.bob, **{self.bobs_master: master})
        signed = self.keys.sign(self.bobs.key("master"), "user_signing")
        await self.sign_bob(**{self.bobs_master: signed})

        both = {**master["signatures"], **signed["signatures"]}
        found = (await self.query(self.alice, self.bob))["master_keys"]
        self.assertEqual(found["signatures"], both)

    async def test_only_master_keys_of_others_can_be_signed(self) -> None:
        """And only with the user-signing key."""
        master, bob = self.bobs.key("master"), DeviceKeys(self.bob).identity
        for key_id, signed, errcode in (
            (self.bobs_master, self.keys.sign(master, "master"), "M_INVALID_SIGNATURE"),
            (self.bobs_master, self.phone.sign(master), "M_INVALID_SIGNATURE"),
            (self.bobs_master, self.bobs.sign(master, "user_signing"), "M_INVALID_SIGNATURE"),
            (self.bob.device_id, self.keys.sign(bob, "user_signing"), "M_NOT_FOUND"),
            (self.bobs.public("user_signing"), self.bobs.key("user_signing"), "M_NOT_FOUND"),
            (self.master, self.keys.sign(master, "user_signing"), "M_NOT_FOUND"),
            (
                self.bobs_master,
                self.keys.sign({**master, "x": 1}, "user_signing"),
                "M_INVALID_PARAM",
            ),
        ):
            with self.subTest(key_id=key_id, signed=signed):
                failures = await self.sign_bob(**{key_id: signed})
                self.assertEqual(failures, {key_id: errcode})
        self.assertEqual(self.rows("key_signatures"), 0)

    async def test_users_who_do_not_exist(self) -> None:
        """Whatever they are called, the others of the request are stored."""
        signed = self.keys.sign(self.bobs.key("master"), "user_signing")
        key = {self.bobs_master: signed}
        names = ("@nobody:example.org", "@far:other.example", "no name", "@\0:x", "")

        answer = await self.alice.post(
            SIGNATURES, {self.bob.user_id: key, **dict.fromkeys(names, key)}
        )

        errcodes = {name: _errcodes(failed) for name, failed in answer["failures"].items()}
        wrong = {self.bobs_master: "M_INVALID_PARAM"}
        missing = {self.bobs_master: "M_NOT_FOUND"}
        self.assertEqual(
            errcodes,
            {**dict.fromkeys(names[:2], missing), **dict.fromkeys(names[2:], wrong)},
        )
        self.assertEqual((await self.query(self.alice, self.bob))["master_keys"], signed)

    async def test_a_new_master_key_of_the_other_user_is_not_signed(self) -> None:
        """The user has to verify it first; the former signature goes."""
        signed = self.keys.sign(self.bobs.key("master"), "user_signing")
        await self.sign_bob(**{self.bobs_master: signed})
        other = CrossSigningKeys(self.bob, "other")

        await self.bob.post(KEYS, {**other.upload(), **self.password(self.bob)})

        self.assertEqual(
            (await self.query(self.alice, self.bob))["master_keys"], other.key("master")
        )
        self.assertEqual(self.rows("key_signatures"), 0)

    async def test_a_new_user_signing_key_has_signed_nobody(self) -> None:
        """What the former one signed goes."""
        signed = self.keys.sign(self.bobs.key("master"), "user_signing")
        await self.sign_bob(**{self.bobs_master: signed})
        other = CrossSigningKeys(self.alice, "other")

        await self.alice.post(KEYS, {**other.upload(), **self.password(self.alice)})

        self.assertEqual(
            (await self.query(self.alice, self.bob))["master_keys"], self.bobs.key("master")
        )
        self.assertEqual(self.rows("key_signatures"), 0)

    async def test_users_of_other_servers_can_be_signed(self) -> None:
        """As far as their keys are known here."""
        eve = Actor(self._http, self.url, "@eve:other.example", "EVE", "")
        keys = CrossSigningKeys(eve)
        master = keys.key("master")
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "INSERT INTO cross_signing_keys VALUES (%s, 'master', %s)",
                (eve.user_id, msgspec.json.encode(master)),
            )
        await self.note_tokens()
        signed = self.keys.sign(master, "user_signing")

        failures = await self.sign(self.alice, eve, **{keys.public("master"): signed})

        self.assertEqual(failures, {})
        self.assertEqual(await self.changed(), [{eve.user_id}, {eve.user_id}, set(), set()])
        self.assertEqual(self.rows("key_signatures"), 1)


class BoundsTests(KeySignaturesTestCase):
    async def test_a_request_is_bounded(self) -> None:
        """The server checks some signatures, not as many as fit into a request."""
        body = {self.alice.user_id: {str(number): {} for number in range(200)}}

        await self.assert_refused("M_TOO_LARGE", self.alice.post(SIGNATURES, body), 413)
        await self.assert_refused("M_BAD_JSON", self.alice.post(SIGNATURES, {"@a:b": {"D": 1}}))

    async def test_new_signatures_of_one_key_are_bounded(self) -> None:
        """Those that are there already are not counted."""
        self.patch(key_signatures, "MAX_NEW_OF_KEY", 1)
        one = self.phone.sign(self.keys.key("master"))
        two = DeviceKeys(self.tablet).sign(one)

        self.assertEqual(
            await self.sign_own(**{self.master: two}), {self.master: "M_INVALID_PARAM"}
        )
        self.assertEqual(await self.sign_own(**{self.master: one}), {})
        self.assertEqual(await self.sign_own(**{self.master: two}), {})

    async def test_the_signatures_of_a_user_are_bounded(self) -> None:
        """Beyond the bound nothing of the request is stored."""
        self.patch(key_signatures, "MAX_SIGNATURES", 2)
        two = DeviceKeys(self.tablet).sign(self.phone.sign(self.keys.key("master")))
        self.assertEqual(await self.sign_own(**{self.master: two}), {})
        device = self.keys.sign(self.phone.identity, "self_signing")

        body = {self.alice.user_id: {self.alice.device_id: device}}
        await self.assert_refused("M_USER_LIMIT_EXCEEDED", self.alice.post(SIGNATURES, body), 403)

        self.assertEqual(await self.sign_own(**{self.master: two}), {})
        self.assertEqual(self.rows("key_signatures"), 2)

    async def test_requests_at_the_same_time(self) -> None:
        """Each is stored; a device that changes its keys meanwhile is not left with a wrong one."""
        new = DeviceKeys(self.alice, "new").identity
        signed = self.keys.sign(self.phone.identity, "self_signing")
        bob = self.keys.sign(self.bobs.key("master"), "user_signing")
        master = self.phone.sign(self.keys.key("master"))
        attempts = [
            self.sign_own(**{self.alice.device_id: signed}),
            self.alice.post("/keys/upload", {"device_keys": new}),
            self.sign_own(**{self.alice.device_id: signed, self.master: master}),
            self.sign_bob(**{self.bobs_master: bob}),
        ]

        await gatherResults([Deferred.fromCoroutine(each) for each in attempts])

        self.assertEqual(
            await self.signatures_of_phone(self.bob), new["signatures"][self.alice.user_id]
        )
        self.assertEqual((await self.query(self.alice, self.bob))["master_keys"], bob)


def _errcodes(failures: Any) -> dict[str, str]:
    return {key_id: failed["errcode"] for key_id, failed in failures.items()}
