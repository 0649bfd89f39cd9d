// Clients made with matrix-js-sdk, with helpers for their most frequent actions.

import assert from "node:assert/strict";
import {
    ClientEvent,
    EventType,
    MsgType,
    Preset,
    RoomEvent,
    SyncState,
    createClient,
} from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";

logger.setLevel("error");
// Some flows have users of two servers.
export const [baseUrl, flowName, secondUrl = baseUrl] = process.argv.slice(2);
const WAIT_MS = 15_000;
export const clients = [];
let accounts = 0;

// Registers with the dummy stage, as a client does: ask for the flows, then complete one.
export async function register(name, url = baseUrl, options = {}) {
    const username = `${name}-${flowName.replaceAll("_", "-")}-${process.pid}-${++accounts}`;
    const anonymous = createClient({ baseUrl: url });
    let session;
    try {
        await anonymous.registerRequest({ username, password: username });
    } catch (error) {
        assert.equal(error.httpStatus, 401, `${error}`);
        session = error.data.session;
    }
    const auth = { type: "m.login.dummy", session };
    const registered = await anonymous.registerRequest({ username, password: username, auth });
    return device(registered, url, options);
}

export async function logIn(userId, url = baseUrl, options = {}) {
    const session = await createClient({ baseUrl: url }).loginRequest(passwordOf(userId));
    return device(session, url, options);
}

// What proves that one is this user, at log-in and where the server asks once more.
export function passwordOf(userId) {
    return {
        type: "m.login.password",
        identifier: { type: "m.id.user", user: userId },
        password: userId.slice(1).split(":")[0],
    };
}

function device({ user_id: userId, access_token: accessToken, device_id: deviceId }, url, options) {
    const client = createClient({
        baseUrl: url,
        userId,
        accessToken,
        deviceId,
        timelineSupport: true,
        ...options,
    });
    clients.push(client);
    return client;
}

export async function directRoom(one, other) {
    const { room_id: roomId } = await one.createRoom({
        is_direct: true,
        preset: Preset.TrustedPrivateChat,
        invite: [other.getUserId()],
    });
    await other.joinRoom(roomId);
    return roomId;
}

export async function started(client, initialSyncLimit = 10, options = {}) {
    const prepared = new Promise((resolve) => {
        client.on(ClientEvent.Sync, (state) => state === SyncState.Prepared && resolve());
    });
    await client.startClient({ initialSyncLimit, lazyLoadMembers: true, ...options });
    await Promise.race([prepared, fail("the first sync")]);
}

// A list that grows with each message of a room that the client receives from others or itself.
export function messages(client, roomId) {
    const found = [];
    client.on(RoomEvent.Timeline, (event, room, toStart, _removed, data) => {
        const live = data.liveEvent && !toStart && !event.status;
        if (live && room.roomId === roomId && event.getType() === EventType.RoomMessage) {
            assert.equal(event.getContent().msgtype, MsgType.Text);
            found.push(event.getContent().body);
        }
    });
    client.on(RoomEvent.LocalEchoUpdated, (event, room, _oldId, oldStatus) => {
        if (oldStatus && !event.status && room.roomId === roomId) found.push(event.getContent().body);
    });
    return found;
}

export function texts(client, roomId) {
    return client
        .getRoom(roomId)
        .getLiveTimeline()
        .getEvents()
        .filter((event) => event.getType() === EventType.RoomMessage && !event.status)
        .map((event) => event.getContent().body);
}

export function bodyOf(client, roomId, eventId) {
    return client.getRoom(roomId).findEventById(eventId)?.getContent().body;
}

// Resolves when syncing has come to one of these states.
export function seenState(client, states) {
    return new Promise((resolve) => {
        client.on(ClientEvent.Sync, (state) => states.includes(state) && resolve());
    });
}

// Tries until it works, as a user would.
export async function eventually(attempt, waitMs = WAIT_MS) {
    for (const deadline = Date.now() + waitMs; ; ) {
        try {
            return await attempt();
        } catch (error) {
            if (Date.now() > deadline) throw error;
            await moment();
        }
    }
}

// The pause between two attempts.
export const moment = () => new Promise((resolve) => setTimeout(resolve, 100));

export async function until(seen) {
    const deadline = Date.now() + WAIT_MS;
    while (!seen()) {
        if (Date.now() > deadline) throw new Error(`waited in vain for ${seen}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}

export async function fail(what) {
    await new Promise((resolve) => setTimeout(resolve, WAIT_MS).unref());
    throw new Error(`waited in vain for ${what}`);
}

// Runs the flow that the command line names, and ends the process; `--list` prints the names of all.
export async function runFlow(flows) {
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
        process.exit();
    }
}
