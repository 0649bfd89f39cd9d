// Changes of messages and rooms: edits, reactions, knocks, upgrades, restarts.

import assert from "node:assert/strict";
import { EventTimeline, EventType, MsgType, Preset, RelationType, SyncState } from "matrix-js-sdk";
import {
    bodyOf,
    directRoom,
    eventually,
    fail,
    logIn,
    messages,
    register,
    seenState,
    started,
    texts,
    until,
} from "./sdk.mjs";

export const flows = {
    // A message is edited: present members and users who join later see the new text.
    async edits() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        await started(bob);

        const { event_id: eventId } = await alice.sendTextMessage(roomId, "helo");
        await alice.sendMessage(roomId, {
            msgtype: MsgType.Text,
            body: "* hello",
            "m.new_content": { msgtype: MsgType.Text, body: "hello" },
            "m.relates_to": { rel_type: RelationType.Replace, event_id: eventId },
        });
        await until(() => bodyOf(bob, roomId, eventId) === "hello");

        for (let number = 0; number < 12; number++) await alice.sendTextMessage(roomId, `${number}`);
        const laptop = await logIn(bob.getUserId());
        await started(laptop);
        await laptop.getEventTimeline(laptop.getRoom(roomId).getUnfilteredTimelineSet(), eventId);
        await until(() => bodyOf(laptop, roomId, eventId) === "hello");
    },

    // A member of a call who disappears leaves it, because the server sends the event that the client
    // had scheduled; a client that is there restarts the delay.
    async calls() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        const levels = await alice.getStateEvent(roomId, EventType.RoomPowerLevels, "");
        const events = { ...levels.events, [EventType.GroupCallMemberPrefix]: 0 };
        await alice.sendStateEvent(roomId, EventType.RoomPowerLevels, { ...levels, events }, "");
        await Promise.all([started(alice), started(bob)]);
        const inCall = () =>
            alice
                .getRoom(roomId)
                .getLiveTimeline()
                .getState(EventTimeline.FORWARDS)
                .getStateEvents(EventType.GroupCallMemberPrefix)
                .filter((event) => event.getSender() === bob.getUserId())
                .filter((event) => Object.keys(event.getContent()).length > 0).length;

        const session = bob.matrixRTC.getRoomSession(bob.getRoom(roomId));
        session.joinRoomSession([{ type: "livekit", livekit_service_url: "https://x.example" }], undefined, {
            useNewMembershipManager: true,
            membershipServerSideExpiryTimeout: 3_000,
            membershipKeepAlivePeriod: 500,
        });
        await until(() => inCall() === 1);
        await new Promise((resolve) => setTimeout(resolve, 4_000));
        assert.equal(inCall(), 1);

        // The network of the client fails: it neither leaves nor restarts the delay.
        bob.http.authedRequest = () => new Promise(() => {});
        bob.stopClient();
        await until(() => inCall() === 0);
    },

    // Events are scheduled, listed, sent and cancelled.
    async delayed_events() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        await started(bob);
        const later = (body) =>
            alice._unstable_sendDelayedEvent(
                roomId,
                { delay: 600_000 },
                null,
                EventType.RoomMessage,
                { msgtype: MsgType.Text, body },
            );

        const { delay_id: first } = await later("first");
        const { delay_id: second } = await later("second");
        const listed = await alice._unstable_getDelayedEvents();
        assert.deepEqual(new Set(listed.scheduled.map((each) => each.delay_id)), new Set([first, second]));
        await alice._unstable_updateDelayedEvent(first, "cancel");
        await alice._unstable_updateDelayedEvent(second, "restart");
        await alice._unstable_updateDelayedEvent(second, "send");

        await until(() => texts(bob, roomId).includes("second"));
        assert(!texts(bob, roomId).includes("first"));
    },

    // A message is redacted with its edits, where the sdk finds the flag of the proposal.
    async related_redactions() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        await started(alice);
        const { event_id: eventId } = await alice.sendTextMessage(roomId, "helo");
        const { event_id: editId } = await alice.sendMessage(roomId, {
            msgtype: MsgType.Text,
            body: "* hello",
            "m.new_content": { msgtype: MsgType.Text, body: "hello" },
            "m.relates_to": { rel_type: RelationType.Replace, event_id: eventId },
        });

        await alice.redactEvent(roomId, eventId, undefined, { with_rel_types: [RelationType.Replace] });

        const edit = await alice.fetchRoomEvent(roomId, editId);
        assert(edit.unsigned.redacted_because);
    },

    // Reactions are counted, each of a user once, and can be redacted.
    async reactions() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        await Promise.all([started(alice), started(bob)]);
        const { event_id: eventId } = await alice.sendTextMessage(roomId, "cake?");
        const reaction = {
            "m.relates_to": { rel_type: RelationType.Annotation, event_id: eventId, key: "👍" },
        };
        const counted = () =>
            alice
                .getRoom(roomId)
                .relations.getChildEventsForEvent(eventId, RelationType.Annotation, EventType.Reaction)
                ?.getSortedAnnotationsByKey()
                ?.map(([key, events]) => [key, events.size]) ?? [];

        const { event_id: reactionId } = await bob.sendEvent(roomId, EventType.Reaction, reaction);
        await until(() => counted().length === 1);
        assert.deepEqual(counted(), [["👍", 1]]);
        const twice = bob.sendEvent(roomId, EventType.Reaction, reaction);
        await assert.rejects(twice, (error) => error.errcode === "M_DUPLICATE_ANNOTATION");
        await bob.redactEvent(roomId, reactionId);

        await until(() => counted().every(([, count]) => count === 0));
    },

    // A reply names the message that it replies to.
    async replies() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        await Promise.all([started(alice), started(bob)]);
        const { event_id: question } = await alice.sendTextMessage(roomId, "tea?");

        const { event_id: reply } = await bob.sendMessage(roomId, {
            msgtype: MsgType.Text,
            body: "yes",
            "m.mentions": { user_ids: [alice.getUserId()] },
            "m.relates_to": { "m.in_reply_to": { event_id: question } },
        });
        const room = alice.getRoom(roomId);
        await until(() => room.findEventById(reply));

        assert.equal(room.findEventById(reply).replyEventId, question);
        await until(() => room.getUnreadNotificationCount("highlight") === 1);
    },

    // A redacted message is gone, for other users and after a restart of the client.
    async redactions() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        await started(bob);
        const { event_id: eventId } = await alice.sendTextMessage(roomId, "regret");
        await until(() => bob.getRoom(roomId).findEventById(eventId));

        await alice.redactEvent(roomId, eventId, undefined, { reason: "typo" });
        await until(() => bob.getRoom(roomId).findEventById(eventId).isRedacted());

        const laptop = await logIn(bob.getUserId());
        await started(laptop);
        const event = laptop.getRoom(roomId).findEventById(eventId);
        assert(event.isRedacted());
        assert.deepEqual(event.getContent(), {});
        assert.equal(event.getRedactionEvent().content.reason, "typo");
    },

    // A user who knocks is invited and can join.
    async knocks() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const { room_id: roomId } = await alice.createRoom({
            name: "Club",
            initial_state: [{ type: "m.room.join_rules", content: { join_rule: "knock" } }],
        });
        await Promise.all([started(alice), started(bob)]);
        await assert.rejects(bob.joinRoom(roomId), (error) => error.errcode === "M_FORBIDDEN");

        await bob.knockRoom(roomId, { reason: "It is me" });
        const guest = () => alice.getRoom(roomId).getMember(bob.getUserId());
        await until(() => guest()?.membership === "knock");
        assert.equal(guest().events.member.getContent().reason, "It is me");
        await until(() => bob.getRoom(roomId)?.getMyMembership() === "knock");
        assert.equal(bob.getRoom(roomId).name, "Club");
        await alice.invite(roomId, bob.getUserId());
        await until(() => bob.getRoom(roomId).getMyMembership() === "invite");
        await bob.joinRoom(roomId);

        await until(() => guest().membership === "join");
    },

    // A new name and picture are shown in all rooms of the user.
    async profiles() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        await started(alice);
        const member = () => alice.getRoom(roomId).getMember(bob.getUserId());

        await bob.setDisplayName("Bobby");
        await bob.setAvatarUrl("mxc://example.org/bobby");
        await until(() => member()?.name === "Bobby" && member().getMxcAvatarUrl());

        assert.equal(member().getMxcAvatarUrl(), "mxc://example.org/bobby");
        const profile = await alice.getProfileInfo(bob.getUserId());
        assert.deepEqual(profile, { displayname: "Bobby", avatar_url: "mxc://example.org/bobby" });
        await bob.setExtendedProfileProperty("m.tz", "Europe/London");
        assert.equal(await alice.getExtendedProfileProperty(bob.getUserId(), "m.tz"), "Europe/London");
    },

    // A room is upgraded, and its members follow.
    async upgrade() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const { room_id: oldId } = await alice.createRoom({
            preset: Preset.PublicChat,
            name: "Tea",
            room_version: "10",
        });
        await bob.joinRoom(oldId);
        await started(bob);
        await bob.setRoomTag(oldId, "u.work", { order: 0.5 });

        const { replacement_room: newId } = await alice.upgradeRoom(oldId, "12");
        const state = () => bob.getRoom(oldId).currentState;
        await until(() => state().getStateEvents(EventType.RoomTombstone, ""));
        const tombstone = state().getStateEvents(EventType.RoomTombstone, "");
        assert.equal(tombstone.getContent().replacement_room, newId);
        await bob.joinRoom(newId);
        await until(() => bob.getRoom(newId)?.getMyMembership() === "join");

        const room = bob.getRoom(newId);
        assert.equal(room.findPredecessor().roomId, oldId);
        assert.equal(room.name, "Tea");
        assert.equal(room.getVersion(), "12");
        await until(() => room.tags["u.work"]);
        assert(!bob.getVisibleRooms().some((visible) => visible.roomId === oldId));
    },

    // Tags of rooms and read markers apply to all devices.
    async tags_and_markers() {
        const [alice, phone] = [await register("alice"), await register("bob")];
        const laptop = await logIn(phone.getUserId());
        const roomId = await directRoom(alice, phone);
        await Promise.all([started(phone), started(laptop)]);
        const { event_id: eventId } = await alice.sendTextMessage(roomId, "read me");
        const room = laptop.getRoom(roomId);
        await until(() => room.getUnreadNotificationCount("total") > 0);

        await phone.setRoomTag(roomId, "m.favourite", { order: 0.25 });
        await until(() => room.tags["m.favourite"]);
        await until(() => phone.getRoom(roomId).findEventById(eventId));
        const event = phone.getRoom(roomId).findEventById(eventId);
        await phone.setRoomReadMarkers(roomId, eventId, event);
        await until(() => room.getAccountData("m.fully_read")?.getContent().event_id === eventId);
        await until(() => room.getUnreadNotificationCount("total") === 0);
        await phone.deleteRoomTag(roomId, "m.favourite");

        await until(() => !room.tags["m.favourite"]);
    },

    // Events of an ignored user are not shown, but the room stays usable.
    async ignoring() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        await started(bob);
        const heard = messages(bob, roomId);
        await bob.setIgnoredUsers([alice.getUserId()]);
        await until(() => bob.isUserIgnored(alice.getUserId()));

        await alice.sendTextMessage(roomId, "unheard");
        await alice.setRoomName(roomId, "Seen");
        await until(() => bob.getRoom(roomId).name === "Seen");
        const { room_id: other } = await alice.createRoom({ invite: [bob.getUserId()] });
        await bob.setIgnoredUsers([]);
        await alice.sendTextMessage(roomId, "heard again");
        await until(() => heard.length > 0);

        assert.deepEqual(heard, ["heard again"]);
        assert.equal(bob.getRoom(other), null);
    },

    // Scrolling up ends where the room begins, and members are loaded only as they are needed.
    async scroll_to_start() {
        const owner = await register("owner");
        const { room_id: roomId } = await owner.createRoom({ preset: Preset.PublicChat, name: "Tea" });
        const quiet = await register("quiet");
        const reader = await register("reader");
        await quiet.joinRoom(roomId);
        await reader.joinRoom(roomId);
        for (let number = 0; number < 40; number++) await owner.sendTextMessage(roomId, `${number}`);
        await started(reader);
        const room = reader.getRoom(roomId);
        assert.equal(room.getMember(quiet.getUserId()), null);
        assert.equal(room.getJoinedMemberCount(), 3);

        const timeline = room.getLiveTimeline();
        while (timeline.getPaginationToken(EventTimeline.BACKWARDS)) {
            await reader.paginateEventTimeline(timeline, { backwards: true, limit: 7 });
        }

        assert.equal(timeline.getEvents()[0].getType(), EventType.RoomCreate);
        assert.deepEqual(texts(reader, roomId), Array.from({ length: 40 }, (_, number) => `${number}`));
        await room.loadMembersIfNeeded();
        assert.equal(room.getMember(quiet.getUserId()).membership, "join");
    },

    // The server restarts: the flow prints `ready` before, and continues by itself.
    async reconnecting() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        await started(bob);
        const heard = messages(bob, roomId);
        await alice.sendTextMessage(roomId, "before");
        await until(() => heard.length === 1);
        const lost = seenState(bob, [SyncState.Reconnecting, SyncState.Error]);

        console.log("ready");
        await Promise.race([lost, fail("the connection to break")]);
        await eventually(() => alice.sendTextMessage(roomId, "after"));
        bob.retryImmediately();
        await until(() => heard.length === 2);

        assert.deepEqual(heard, ["before", "after"]);
        assert.deepEqual(texts(bob, roomId), ["before", "after"]);
    },
};
