// Devices that encrypt, with the helpers that all scenarios share.

import assert from "node:assert/strict";
import { LoggerLevel, Tracing } from "@matrix-org/matrix-sdk-crypto-wasm";
import { EventType, Preset } from "matrix-js-sdk";
import {
    CryptoEvent,
    EventShieldColour,
    VerificationPhase,
    VerifierEvent,
} from "matrix-js-sdk/lib/crypto-api/index.js";
import { eventually, logIn, moment, passwordOf, register, started, until } from "../sdk.mjs";

export const UNREADABLE = "(unreadable)";
const UNTOLD = null;
const SYNC_LIMIT = 200; // a shorter timeline may have gaps
const NO_SERVERS = "no servers that are in the room";
const COMPLETION_MS = 15_000;

// The first device of a new user.
export async function newUser(name, url, { fetchFn } = {}) {
    const keeper = { recoveryKey: UNTOLD };
    const options = { ...callbacks(keeper), ...(fetchFn && { fetchFn }) };
    return encrypting(await register(name, url, options), keeper);
}

// A further device of the same user, who may tell it the recovery key.
export async function anotherDevice(first, recoveryKey = UNTOLD) {
    const keeper = { recoveryKey };
    return encrypting(await logIn(first.getUserId(), first.baseUrl, callbacks(keeper)), keeper);
}

// Without IndexedDB all keys are in memory.
async function encrypting(client, keeper) {
    keepers.set(client, keeper);
    await client.initRustCrypto({ useIndexedDB: false });
    new Tracing(LoggerLevel.Error).turnOn();
    await started(client, SYNC_LIMIT);
    return client;
}

const keepers = new WeakMap();

function callbacks(keeper) {
    const getSecretStorageKey = async ({ keys }) =>
        keeper.recoveryKey && [Object.keys(keys)[0], keeper.recoveryKey.privateKey];
    return { cryptoCallbacks: { getSecretStorageKey } };
}

// The network of one device, which can be cut: options for `newUser`.
export function network() {
    const wires = { isCut: false };
    wires.fetchFn = async (resource, options) => {
        if (wires.isCut) throw new TypeError("the network is gone");
        const response = await fetch(resource, options);
        // What was on its way is lost, too.
        if (wires.isCut) throw new TypeError("the network is gone");
        return response;
    };
    return wires;
}

// Creates the keys of a user, as after a first log-in: cross-signing, secret storage, and a backup of the
// keys of messages. Gives the recovery key.
export async function setUpKeys(client) {
    const crypto = client.getCrypto();
    await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: withPassword(client) });
    const recoveryKey = await crypto.createRecoveryKeyFromPassphrase();
    keepers.get(client).recoveryKey = recoveryKey;
    await crypto.bootstrapSecretStorage({
        createSecretStorageKey: async () => recoveryKey,
        setupNewKeyBackup: true,
    });
    keepers.get(client).recoveryKey = UNTOLD;
    return recoveryKey;
}

// Does what the server may want to see the password for.
export function withPassword(client) {
    return async (attempt) => {
        try {
            return await attempt(null);
        } catch (error) {
            if (error.httpStatus !== 401) throw error;
            return attempt({ ...passwordOf(client.getUserId()), session: error.data.session });
        }
    };
}

// A private encrypted room of the users of these devices, as all of them see.
export async function encryptedRoom(owner, ...others) {
    const invited = new Map(others.map((each) => [each.getUserId(), each]).reverse());
    invited.delete(owner.getUserId());
    const { room_id: roomId } = await owner.createRoom({
        is_direct: invited.size === 1,
        preset: Preset.PrivateChat,
        invite: [...invited.keys()],
        initial_state: [
            {
                type: EventType.RoomEncryption,
                state_key: "",
                content: { algorithm: "m.megolm.v1.aes-sha2" },
            },
        ],
    });
    for (const other of invited.values()) await join(other, roomId);
    for (const client of [owner, ...others]) await seesMembers(client, roomId, invited.size + 1);
    return roomId;
}

// Accepts an invite once it has arrived. While the peer completes the state of a room that it has just
// joined, it may not find the invite of another one of its users; the user tries again.
export async function join(client, roomId) {
    await until(() => client.getRoom(roomId)?.getMyMembership() === "invite");
    for (const deadline = Date.now() + COMPLETION_MS; ; await moment()) {
        try {
            return await client.joinRoom(roomId);
        } catch (error) {
            if (!error.message.includes(NO_SERVERS) || Date.now() > deadline) throw error;
        }
    }
}

