// Finding people and messages as users of Element Web do: `node search_flows.mjs BASE_URL FLOW`.

import assert from "node:assert/strict";
import { Preset, SearchOrderBy } from "matrix-js-sdk";
import { directRoom, eventually, register, runFlow, started, until } from "./sdk.mjs";

await runFlow({
    // Somebody is found by a part of their name, and is invited.
    async people() {
        const [alice, bob, carol] = [await register("alice"), await register("bob"), await register("carol")];
        const surname = `Zoë${process.pid}`;
        await Promise.all([bob.setDisplayName(`Bob ${surname}`), carol.setDisplayName("Carol")]);
        await Promise.all([bob, carol].map((each) => each.createRoom({ preset: Preset.PublicChat })));
        await started(bob);

        const found = await eventually(async () => {
            const { results } = await alice.searchUserDirectory({ term: surname.toLowerCase().slice(0, -1) });
            assert.deepEqual(results.map((user) => user.user_id), [bob.getUserId()]);
            return results[0];
        });
        const { room_id: roomId } = await alice.createRoom({ name: "Tea" });
        await alice.invite(roomId, found.user_id);

        assert.equal(found.display_name, `Bob ${surname}`);
        await until(() => bob.getRoom(roomId)?.getMyMembership() === "invite");
        assert.equal((await alice.searchUserDirectory({ term: surname, limit: 1 })).limited, false);
    },

    // The search of a room shows pages of messages, newest first, with what was said around them.
    async messages() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        const other = await directRoom(alice, bob);
        await alice.sendTextMessage(other, "a needle elsewhere");
        for (let number = 0; number < 25; number++) {
            await alice.sendTextMessage(roomId, `needle ${number}`);
            await alice.sendTextMessage(roomId, `hay ${number}`);
        }
        await started(bob);
        const filter = { limit: 10, rooms: [roomId] };

        const found = await eventually(async () => {
            const results = await bob.searchRoomEvents({ term: "needle", filter });
            assert.equal(results.count, 25);
            return results;
        });
        while (found.next_batch) await bob.backPaginateRoomEventsSearch(found);

        const bodies = found.results.map((result) => result.context.getEvent().getContent().body);
        assert.deepEqual(bodies, Array.from({ length: 25 }, (_, index) => `needle ${24 - index}`));
        assert.deepEqual(found.highlights, ["needle"]);
        const around = found.results[3].context.getTimeline().map((event) => event.getContent().body);
        assert.deepEqual(around, ["hay 20", "needle 21", "hay 21"]);
    },

    // The search of all rooms, by the best match, and one that finds nothing.
    async all_rooms() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const rooms = [await directRoom(alice, bob), await directRoom(alice, bob)];
        for (const roomId of rooms) await alice.sendTextMessage(roomId, "A sparrow sings");
        const stranger = await register("carol");
        const search = async (client, query) =>
            (await client.searchMessageText({ query })).search_categories.room_events;

        await eventually(async () => assert.equal((await search(bob, "sparrow sings")).count, 2));
        const { results } = await search(bob, "sparrow");
        const ranked = await bob.search({
            body: {
                search_categories: {
                    room_events: { search_term: "sparrow", keys: ["content.body"], order_by: SearchOrderBy.Rank },
                },
            },
        });

        assert.deepEqual(new Set(results.map(({ result }) => result.room_id)), new Set(rooms));
        assert.equal(ranked.search_categories.room_events.results.length, 2);
        assert.equal((await search(stranger, "sparrow")).count, 0);
    },
});
