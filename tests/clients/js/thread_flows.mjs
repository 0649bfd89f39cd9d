// Threads as Element Web shows them: `node thread_flows.mjs BASE_URL FLOW`.

import assert from "node:assert/strict";
import { EventType, MsgType, NotificationCountType, RelationType } from "matrix-js-sdk";
import { bodyOf, directRoom, logIn, register, runFlow, started, texts, until } from "./sdk.mjs";

const REPLIES = 45;

await runFlow({
    // The panel of threads lists them with their last messages, and an opened one scrolls to its start.
    async panel() {
        const { alice, roomId, rootId } = await conversation();
        await started(alice, 10, { threadSupport: true });

        const room = alice.getRoom(roomId);
        await room.createThreadsTimelineSets();
        await room.fetchRoomThreads();
        const thread = room.getThread(rootId);
        await until(() => thread.initialEventsFetched);
        while (await alice.paginateEventTimeline(thread.liveTimeline, { backwards: true, limit: 20 }));

        assert.deepEqual(room.getThreads().map(({ id }) => id), [rootId]);
        assert.equal(thread.length, REPLIES);
        assert.equal(thread.replyToEvent.getContent().body, `${REPLIES - 1}`);
        const bodies = thread.events.map((event) => event.getContent().body);
        assert.deepEqual(bodies, ["root", ...Array.from({ length: REPLIES }, (_, number) => `${number}`)]);
        assert(!texts(alice, roomId).includes("3"), "a reply in a thread is in the main timeline");
    },

    // New messages of a thread are counted apart from the room's, until they are read there.
    async unread() {
        const { alice, bob, roomId, rootId } = await conversation(1);
        await Promise.all([alice, bob].map((each) => started(each, 10, { threadSupport: true })));
        const room = alice.getRoom(roomId);
        const ofThread = () => room.getThreadUnreadNotificationCount(rootId, NotificationCountType.Total);
        const ofRoom = () => room.getRoomUnreadNotificationCount(NotificationCountType.Total);
        await until(() => ofThread() === 1);

        const { event_id: eventId } = await reply(bob, roomId, rootId, "another");
        await bob.sendTextMessage(roomId, "in the room");
        await until(() => ofThread() === 2 && ofRoom() === 1);
        await until(() => room.getThread(rootId)?.findEventById(eventId));
        await alice.sendReadReceipt(room.getThread(rootId).findEventById(eventId));

        // Another device has the server's counts, not those that the sdk counted by itself.
        const laptop = await logIn(alice.getUserId());
        await started(laptop, 10, { threadSupport: true });
        const there = laptop.getRoom(roomId);
        await until(() => there.getRoomUnreadNotificationCount(NotificationCountType.Total) === 1);
        assert.equal(there.getThreadUnreadNotificationCount(rootId, NotificationCountType.Total), 0);
    },

    // Edits and reactions within a thread belong to the messages of the thread.
    async changes() {
        const { alice, bob, roomId, rootId } = await conversation(2);
        await started(alice, 10, { threadSupport: true });
        const room = alice.getRoom(roomId);
        const { event_id: eventId } = await reply(bob, roomId, rootId, "helo");
        await until(() => room.getThread(rootId)?.findEventById(eventId));

        await bob.sendMessage(roomId, {
            msgtype: MsgType.Text,
            body: "* hello",
            "m.new_content": { msgtype: MsgType.Text, body: "hello" },
            "m.relates_to": { rel_type: RelationType.Replace, event_id: eventId },
        });
        await bob.sendEvent(roomId, EventType.Reaction, {
            "m.relates_to": { rel_type: RelationType.Annotation, event_id: eventId, key: "👍" },
        });

        await until(() => bodyOf(alice, roomId, eventId) === "hello");
        const reactions = () =>
            room.getThread(rootId).timelineSet.relations.getChildEventsForEvent(
                eventId,
                RelationType.Annotation,
                EventType.Reaction,
            );
        await until(() => reactions()?.getRelations().length === 1);
        assert.equal(room.getThread(rootId).length, 3);
    },
});

// A room with a thread that bob writes in.
async function conversation(replies = REPLIES) {
    const [alice, bob] = [await register("alice"), await register("bob")];
    const roomId = await directRoom(alice, bob);
    const { event_id: rootId } = await alice.sendTextMessage(roomId, "root");
    for (let number = 0; number < replies; number++) await reply(bob, roomId, rootId, `${number}`);
    return { alice, bob, roomId, rootId };
}

function reply(client, roomId, rootId, body) {
    return client.sendMessage(roomId, {
        msgtype: MsgType.Text,
        body,
        "m.relates_to": {
            rel_type: RelationType.Thread,
            event_id: rootId,
            is_falling_back: true,
            "m.in_reply_to": { event_id: rootId },
        },
    });
}