export async function seesMembers(client, roomId, number) {
    await until(() => {
        const room = client.getRoom(roomId);
        return room?.getMyMembership() === "join" && room.getJoinedMemberCount() === number;
    });
}

// What a device shows of a room: the texts of messages. Behind a gap there is a timeline of its own.
export function readable(client, roomId) {
    return client
        .getRoom(roomId)
        .getUnfilteredTimelineSet()
        .getTimelines()
        .flatMap((timeline) => timeline.getEvents())
        .filter((event) => event.getType() === EventType.RoomMessage || event.isEncrypted())
        .filter((event) => !event.status && event.getContent().msgtype !== "m.key.verification.request")
        .filter((event) => !event.getType().startsWith("m.key.verification."))
        .map((event) => (isRead(event) ? event.getContent().body : UNREADABLE));
}

function isRead(event) {
    return event.isEncrypted() && event.getClearContent() && !event.isDecryptionFailure();
}

// Waits until a device shows exactly these messages.
export async function shows(client, roomId, ...bodies) {
    await eventually(async () =>
        assert.deepEqual(readable(client, roomId), bodies, `at ${nameOf(client)}`),
    );
}

// One after the other sends a message, and all devices show it, after those that are there already.
export async function allTalk(roomId, senders, readers, said = []) {
    for (const sender of senders) {
        said.push(`${said.length}, from ${nameOf(sender)}`);
        await sender.sendTextMessage(roomId, said.at(-1));
        for (const reader of readers) await shows(reader, roomId, ...said);
    }
    return said;
}

export function nameOf(client) {
    return `${client.getUserId()} ${client.getDeviceId()}`;
}

// The ids of a user's devices as another device knows them.
export async function knownDevices(client, userId) {
    const devices = await client.getCrypto().getUserDeviceInfo([userId], true);
    return [...(devices.get(userId)?.keys() ?? [])].sort();
}

// Waits until each of these devices has the keys of all.
export async function knowEachOther(...all) {
    for (const client of all) {
        for (const other of all) {
            await eventually(async () => {
                const known = await knownDevices(client, other.getUserId());
                assert(known.includes(other.getDeviceId()), `${nameOf(client)}: ${known}`);
            });
        }
    }
}

// The next verification that somebody asks of a device.
export function nextRequest(client) {
    return new Promise((resolve) => client.once(CryptoEvent.VerificationRequestReceived, resolve));
}

// Compares emoji, as users do who look at two screens; both requests are of one verification.
export async function compareEmoji(asking, asked) {
    await asked.accept();
    await until(() => asking.phase === VerificationPhase.Ready);
    const verifiers = [await asking.startVerification("m.sas.v1")];
    await until(() => asked.verifier);
    verifiers.push(asked.verifier);
    const done = Promise.all(verifiers.map((verifier) => verifier.verify()));
    const shown = await Promise.race([Promise.all(verifiers.map(emoji)), done]);

    assert.equal(shown[0].sas.emoji.length, 7);
    assert.deepEqual(shown[0].sas.emoji, shown[1].sas.emoji);
    await Promise.all(shown.map((each) => each.confirm()));
    await done;
}

function emoji(verifier) {
    return new Promise((resolve) => {
        verifier.on(VerifierEvent.ShowSas, resolve);
        if (verifier.getShowSasCallbacks()) resolve(verifier.getShowSasCallbacks());
    });
}

// Waits until a device trusts another one through the cross-signing keys of both users.
export async function trusts(client, other) {
    await eventually(async () => {
        const crypto = client.getCrypto();
        const user = await crypto.getUserVerificationStatus(other.getUserId());
        assert(user.isCrossSigningVerified(), `${nameOf(client)}: ${other.getUserId()}`);
        const [userId, deviceId] = [other.getUserId(), other.getDeviceId()];
        const device = await crypto.getDeviceVerificationStatus(userId, deviceId);
        assert(device?.crossSigningVerified, `${nameOf(client)}: ${nameOf(other)}`);
    });
}

// All messages that a device shows are from devices that it trusts.
export async function warnsOfNothing(client, roomId) {
    const events = client.getRoom(roomId).getLiveTimeline().getEvents();
    for (const event of events.filter((each) => each.isEncrypted())) {
        const info = await client.getCrypto().getEncryptionInfoForEvent(event);
        assert.equal(info.shieldColour, EventShieldColour.NONE, JSON.stringify(info));
    }
}
