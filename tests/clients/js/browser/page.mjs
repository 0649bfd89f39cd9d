// A page with matrix-js-sdk as Element Web has it: keys in IndexedDB, requests to another origin.
//
// The address names the server and the user to talk to. At first the page registers an account, makes an
// encrypted room and talks; then it loads itself again, and continues with what the browser kept. It
// posts what it shows to `/result`, or `{error}`.

import { ClientEvent, Preset, SyncState, createClient } from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";

const WAIT_MS = 60_000;
const { server, name, other } = Object.fromEntries(new URLSearchParams(location.search));
const kept = JSON.parse(sessionStorage.getItem("kept"));

try {
    logger.setLevel("warn");
    await (kept ? afterReload(kept) : atFirst());
} catch (error) {
    await post({ error: `${error.stack ?? error}` });
}

async function atFirst() {
    const auth = { type: "m.login.dummy" };
    const account = await createClient({ baseUrl: server }).registerRequest({
        username: name,
        password: name,
        auth,
    });
    const client = await started(account);
    const { room_id: roomId } = await client.createRoom({
        preset: Preset.PrivateChat,
        invite: [other],
        initial_state: [
            {
                type: "m.room.encryption",
                state_key: "",
                content: { algorithm: "m.megolm.v1.aes-sha2" },
            },
        ],
    });
    await until(() => client.getRoom(roomId)?.getJoinedMemberCount() === 2);
    await client.sendTextMessage(roomId, "from the browser");
    await until(() => texts(client, roomId).includes("to the browser"));
    sessionStorage.setItem("kept", JSON.stringify({ account, roomId }));
    location.reload();
}

async function afterReload({ account, roomId }) {
    const client = await started(account);
    await until(() => texts(client, roomId).includes("to the browser"));
    await client.sendTextMessage(roomId, "after a reload");
    await until(() => texts(client, roomId).includes("after a reload"));
    await post({ texts: texts(client, roomId), device: client.getDeviceId() });
}

async function started({ user_id: userId, access_token: accessToken, device_id: deviceId }) {
    const client = createClient({ baseUrl: server, userId, accessToken, deviceId });
    await client.initRustCrypto();
    const prepared = new Promise((resolve) =>
        client.on(ClientEvent.Sync, (state) => state === SyncState.Prepared && resolve()),
    );
    await client.startClient({ lazyLoadMembers: true });
    await prepared;
    return client;
}

function texts(client, roomId) {
    return client
        .getRoom(roomId)
        .getLiveTimeline()
        .getEvents()
        .filter((event) => event.isEncrypted() && !event.status)
        .map((event) => (event.isDecryptionFailure() ? "(unreadable)" : event.getContent().body));
}

async function until(seen) {
    for (const deadline = Date.now() + WAIT_MS; !seen(); ) {
        if (Date.now() > deadline) throw new Error(`waited in vain for ${seen}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
}

async function post(result) {
    await fetch("/result", { method: "POST", body: JSON.stringify(result) });
}
