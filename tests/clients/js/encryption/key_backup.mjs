// All devices of a user are lost; a new one restores old messages with the recovery key.

import assert from "node:assert/strict";
import { Method } from "matrix-js-sdk";
import { eventually, secondUrl } from "../sdk.mjs";
import {
    anotherDevice,
    encryptedRoom,
    knowEachOther,
    newUser,
    setUpKeys,
    shows,
    trusts,
    withPassword,
} from "./devices.mjs";

const MESSAGES = ["one", "two", "three"];

export async function key_backup() {
    const [alice, bob] = [await newUser("alice"), await newUser("bob", secondUrl)];
    const recoveryKey = await setUpKeys(bob);
    const roomId = await encryptedRoom(alice, bob);
    await knowEachOther(alice, bob);
    for (const text of MESSAGES) {
        // Each is under a key of its own.
        await alice.getCrypto().forceDiscardSession(roomId);
        await alice.sendTextMessage(roomId, text);
    }
    await shows(bob, roomId, ...MESSAGES);
    // The client uploads keys within ten seconds.
    await eventually(async () => assert((await kept(bob)) >= MESSAGES.length), 30_000);
    const number = await kept(bob);
    await bob.logout(true);

    const laptop = await anotherDevice(bob, recoveryKey);
    const crypto = laptop.getCrypto();
    assert(await crypto.userHasCrossSigningKeys(bob.getUserId(), true));
    await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: withPassword(laptop) });
    await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
    assert((await crypto.checkKeyBackupAndEnable()).trustInfo.matchesDecryptionKey);
    const { total, imported } = await crypto.restoreKeyBackup();

    assert.deepEqual([total, imported], [number, number]);
    await shows(laptop, roomId, ...MESSAGES);
    await trusts(laptop, laptop);
    await knowEachOther(alice, laptop);
    await alice.sendTextMessage(roomId, "welcome back");
    await shows(laptop, roomId, ...MESSAGES, "welcome back");
}

// The number of keys in the backup, as the server has it.
async function kept(client) {
    return (await client.http.authedRequest(Method.Get, "/room_keys/version")).count;
}
