"""Cross-signing keys over the API: who may upload which, who sees them, who hears of them."""

from twisted.internet.defer import Deferred, DeferredList

from tests.api.encryption.cross_signing_test_case import KEYS, CrossSigningTestCase
from tests.encryption.client_keys import CrossSigningKeys, DeviceKeys
from tests.support.refused import Refused

UNSTABLE = "/_matrix/client/unstable"


class UploadTests(CrossSigningTestCase):
    async def test_the_first_keys_need_no_authentication(self) -> None:
        """All see the master and the self-signing key; the user-signing key shows whom one knows,
        so only its user sees it.
        """
        answer = await self.alice.post(KEYS, self.keys.upload())

        shown = [self.keys.key(usage) for usage in ("master", "self_signing", "user_signing")]
        kinds = ("master_keys", "self_signing_keys", "user_signing_keys")
        self.assertEqual(answer, {})
        for actor, seen in zip(self.everybody, (3, 3, 2, 2), strict=True):
            found = await self.query(actor, self.alice)
            expected = [*shown[:seen], *[None] * (3 - seen)]
            self.assertEqual([found[kind] for kind in kinds], expected)

    async def test_clients_that_use_the_unstable_path(self) -> None:
        """It is the same endpoint."""
        body = self.keys.upload("master")
        await self.alice.request("POST", UNSTABLE + KEYS, body)

        self.assertEqual(
            (await self.query(self.bob, self.alice))["master_keys"], self.keys.key("master")
        )

    async def test_the_same_keys_again_change_nothing(self) -> None:
        """A client that lost the response repeats the request, and need not authenticate."""
        await self.alice.post(KEYS, self.keys.upload())
        await self.note_tokens()
        for usages in ((), ("master",), ("self_signing",), ("master", "user_signing")):
            await self.alice.post(KEYS, self.keys.upload(*usages))
        await self.alice.post(KEYS, {})

        self.assertEqual(await self.changed(), [set(), set(), set(), set()])

    async def test_keys_are_replaced_and_added_by_the_user_only(self) -> None:
        """A thief of an access token cannot become the user in the eyes of others."""
        await self.alice.post(KEYS, self.keys.upload("master", "self_signing"))
        other = CrossSigningKeys(self.alice, "other")
        stolen = [
            other.upload(),
            other.upload("master"),
            self.keys.upload("user_signing"),
            self.keys.upload(),
            {**other.upload("master"), **self.password(self.alice, password="wrong")},
            {**other.upload("master"), "auth": {"type": "m.login.dummy"}},
        ]
        for body in stolen:
            with self.subTest(body=body), self.assertRaises(Refused) as refused:
                await self.alice.post(KEYS, body)
            self.assertEqual(refused.exception.status, 401)
            self.assertEqual(refused.exception.body["flows"], [{"stages": ["m.login.password"]}])
        for_bob = {**other.upload("master"), **self.password(self.bob)}
        await self.assert_refused("M_FORBIDDEN", self.alice.post(KEYS, for_bob))
        self.assertEqual(
            (await self.query(self.bob, self.alice))["master_keys"], self.keys.key("master")
        )

        await self.alice.post(KEYS, {**other.upload(), **self.password(self.alice)})

        found = await self.query(self.alice, self.alice)
        self.assertEqual(found["master_keys"], other.key("master"))
        self.assertEqual(found["user_signing_keys"], other.key("user_signing"))

    async def test_a_request_that_only_authenticates_stands_for_the_first_one(self) -> None:
        """The keys are those of the request that began the session; it is good for one use."""
        await self.alice.post(KEYS, self.keys.upload())
        other = CrossSigningKeys(self.alice, "other")
        with self.assertRaises(Refused) as refused:
            await self.alice.post(KEYS, other.upload())
        session = refused.exception.body["session"]
        proof = self.password(self.alice, session=session)

        await self.alice.post(KEYS, proof)
        self.assertEqual(
            (await self.query(self.bob, self.alice))["master_keys"], other.key("master")
        )
        third = CrossSigningKeys(self.alice, "third")
        with self.assertRaises(Refused) as again:
            await self.alice.post(KEYS, {**third.upload(), "auth": {"session": session}})

        self.assertEqual(again.exception.status, 401)

    async def test_a_new_master_key_takes_what_the_old_one_signed_with_it(self) -> None:
        """Nobody takes keys or signatures of the former identity for those of the new one."""
        await self.alice.post(KEYS, self.keys.upload())
        phone = DeviceKeys(self.alice)
        master = phone.sign(self.keys.key("master"))
        device = self.keys.sign(phone.identity, "self_signing")
        failures = await self.sign(
            self.alice,
            self.alice,
            **{self.keys.public("master"): master, self.alice.device_id: device},
        )
        self.assertEqual(failures, {})
        before = await self.query(self.bob, self.alice)
        self.assertEqual(before["master_keys"], master)
        self.assertEqual(
            before["device_keys"][self.alice.device_id]["signatures"], device["signatures"]
        )
        other = CrossSigningKeys(self.alice, "other")

        await self.alice.post(KEYS, {**other.upload("master"), **self.password(self.alice)})

        for _ in range(2):
            found = await self.query(self.alice, self.alice)
            self.assertEqual(found["master_keys"], other.key("master"))
            self.assertIsNone(found["self_signing_keys"])
            self.assertIsNone(found["user_signing_keys"])
            shown = found["device_keys"][self.alice.device_id]
            self.assertEqual(shown["signatures"], phone.identity["signatures"])
            await self.restart()
        # Back to the former keys: the signatures do not come back.
        await self.alice.post(KEYS, {**self.keys.upload(), **self.password(self.alice)})
        found = await self.query(self.bob, self.alice)
        self.assertEqual(found["master_keys"], self.keys.key("master"))
        shown = found["device_keys"][self.alice.device_id]
        self.assertEqual(shown["signatures"], phone.identity["signatures"])

    async def test_a_new_self_signing_key_leaves_the_others(self) -> None:
        """Only what the former one signed goes."""
        await self.alice.post(KEYS, self.keys.upload())
        identity = DeviceKeys(self.alice).identity
        device = self.keys.sign(identity, "self_signing")
        await self.sign(self.alice, self.alice, **{self.alice.device_id: device})
        other = CrossSigningKeys(self.alice, "other").key("self_signing")
        unsigned = {name: value for name, value in other.items() if name != "signatures"}
        replaced = self.keys.sign(unsigned, "master")

        await self.alice.post(KEYS, {"self_signing_key": replaced, **self.password(self.alice)})

        found = await self.query(self.alice, self.alice)
        self.assertEqual(found["master_keys"], self.keys.key("master"))
        self.assertEqual(found["self_signing_keys"], replaced)
        self.assertEqual(found["user_signing_keys"], self.keys.key("user_signing"))
        shown = found["device_keys"][self.alice.device_id]
        self.assertEqual(shown["signatures"], identity["signatures"])

    async def test_all_keys_of_a_request_are_stored_or_none(self) -> None:
        """Even if only the last one is wrong, and before any authentication."""
        other = CrossSigningKeys(self.alice, "other")
        good = self.keys.upload("master", "self_signing")
        master = self.keys.public("master")
        unsigned = {**self.keys.key("user_signing"), "signatures": {}}
        wrong_text = {"signatures": {self.alice.user_id: {f"ed25519:{master}": "AAAA"}}}
        for user_signing, errcode in (
            (other.key("user_signing"), "M_INVALID_SIGNATURE"),
            (unsigned, "M_INVALID_SIGNATURE"),
            ({**unsigned, **wrong_text}, "M_INVALID_SIGNATURE"),
            ({**self.keys.key("user_signing"), "x": 1}, "M_INVALID_SIGNATURE"),
            (self.bobs.key("user_signing"), "M_INVALID_PARAM"),
            (self.keys.key("self_signing"), "M_INVALID_PARAM"),
            ({**unsigned, "keys": {"ed25519:x": "x"}}, "M_INVALID_PARAM"),
            ({"user_id": self.alice.user_id}, "M_BAD_JSON"),
            ({**unsigned, "x": 0.5}, "M_BAD_JSON"),
            ({**unsigned, "x": "x" * 20_000}, "M_TOO_LARGE"),
            ([], "M_BAD_JSON"),
        ):
            body = {**good, "user_signing_key": user_signing}
            with self.subTest(key=str(user_signing)[:200]):
                await self.assert_refused(errcode, self.alice.post(KEYS, body))

        self.assertIsNone((await self.query(self.alice, self.alice))["master_keys"])
        await self.alice.post(KEYS, {**good, **self.keys.upload("user_signing")})

    async def test_without_a_master_key_there_are_no_others(self) -> None:
        """A self-signing key that nothing vouches for would be of no use."""
        for body in (self.keys.upload("self_signing"), self.keys.upload("user_signing"), {}):
            await self.assert_refused("M_MISSING_PARAM", self.alice.post(KEYS, body), 400)

    async def test_no_device_is_named_like_a_key(self) -> None:
        """In signatures both are named alike: whichever was first keeps the name."""
        for usage in ("master", "self_signing", "user_signing"):
            device = await self.log_in_as(self.alice, self.keys.public(usage))
            await self.assert_refused("M_FORBIDDEN", self.alice.post(KEYS, self.keys.upload()), 403)
            await device.post("/logout")
        await self.alice.post(KEYS, self.keys.upload())

        for usage in ("master", "self_signing", "user_signing"):
            await self.assert_refused(
                "M_INVALID_PARAM", self.log_in_as(self.alice, self.keys.public(usage)), 400
            )
        await self.log_in_as(self.alice, CrossSigningKeys(self.alice, "other").public("master"))
        await self.log_in_as(self.bob, self.keys.public("master"))

    async def test_a_device_and_a_key_of_one_name_that_come_at_the_same_time(self) -> None:
        """One of them is refused."""
        attempts = [
            Deferred.fromCoroutine(self.log_in_as(self.alice, self.keys.public("master"))),
            Deferred.fromCoroutine(self.alice.post(KEYS, self.keys.upload())),
        ]

        outcomes = await DeferredList(attempts, consumeErrors=True)

        self.assertEqual(sorted(succeeded for succeeded, _ in outcomes), [False, True])

    async def test_only_one_of_two_first_uploads_needs_no_authentication(self) -> None:
        """Of two clients that begin at the same time one learns that the other was first."""
        uploads = [CrossSigningKeys(self.alice, seed).upload() for seed in "ab"]
        attempts = [
            Deferred.fromCoroutine(device.post(KEYS, body))
            for device, body in zip((self.alice, self.tablet), uploads, strict=True)
        ]

        outcomes = await DeferredList(attempts, consumeErrors=True)

        [refused] = [outcome.value for succeeded, outcome in outcomes if not succeeded]
        self.assertEqual(refused.status, 401)
        [kept] = [body for body, (succeeded, _) in zip(uploads, outcomes, strict=True) if succeeded]
        found = await self.query(self.alice, self.alice)
        self.assertEqual(found["master_keys"], kept["master_key"])
        self.assertEqual(found["self_signing_keys"], kept["self_signing_key"])

    async def test_guests_have_no_cross_signing_keys(self) -> None:
        """They cannot authenticate."""
        guest = await self.register_guest()

        await self.assert_refused(
            "M_GUEST_ACCESS_FORBIDDEN",
            guest.post(KEYS, CrossSigningKeys(guest).upload()),
        )


