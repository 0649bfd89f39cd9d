"""What a search finds, and what it returns."""

from typing import Any

from tests.api.search.search_test_case import SearchTestCase, ids

MESSAGE = "m.room.message"


def edit(event_id: str, text: str) -> dict[str, Any]:
    """The content of an edit."""
    return {
        "msgtype": "m.text",
        "body": f"* {text}",
        "m.new_content": {"msgtype": "m.text", "body": text},
        "m.relates_to": {"rel_type": "m.replace", "event_id": event_id},
    }


class FindingTests(SearchTestCase):
    async def test_a_message_is_found_by_its_words(self) -> None:
        """A user finds a message by words of it, in any case, at once after it was sent."""
        event_id = await self.alice.say(self.room, "The Martians have landed, again")
        await self.alice.say(self.room, "Men have landed")

        page = await self.search(self.bob, "landed martians")

        self.assertEqual(ids(page), [event_id])
        self.assertEqual(page["count"], 1)
        self.assertEqual(sorted(page["highlights"]), ["Martians", "landed"])
        self.assertNotIn("next_batch", page)
        self.assertEqual(page["results"][0]["result"]["content"]["body"][:3], "The")
        self.assertGreater(page["results"][0]["rank"], 0)

    async def test_the_last_word_may_be_unfinished(self) -> None:
        """A user finds inflections: the last word of a term may begin a longer one."""
        event_id = await self.alice.say(self.room, "two backups failed")

        self.assertEqual(await self.found(self.bob, "two backup"), [event_id])
        self.assertEqual(await self.found(self.bob, "backup two"), [])

    async def test_languages_without_spaces(self) -> None:
        """A user finds any part of a Korean, Japanese, Chinese or Thai text, also one character."""
        texts = {
            "오늘 학교에서 만나요": ("학교", "교에서", "학", "만나"),
            "東京タワーに行きました": ("タワー", "東京", "行きました", "京", "た"),
            "我们明天去北京": ("北京", "明天去", "京"),
            "สวัสดีครับ": ("สวัสดี", "ครับ"),
        }
        for text, terms in texts.items():
            event_id = await self.alice.say(self.room, text)
            for term in terms:
                self.assertIn(event_id, await self.found(self.bob, term), term)
        self.assertEqual(await self.found(self.bob, "東行"), [])

    async def test_forms_of_characters_are_one(self) -> None:
        """A user need not know in which form a word was written."""
        wide = await self.alice.say(self.room, "ＦＵＬＬ ｗｉｄｔｈ ｶﾀｶﾅ")
        sharp = await self.alice.say(self.room, "GROSSE Straße")

        self.assertEqual(await self.found(self.bob, "full カタカナ"), [wide])
        self.assertEqual(await self.found(self.bob, "STRASSE große"), [sharp])

    async def test_names_and_topics_are_found(self) -> None:
        """A user finds a room by what it was called, and by its topic in any representation."""
        name = await self.alice.set_state(self.room, "m.room.name", {"name": "Gardening"})
        content = {
            "topic": "Vegetables",
            "m.topic": {"m.text": [{"body": "Carrots"}, {"body": "x", "mimetype": "text/html"}]},
        }
        topic = await self.alice.set_state(self.room, "m.room.topic", content)
        said = await self.alice.say(self.room, "gardening vegetables")

        self.assertEqual(set(await self.found(self.bob, "gardening")), {name, said})
        self.assertEqual(await self.found(self.bob, "gardening", keys=["content.name"]), [name])
        self.assertEqual(await self.found(self.bob, "carrots"), [topic])
        self.assertEqual(await self.found(self.bob, "vegetables", keys=["content.topic"]), [topic])
        self.assertEqual(await self.found(self.bob, "gardening", keys=["content.body"]), [said])
        self.assertEqual(await self.found(self.bob, "gardening", keys=[]), [])

    async def test_an_edit_replaces_what_is_found(self) -> None:
        """A user finds an edited message by its latest text alone, and is shown the edit."""
        event_id = await self.alice.say(self.room, "first draught")
        middle = await self.alice.send(self.room, MESSAGE, edit(event_id, "second draught"))
        latest = await self.alice.send(self.room, MESSAGE, edit(event_id, "third draught"))

        self.assertEqual(await self.found(self.bob, "draught"), [latest])
        self.assertEqual(await self.found(self.bob, "first"), [])
        await self.alice.redact(self.room, latest)
        self.assertEqual(await self.found(self.bob, "draught"), [middle])

    async def test_an_edit_of_anothers_message_is_not_found(self) -> None:
        """A user is not shown that somebody wrote what somebody else made of it."""
        event_id = await self.alice.say(self.room, "my own words")
        await self.bob.send(self.room, MESSAGE, edit(event_id, "not my words"))

        self.assertEqual(await self.found(self.alice, "words"), [event_id])

    async def test_an_encrypted_event_is_not_indexed(self) -> None:
        """Nothing of an encrypted event is searched, whatever its content has."""
        content = {"body": "plaintext", "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x"}
        await self.alice.send(self.room, "m.room.encrypted", content)

        self.assertEqual(await self.found(self.bob, "plaintext"), [])

    async def test_a_term_without_words_finds_nothing(self) -> None:
        """A client gets an empty page for garbage, and never an error of the server."""
        await self.alice.say(self.room, "anything ''':*&|!<-> \\ #1 @2")

        for term in ("", "  ", "'", "':*", "&|!()", "\\", "😀", "_", "\u200d", "#1"):
            page = await self.search(self.bob, term)
            self.assertEqual(page["results"] if term != "#1" else [], [], term)
        for term in ("anything':*", "any & thing | !", "<->anything", "\\anything\\", "a" * 5_000):
            await self.search(self.bob, term)
        self.assertEqual(len(await self.found(self.bob, "'anything'")), 1)


