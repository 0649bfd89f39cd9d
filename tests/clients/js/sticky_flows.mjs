// Sticky events as clients of calls use them: `node sticky_flows.mjs BASE_URL FLOW`.
//
// With a version of the sdk that knows them. A process can have only one, so that nothing of `sdk.mjs`, which
// has another, is used here.

import assert from "node:assert/strict";
import {
    ClientEvent,
    Preset,
    RoomStickyEventsEvent,
    SyncState,
    createClient,
} from "matrix-js-sdk-rtc";
import { logger } from "matrix-js-sdk-rtc/lib/logger.js";

logger.setLevel("error");
const [baseUrl, flowName] = process.argv.slice(2);
const WAIT_MS = 15_000;
const MINUTE_MS = 60_000;
const TYPE = "org.matrix.msc4143.rtc.member";

const flows = {
    // Who is in a call is in the map of all, by the key that they chose, however much was said since.
    async call() {
        const { alice, bob, roomId } = await conversation();
        await started(bob);
        const room = bob.getRoom(roomId);
        const updates = [];
        room.on(RoomStickyEventsEvent.Update, (added, updated) => updates.push(...added, ...updated));

        await join(alice, roomId, "LAPTOP", { call: 1 });
        await join(alice, roomId, "PHONE", { call: 1 });
        await until(() => membersOf(room).length === 2);
        await join(alice, roomId, "PHONE", { call: 2 });
        await until(() => memberOf(room, alice, "PHONE")?.getContent().call === 2);
        for (let number = 0; number < 30; number++) await say(alice, roomId, `${number}`);

        assert(updates.length >= 3);
        const laptop = await another(bob);
        await started(laptop);
        const there = laptop.getRoom(roomId);
        await until(() => membersOf(there).length === 2);
        assert.equal(memberOf(there, alice, "PHONE").getContent().call, 2);
        const event = memberOf(there, alice, "LAPTOP");
        assert.equal(event.unstableStickyInfo.duration_ms, 10 * MINUTE_MS);
        assert(event.unstableStickyExpiresAt > Date.now() + 9 * MINUTE_MS);
        assert(event.unstableStickyExpiresAt <= Date.now() + 10 * MINUTE_MS);
    },

    // A client that disappears leaves the call by an event that it has scheduled.
    async leave() {
        const { alice, bob, roomId } = await conversation();
        await started(bob);
        const room = bob.getRoom(roomId);
        await join(alice, roomId, "PHONE", { call: 1 });
        await until(() => memberOf(room, alice, "PHONE")?.getContent().call === 1);

        const { delay_id: delayId } = await alice._unstable_sendStickyDelayedEvent(
            roomId,
            10 * MINUTE_MS,
            { delay: MINUTE_MS },
            null,
            TYPE,
            { msc4354_sticky_key: "PHONE", left: true },
        );
        await alice._unstable_sendScheduledDelayedEvent(delayId);

        await until(() => memberOf(room, alice, "PHONE")?.getContent().left);
        assert.equal(membersOf(room).length, 1);
    },
};

async function conversation() {
    const [alice, bob] = [await register("alice"), await register("bob")];
    const { room_id: roomId } = await alice.createRoom({ preset: Preset.PublicChat });
    await bob.joinRoom(roomId);
    return { alice, bob, roomId };
}

const clients = [];

async function register(name) {
    const username = `${name}-sticky-${flowName}-${process.pid}`;
    const body = JSON.stringify({ username, password: username, auth: { type: "m.login.dummy" } });
    const response = await fetch(`${baseUrl}/_matrix/client/v3/register`, { method: "POST", body });
    const { user_id: userId, access_token: accessToken, device_id: deviceId } = await response.json();
    return device({ baseUrl, userId, accessToken, deviceId });
}

// A client of the same device that has nothing stored.
function another(client) {
    const [userId, deviceId] = [client.getUserId(), client.getDeviceId()];
    return device({ baseUrl, userId, deviceId, accessToken: client.getAccessToken() });
}

function device(options) {
    const client = createClient(options);
    clients.push(client);
    return client;
}

async function started(client) {
    const prepared = new Promise((resolve) => {
        client.on(ClientEvent.Sync, (state) => state === SyncState.Prepared && resolve());
    });
    await client.startClient({ initialSyncLimit: 10, lazyLoadMembers: true });
    await prepared;
}

function join(client, roomId, key, content) {
    const whole = { ...content, msc4354_sticky_key: key };
    return client._unstable_sendStickyEvent(roomId, 10 * MINUTE_MS, null, TYPE, whole);
}

// The sdk's own way needs a newer Node.
async function say(client, roomId, text) {
    const url = `${baseUrl}/_matrix/client/v3/rooms/${roomId}/send/m.room.message/${text}`;
    const headers = { Authorization: `Bearer ${client.getAccessToken()}` };
    const body = JSON.stringify({ msgtype: "m.text", body: text });
    assert.equal((await fetch(url, { method: "PUT", headers, body })).status, 200);
}

function membersOf(room) {
    return [...room._unstable_getStickyEvents()].filter((event) => event.getType() === TYPE);
}

function memberOf(room, client, key) {
    return membersOf(room).find(
        (event) =>
            event.getSender() === client.getUserId() && event.getContent().msc4354_sticky_key === key,
    );
}

async function until(seen) {
    const deadline = Date.now() + WAIT_MS;
    while (!seen()) {
        if (Date.now() > deadline) throw new Error(`waited in vain for ${seen}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}

if (flowName === "--list") {
    console.log(Object.keys(flows).join("\n"));
} else {
    try {
        await flows[flowName]();
    } catch (error) {
        console.error(error);
        process.exitCode = 1;
    }
    for (const client of clients) client.stopClient();
}
process.exit();
