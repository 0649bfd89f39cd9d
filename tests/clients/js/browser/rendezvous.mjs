// A page on which two devices meet by a QR code, as in Element Web: requests to another origin.
//
// The address names the server. Both devices are in this page; each has a rendezvous session and a
// secure channel of matrix-js-sdk. What they say to each other is posted to `/result`, or `{error}`.

import { QrCodeData, QrCodeMode, initAsync } from "@matrix-org/matrix-sdk-crypto-wasm";
import { createClient } from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";
import { MSC4108SecureChannel } from "matrix-js-sdk/lib/rendezvous/channels/index.js";
import { MSC4108RendezvousSession } from "matrix-js-sdk/lib/rendezvous/transports/index.js";

const { server } = Object.fromEntries(new URLSearchParams(location.search));

try {
    logger.setLevel("warn");
    await post(await meet());
} catch (error) {
    await post({ error: `${error.stack ?? error}` });
}

async function meet() {
    await initAsync();
    const session = new MSC4108RendezvousSession({ client: createClient({ baseUrl: server }) });
    await session.send("");
    const shown = new MSC4108SecureChannel(session);
    const code = QrCodeData.fromBytes(await shown.generateCode(QrCodeMode.Reciprocate, server));
    const other = new MSC4108RendezvousSession({ url: code.rendezvousUrl });
    const scanned = new MSC4108SecureChannel(other, code.publicKey);

    await Promise.all([shown.connect(), scanned.connect()]);
    const sameCheckCode = shown.getCheckCode() === scanned.getCheckCode();
    const heard = [];
    for (const [from, to] of [
        [shown, scanned],
        [scanned, shown],
        [shown, scanned],
    ]) {
        await from.secureSend({ type: `message ${heard.length}` });
        heard.push((await to.secureReceive()).type);
    }

    const late = await fetch(code.rendezvousUrl, {
        method: "PUT",
        headers: { "Content-Type": "text/plain", "If-Match": '"0"' },
        body: "late",
    });
    const { errcode } = await late.json();
    // Closed by one device, so that the other one sees it; one more is left open.
    await shown.close();
    const ended = (await scanned.secureReceive()) === undefined && other.cancelled;
    const left = new MSC4108RendezvousSession({ client: createClient({ baseUrl: server }) });
    await left.send("<h1>Sign in</h1>");
    return { sameCheckCode, heard, late: [late.status, errcode], ended, left: left.url };
}

async function post(result) {
    await fetch("/result", { method: "POST", body: JSON.stringify(result) });
}