class RequestTests(SearchTestCase):
    async def test_a_filter_is_applied(self) -> None:
        """A user searches among some rooms, senders and kinds of events."""
        other = await self.alice.create_room()
        first = await self.alice.say(self.room, "needle")
        second = await self.bob.say(self.room, "needle")
        third = await self.alice.say(other, "needle")
        link = {"msgtype": "m.file", "body": "needle", "url": "mxc://example.org/abc"}
        file = await self.bob.send(self.room, MESSAGE, link)
        name = await self.alice.set_state(other, "m.room.name", {"name": "needle"})
        alice, bob = self.alice.user_id, self.bob.user_id

        for wanted, expected in (
            ({}, {first, second, third, file, name}),
            ({"rooms": [self.room]}, {first, second, file}),
            ({"rooms": []}, set()),
            ({"not_rooms": [self.room]}, {third, name}),
            ({"senders": [alice]}, {first, third, name}),
            ({"senders": ["@nobody:example.org"]}, set()),
            ({"not_senders": [alice]}, {second, file}),
            ({"senders": [alice, bob], "not_senders": [bob]}, {first, third, name}),
            ({"types": ["m.room.name"]}, {name}),
            ({"types": ["m.room.n*"]}, {name}),
            ({"not_types": ["m.room.name"]}, {first, second, third, file}),
            ({"contains_url": True}, {file}),
            ({"contains_url": False}, {first, second, third, name}),
            ({"rooms": [self.room], "senders": [bob], "contains_url": False}, {second}),
        ):
            found = await self.found(self.alice, "needle", filter=wanted)
            self.assertEqual(set(found), expected, wanted)
        self.assertEqual(len(await self.found(self.alice, "needle", filter={"limit": 2})), 2)
        self.assertEqual(await self.found(self.alice, "needle", filter={"limit": 0}), [])

    async def test_results_are_in_the_requested_order(self) -> None:
        """A user sees the newest first, or the most relevant."""
        best = await self.alice.say(self.room, "needle needle")
        weak = await self.alice.say(self.room, "a needle in a very large stack of dry hay")
        good = await self.alice.say(self.room, "needle needle hay")

        self.assertEqual(
            await self.found(self.bob, "needle", order_by="recent"), [good, weak, best]
        )
        self.assertEqual(await self.found(self.bob, "needle"), [best, good, weak])

    async def test_the_context_of_a_result(self) -> None:
        """A user sees what was said before and after, and by whom."""
        await self.alice.put(f"/profile/{self.alice.user_id}/displayname", {"displayname": "Al"})
        events = [await self.alice.say(self.room, f"number {n}") for n in range(4)]
        needle = await self.bob.say(self.room, "needle")
        after = [await self.alice.say(self.room, f"number {n}") for n in range(4)]
        await self.alice.put(f"/profile/{self.alice.user_id}/displayname", {"displayname": "Eve"})

        wanted = {"before_limit": 2, "after_limit": 3, "include_profile": True}
        page = await self.search(self.bob, "needle", event_context=wanted)
        context = page["results"][0]["context"]

        before = [event["event_id"] for event in context["events_before"]]
        self.assertEqual(before, events[:1:-1])
        self.assertEqual([event["event_id"] for event in context["events_after"]], after[:3])
        self.assertEqual(set(context["profile_info"]), {self.alice.user_id, self.bob.user_id})
        self.assertEqual(context["profile_info"][self.alice.user_id]["displayname"], "Al")
        further = await self.bob.messages(self.room, since=context["start"], limit=2)
        self.assertEqual([e["event_id"] for e in further["chunk"]], events[1::-1])
        further = await self.bob.messages(self.room, "f", since=context["end"], limit=1)
        self.assertEqual([e["event_id"] for e in further["chunk"]], after[3:])
        page = await self.search(self.bob, "needle", event_context={})
        self.assertEqual(len(page["results"][0]["context"]["events_after"]), 5)
        self.assertEqual(page["results"][0]["context"]["profile_info"], {})
        page = await self.search(self.bob, "needle", event_context={"before_limit": 10**9})
        self.assertEqual(len(page["results"][0]["context"]["events_before"]), 11)
        self.assertNotIn("context", (await self.search(self.bob, "needle"))["results"][0])
        self.assertTrue(needle)

    async def test_the_state_of_the_rooms(self) -> None:
        """A client can draw the rooms of the results."""
        await self.alice.say(self.room, "needle")
        other = await self.alice.create_room(name="Other")
        await self.alice.say(other, "hay")

        page = await self.search(self.alice, "needle", include_state=True)

        self.assertEqual(set(page["state"]), {self.room})
        types = {event["type"] for event in page["state"][self.room]}
        self.assertLessEqual({"m.room.create", "m.room.member", "m.room.power_levels"}, types)
        self.assertNotIn("state", await self.search(self.alice, "needle"))

    async def test_results_are_grouped(self) -> None:
        """A client shows results by room or sender, and continues in one group."""
        other = await self.alice.create_room(public=True)
        await self.bob.join(other)
        here = [await self.alice.say(self.room, f"needle {n}") for n in range(4)]
        there = [await self.bob.say(other, f"needle {n}") for n in range(4)]
        criteria = {
            "order_by": "recent",
            "filter": {"limit": 6},
            "groupings": {"group_by": [{"key": "room_id"}, {"key": "sender"}]},
        }

        page = await self.search(self.alice, "needle", **criteria)

        by_room, by_sender = page["groups"]["room_id"], page["groups"]["sender"]
        self.assertEqual(by_room[other]["results"], there[::-1])
        self.assertEqual(by_room[self.room]["results"], here[:1:-1])
        self.assertEqual((by_room[other]["order"], by_room[self.room]["order"]), (1, 2))
        self.assertEqual(by_sender[self.bob.user_id]["results"], there[::-1])
        self.assertEqual(page["count"], 8)
        for group, expected in (
            (by_room[self.room], here[1::-1]),
            (by_room[other], []),
            (by_sender[self.alice.user_id], here[1::-1]),
            (by_sender[self.bob.user_id], []),
        ):
            following = await self.search(
                self.alice, "needle", next_batch=group["next_batch"], **criteria
            )
            self.assertEqual(ids(following), expected)

    async def test_wrong_requests_are_refused(self) -> None:
        """A client gets the error of the specification for what is not a search."""
        for criteria in (
            {"keys": ["content.html"]},
            {"order_by": "newest"},
            {"groupings": {"group_by": [{"key": "type"}]}},
            {"filter": {"limit": -1}},
            {"filter": {"rooms": "all"}},
            {"event_context": {"before_limit": -1}},
            {"event_context": {"after_limit": "5"}},
        ):
            await self.assert_refused("M_BAD_JSON", self.search(self.alice, "x", **criteria), 400)
        for token in ("x", "!!!", "a" * 2_000, "k" * 40, "lA", "é"):
            attempt = self.search(self.alice, "x", next_batch=token)
            await self.assert_refused("M_INVALID_PARAM", attempt, 400)
        for body in ({}, {"search_categories": {"room_events": {}}}, {"search_categories": 1}):
            await self.assert_refused("M_BAD_JSON", self.alice.post("/search", body), 400)
        self.assertEqual(
            await self.alice.post("/search", {"search_categories": {}}), {"search_categories": {}}
        )

    async def test_guests_and_strangers_may_not_search(self) -> None:
        """Search is for users of this server."""
        guest = await self.register_guest()

        await self.assert_refused("M_GUEST_ACCESS_FORBIDDEN", self.search(guest, "x"), 403)
        body = {"search_categories": {"room_events": {"search_term": "x"}}}
        await self.assert_refused("M_MISSING_TOKEN", self.anybody.post("/search", body), 401)


class DisabledTests(SearchTestCase):
    settings = {"search": {"enabled": False}}  # noqa: RUF012

    async def test_a_server_can_do_without(self) -> None:
        """An operator who does not want an index has none."""
        await self.alice.say(self.room, "needle")

        await self.assert_refused("M_UNRECOGNIZED", self.search(self.alice, "needle"), 404)
