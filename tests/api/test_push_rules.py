"""Push rules over the API."""

from typing import Any

from tests.support.server import ServerTestCase

GLOBAL = "/pushrules/global"
NOTIFY = {"actions": ["notify"]}


class PushRulesTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")

    async def put(self, path: str, body: Any = NOTIFY, **query: str) -> None:
        await self.alice.request("PUT", f"/_matrix/client/v3{GLOBAL}/{path}", body, query)

    async def ids(self, kind: str) -> list[str]:
        rules = (await self.alice.get("/pushrules/"))["global"][kind]
        return [rule["rule_id"] for rule in rules if not rule["default"]]

    async def test_new_users_have_the_predefined_rules(self) -> None:
        """Clients read the rules when they start, and cannot do without them."""
        rules = await self.alice.get("/pushrules/")

        override = {rule["rule_id"]: rule for rule in rules["global"]["override"]}
        self.assertEqual(
            set(rules["global"]), {"override", "content", "room", "sender", "underride"}
        )
        self.assertFalse(override[".m.rule.master"]["enabled"])
        self.assertEqual(
            override[".m.rule.is_user_mention"]["conditions"][0]["value"], self.alice.user_id
        )
        self.assertEqual(await self.alice.get("/pushrules/global/"), rules["global"])

    async def test_rules_come_with_the_account_data_of_sync(self) -> None:
        """Other devices of a user hear of a change."""
        first = await self.alice.sync()
        await self.put("sender/@bob:example.org")

        second = await self.alice.sync(first["next_batch"])

        (before,) = (e for e in first["account_data"]["events"] if e["type"] == "m.push_rules")
        (after,) = second["account_data"]["events"]
        self.assertEqual(before["content"]["global"]["sender"], [])
        self.assertEqual(after["content"], await self.alice.get("/pushrules/"))

    async def test_rule_is_found_as_it_was_made(self) -> None:
        """A settings page shows what was set on another device."""
        body = {"pattern": "cake*lie", "actions": ["notify", {"set_tweak": "highlight"}]}

        await self.put("content/nocake", body)

        self.assertEqual(
            await self.alice.get(f"{GLOBAL}/content/nocake"),
            {"rule_id": "nocake", "default": False, "enabled": True, **body},
        )
        self.assertEqual(
            await self.alice.get(f"{GLOBAL}/content/nocake/actions"), {"actions": body["actions"]}
        )

    async def test_rules_are_put_where_they_should_be(self) -> None:
        """The order decides which of two rules counts."""
        for path, query in (
            ("sender/a", {}),
            ("sender/b", {}),
            ("sender/c", {"before": "a"}),
            ("sender/d", {"after": "b"}),
            ("sender/e", {"before": "a", "after": "b"}),
        ):
            await self.put(path, **query)

        self.assertEqual(await self.ids("sender"), ["b", "d", "c", "e", "a"])
        await self.put("sender/c")
        self.assertEqual(await self.ids("sender"), ["b", "d", "c", "e", "a"])
        await self.put("sender/a", before="b")
        self.assertEqual(await self.ids("sender"), ["a", "b", "d", "c", "e"])

    async def test_neighbour_must_be_a_rule_of_ones_own(self) -> None:
        """A client that is behind learns that the rule is gone."""
        for neighbour in ("unknown", ".m.rule.suppress_notices"):
            for side in ("before", "after"):
                await self.assert_refused(
                    "M_UNKNOWN", self.put("override/mine", **{side: neighbour}), 400
                )

        self.assertEqual(await self.ids("override"), [])

    async def test_any_rule_is_disabled_and_enabled(self) -> None:
        """A user turns all notifications off for the night."""
        await self.put("room/!quiet:example.org")

        for rule in ("override/.m.rule.master", "room/!quiet:example.org"):
            for enabled in (True, False, True):
                await self.put(f"{rule}/enabled", {"enabled": enabled})
                self.assertEqual(
                    await self.alice.get(f"{GLOBAL}/{rule}/enabled"), {"enabled": enabled}
                )

    async def test_actions_of_any_rule_are_set(self) -> None:
        """A user sets a sound of their own, or none; historical actions are kept."""
        await self.put("room/!loud:example.org")

        for rule in ("underride/.m.rule.message", "room/!loud:example.org"):
            for actions in (["dont_notify"], [], ["notify", {"set_tweak": "sound", "value": "x"}]):
                await self.put(f"{rule}/actions", {"actions": actions})
                self.assertEqual(
                    await self.alice.get(f"{GLOBAL}/{rule}/actions"), {"actions": actions}
                )

    async def test_deleted_rule_does_not_apply(self) -> None:
        """A muted room notifies again."""
        await self.put("sender/@bob:example.org")

        await self.alice.delete(f"{GLOBAL}/sender/@bob:example.org")

        path = f"{GLOBAL}/sender/@bob:example.org"
        await self.assert_refused("M_NOT_FOUND", self.alice.get(path), 404)
        await self.assert_refused("M_NOT_FOUND", self.alice.delete(path), 404)

    async def test_unknown_rules_are_not_found(self) -> None:
        """A mistyped rule is not silently made, nor one of a kind that does not exist."""
        for rule in ("override/.not.a.rule", "sender/@bob:example.org", "noise/mine"):
            for attempt in (
                self.alice.get(f"{GLOBAL}/{rule}"),
                self.alice.get(f"{GLOBAL}/{rule}/enabled"),
                self.alice.get(f"{GLOBAL}/{rule}/actions"),
                self.put(f"{rule}/enabled", {"enabled": True}),
                self.put(f"{rule}/actions", NOTIFY),
                self.alice.delete(f"{GLOBAL}/{rule}"),
            ):
                await self.assert_refused("M_NOT_FOUND", attempt, 404)

    async def test_names_of_predefined_rules_are_reserved(self) -> None:
        """A user cannot hide a predefined rule, or create one that no path can address."""
        for rule in (".m.rule.master", ".mine", "a%2Fb", "a%5Cb"):
            await self.assert_refused("M_INVALID_PARAM", self.put(f"override/{rule}"), 400)
        await self.assert_refused(
            "M_INVALID_PARAM", self.alice.delete(f"{GLOBAL}/override/.m.rule.master"), 400
        )

    async def test_rules_that_are_none_are_refused(self) -> None:
        """A client's author learns of the mistake."""
        await self.assert_refused("M_INVALID_PARAM", self.put("noise/mine"), 400)
        await self.assert_refused("M_MISSING_PARAM", self.put("content/mine"), 400)
        await self.assert_refused("M_BAD_JSON", self.put("sender/@bob:example.org", {}), 400)
        for bad in (
            {"actions": "notify"},
            {"actions": [1]},
            {"actions": ["not_an_action"]},
            {"actions": [{}]},
            {"actions": [], "conditions": [{}]},
            {"actions": [], "conditions": "none"},
        ):
            await self.assert_refused("M_BAD_JSON", self.put("override/mine", bad), 400)
        await self.assert_refused(
            "M_INVALID_PARAM", self.put("content/big", {**NOTIFY, "pattern": "x" * 20_000}), 400
        )

    async def test_rules_that_are_costly_to_evaluate_are_refused(self) -> None:
        """They are evaluated for all messages: a user must not slow that down for others."""
        condition = {"kind": "event_match", "key": "content.body"}
        wild = {**NOTIFY, "conditions": [{**condition, "pattern": f"?{n}"} for n in range(50)]}
        for bad in (
            {**NOTIFY, "conditions": [{**condition, "pattern": "x" * 1_001}]},
            {**NOTIFY, "conditions": [{**condition, "pattern": "x"}] * 51},
        ):
            await self.assert_refused("M_INVALID_PARAM", self.put("override/mine", bad), 400)

        await self.put("override/first", wild)
        await self.put("override/second", wild)
        await self.put("override/second", wild)
        await self.assert_refused("M_INVALID_PARAM", self.put("override/third", wild), 400)
        large = {**NOTIFY, "conditions": [{"kind": "x", "y": "z" * 16_000}]}
        for number in range(15):
            await self.put(f"override/large{number}", large)
        await self.assert_refused("M_INVALID_PARAM", self.put("override/last", large), 400)

    async def test_paths_that_lead_to_no_rule_are_mistakes(self) -> None:
        """A client with a fault does not take the server for one without push rules."""
        for path in ("", "other/room/!a", "global", "global/room", "global/room/"):
            attempt = self.alice.put(f"/pushrules/{path}", NOTIFY)
            await self.assert_refused("M_INVALID_PARAM", attempt, 400)
        for path in ("other/", "other/room/", "global/override/.m.rule.master/colour"):
            attempt = self.alice.get(f"/pushrules/{path}")
            await self.assert_refused("M_INVALID_PARAM", attempt, 400)
        for path in ("global", "global/room"):
            attempt = self.alice.get(f"/pushrules/{path}")
            await self.assert_refused("M_INVALID_PARAM", attempt, 400)
        await self.assert_refused("M_UNRECOGNIZED", self.alice.get("/pushrules"), 404)
        colour = self.put("override/.m.rule.master/colour", {"colour": "red"})
        await self.assert_refused("M_INVALID_PARAM", colour, 400)

    async def test_clients_may_have_actions_of_their_own(self) -> None:
        """An action that the server does not know may have a meaning for clients."""
        own = {"actions": ["org.example.blink", "dont_notify"]}

        await self.put("sender/@bob:example.org", own)

        rule = await self.alice.get(f"{GLOBAL}/sender/@bob:example.org")
        self.assertEqual(rule["actions"], own["actions"])

    async def test_rules_survive_a_restart(self) -> None:
        """Muted rooms stay muted."""
        await self.put("sender/@bob:example.org")
        await self.put("override/.m.rule.suppress_notices/enabled", {"enabled": False})
        before = await self.alice.get("/pushrules/")

        await self.restart_server(self.alice)

        self.assertEqual(await self.alice.get("/pushrules/"), before)
