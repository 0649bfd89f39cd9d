// Everyday flows with matrix-js-sdk: `node flows.mjs BASE_URL FLOW`.
//
// Each flow registers its own accounts, asserts what a user would see, and ends with exit status 0.
// No encryption: that needs key endpoints and has tests of its own.

import assert from "node:assert/strict";
import { Preset, ReceiptType, RoomMemberEvent, UserEvent, createClient } from "matrix-js-sdk";
import { flows as roomFlows } from "./room_flows.mjs";
import {
    baseUrl,
    directRoom,
    logIn,
    messages,
    register,
    runFlow,
    started,
    texts,
    until,
} from "./sdk.mjs";

const flows = {
    // The sdk refuses servers whose versions it does not know, and lists how one can log in.
    async log_in() {
        const first = await register("alice");
        const { user_id: userId } = await first.whoami();
        await first.logout(true);

        const anonymous = createClient({ baseUrl });
        const { flows: offered } = await anonymous.loginFlows();
        assert(offered.some((flow) => flow.type === "m.login.password"));
        const again = await logIn(userId);

        assert.equal((await again.whoami()).user_id, userId);
        await started(again);
    },

    // A picture is uploaded, shown in small, and downloaded, with the authenticated endpoints.
    async pictures() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const content = new Uint8Array(200_000).map((_, index) => index % 251);
        const { content_uri: uri } = await alice.uploadContent(new Blob([content]), {
            name: "Grüße.bin",
            type: "application/octet-stream",
        });
        const { "m.upload.size": limit } = await alice.getMediaConfig(true);
        const headers = { Authorization: `Bearer ${bob.getAccessToken()}` };

        const url = bob.mxcUrlToHttp(uri, undefined, undefined, undefined, false, true, true);
        const small = bob.mxcUrlToHttp(uri, 96, 96, "crop", false, true, true);
        const [whole, thumbnail, stranger] = await Promise.all([
            fetch(url, { headers }),
            fetch(small, { headers }),
            fetch(url),
        ]);

        assert.equal(limit, 100 * 1024 * 1024);
        assert.deepEqual(new Uint8Array(await whole.arrayBuffer()), content);
        assert.match(whole.headers.get("Content-Disposition"), /^attachment; filename\*=utf-8''Gr%C3/);
        assert.equal(thumbnail.status, 400);
        assert.equal(stranger.status, 401);
    },

    // Two users talk, and each receives the messages of the other in order.
    async chat() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        await Promise.all([started(alice), started(bob)]);
        const heard = messages(bob, roomId);

        for (const text of ["hi", "how are you?", "🙂"]) await alice.sendTextMessage(roomId, text);
        await until(() => heard.length === 3);

        assert.deepEqual(heard, ["hi", "how are you?", "🙂"]);
        // The local echo was replaced by the event that came back, by its transaction id.
        await until(() => texts(alice, roomId).length === 3);
        assert.deepEqual(texts(alice, roomId), ["hi", "how are you?", "🙂"]);
    },

    // An invited user sees the inviter, and can decline.
    async invites() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        await Promise.all([started(alice), started(bob)]);

        const { room_id: roomId } = await alice.createRoom({ name: "Tea", invite: [bob.getUserId()] });
        await until(() => bob.getRoom(roomId)?.getMyMembership() === "invite");
        assert.equal(bob.getRoom(roomId).getDMInviter() ?? alice.getUserId(), alice.getUserId());
        assert.equal(bob.getRoom(roomId).name, "Tea");

        await bob.leave(roomId);
        await until(() => alice.getRoom(roomId)?.getMember(bob.getUserId())?.membership === "leave");
    },

    // In a group of everyday size one member writes and the others receive it; members are loaded lazily.
    async group() {
        const owner = await register("owner");
        const { room_id: roomId } = await owner.createRoom({ preset: Preset.PublicChat });
        const members = [];
        for (let number = 1; number < 100; number++) members.push(await register("member"));
        for (const member of members) await member.joinRoom(roomId);
        const readers = members.slice(0, 5);
        await Promise.all(readers.map(started));
        const inboxes = readers.map((reader) => messages(reader, roomId));

        await owner.sendTextMessage(roomId, "to all of you");
        await until(() => inboxes.every((inbox) => inbox.length === 1));

        const room = readers[0].getRoom(roomId);
        await room.loadMembersIfNeeded();
        assert.equal(room.getJoinedMembers().length, 100);
        assert.equal(room.getJoinedMemberCount(), 100);
    },

    // The other user sees when typing begins, and when it ends.
    async typing() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        await started(bob);
        const seen = [];
        bob.on(RoomMemberEvent.Typing, (_event, member) => {
            if (member.userId === alice.getUserId()) seen.push(member.typing);
        });

        await alice.sendTyping(roomId, true, 20_000);
        await until(() => seen.at(-1) === true);
        await alice.sendTyping(roomId, false, 0);
        await until(() => seen.at(-1) === false);

        assert.deepEqual(seen, [true, false]);
    },

    // The sender learns that the message was read.
    async receipts() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        await Promise.all([started(alice), started(bob)]);

        const { event_id: eventId } = await alice.sendTextMessage(roomId, "read me");
        await until(() => bob.getRoom(roomId).findEventById(eventId));
        const event = bob.getRoom(roomId).findEventById(eventId);
        await bob.sendReceipt(event, ReceiptType.Read);

        await until(() => alice.getRoom(roomId).hasUserReadEvent(bob.getUserId(), eventId));
    },

    // Users in a shared room see the status message of a user.
    async presence() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        await directRoom(alice, bob);
        await started(bob);
        const seen = [];
        bob.on(UserEvent.Presence, (_event, user) => {
            if (user.userId === alice.getUserId()) seen.push([user.presence, user.presenceStatusMsg]);
        });

        await alice.setPresence({ presence: "unavailable", status_msg: "at lunch" });
        await until(() => seen.some(([state, text]) => state === "unavailable" && text === "at lunch"));
    },

    // Phone and laptop of one user show the same conversation and share account data.
    async devices() {
        const [alice, phone] = [await register("alice"), await register("bob")];
        const laptop = await logIn(phone.getUserId());
        const roomId = await directRoom(alice, phone);
        await Promise.all([started(phone), started(laptop)]);
        const inboxes = [messages(phone, roomId), messages(laptop, roomId)];

        await alice.sendTextMessage(roomId, "from alice");
        await phone.sendTextMessage(roomId, "from the phone");
        await until(() => inboxes.every((inbox) => inbox.includes("from the phone")));
        await phone.setAccountData("org.example.theme", { dark: true });
        await until(() => laptop.getAccountData("org.example.theme"));

        assert.deepEqual(inboxes[1], ["from alice", "from the phone"]);
        assert.deepEqual(laptop.getAccountData("org.example.theme").getContent(), { dark: true });
        assert.equal((await phone.getDevices()).devices.length, 2);
    },

    // Settings pages open where there are no pushers and no bridges.
    async settings() {
        const alice = await register("alice");

        assert.deepEqual((await alice.getPushers()).pushers, []);
        assert.deepEqual(await alice.getThirdpartyProtocols(), {});
        assert.deepEqual((await alice.getThreePids()).threepids, []);
    },

    // Scrolling up in a room whose whole timeline was loaded shows nothing twice, and ends.
    async scroll_short() {
        const alice = await register("alice");
        const { room_id: roomId } = await alice.createRoom({});
        await alice.sendTextMessage(roomId, "hello");
        await started(alice);

        const room = alice.getRoom(roomId);
        while (room.oldState.paginationToken) await alice.scrollback(room, 20);

        assert.deepEqual(texts(alice, roomId), ["hello"]);
    },

    // Scrolling up shows messages from before this device logged in.
    async scroll_back() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        for (let number = 0; number < 40; number++) await alice.sendTextMessage(roomId, `${number}`);
        await started(bob);
        const room = bob.getRoom(roomId);

        while (!texts(bob, roomId).includes("0")) {
            const before = room.getLiveTimeline().getEvents().length;
            await bob.scrollback(room, 15);
            assert(room.getLiveTimeline().getEvents().length > before, "the history ended early");
        }

        assert.deepEqual(texts(bob, roomId), Array.from({ length: 40 }, (_, number) => `${number}`));
    },

    ...roomFlows,
};

await runFlow(flows);