class NotificationTests(CrossSigningTestCase):
    async def test_members_of_shared_rooms_hear_of_new_keys(self) -> None:
        """And the user's own devices; nobody else."""
        alice = self.alice.user_id
        await self.note_tokens()
        await self.alice.post(KEYS, self.keys.upload("master", "self_signing"))

        self.assertEqual(await self.changed(), [{alice}, {alice}, {alice}, set()])
        await self.restart()
        self.assertEqual(await self.changed(), [{alice}, {alice}, {alice}, set()])

    async def test_only_own_devices_hear_of_a_new_user_signing_key(self) -> None:
        """Others do not see it, so that its change would tell them only that something happened."""
        alice = self.alice.user_id
        await self.alice.post(KEYS, self.keys.upload("master"))
        await self.note_tokens()
        waiting = Deferred.fromCoroutine(self.next_changed(self.tablet))
        body = {**self.keys.upload("user_signing"), **self.password(self.alice)}
        await self.alice.post(KEYS, body)

        self.assertEqual(await waiting, [alice])
        self.assertEqual(await self.changed(), [{alice}, {alice}, set(), set()])
        await self.restart()
        self.assertEqual(await self.changed(), [{alice}, {alice}, set(), set()])
        self.assertEqual(
            (await self.query(self.tablet, self.alice))["user_signing_keys"],
            self.keys.key("user_signing"),
        )

    async def test_own_devices_see_a_new_user_signing_key_at_once(self) -> None:
        """Whatever they had asked for before."""
        await self.alice.post(KEYS, self.keys.upload("master"))
        self.assertIsNone((await self.query(self.tablet, self.alice))["user_signing_keys"])
        body = {**self.keys.upload("user_signing"), **self.password(self.alice)}
        await self.alice.post(KEYS, body)

        self.assertEqual(
            (await self.query(self.tablet, self.alice))["user_signing_keys"],
            self.keys.key("user_signing"),
        )


class DeactivationTests(CrossSigningTestCase):
    async def test_keys_and_signatures_go_with_the_account(self) -> None:
        """Those who share a room with the user hear of it."""
        alice = self.alice.user_id
        await self.alice.post(KEYS, self.keys.upload())
        await self.bob.post(KEYS, self.bobs.upload())
        signed = self.keys.sign(self.bobs.key("master"), "user_signing")
        await self.sign(self.alice, self.bob, **{self.bobs.public("master"): signed})
        signed = self.bobs.sign(self.keys.key("master"), "user_signing")
        await self.sign(self.bob, self.alice, **{self.keys.public("master"): signed})
        since = (await self.bob.sync())["next_batch"]

        await self.alice.post("/account/deactivate", {"erase": True, **self.password(self.alice)})

        answer = await self.bob.sync(since)
        found = await self.query(self.bob, self.alice)
        lists = answer["device_lists"]
        self.assertIn(alice, [*lists.get("changed", ()), *lists.get("left", ())])
        self.assertEqual(found["device_keys"], {})
        self.assertIsNone(found["master_keys"])
        self.assertIsNone(found["self_signing_keys"])
        self.assertEqual(self.rows("cross_signing_keys"), 3)
        self.assertEqual(self.rows("key_signatures"), 0)
