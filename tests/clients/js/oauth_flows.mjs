// A program that signs in by the OAuth 2.0 API with matrix-js-sdk, without knowing the user's password.
//
// It prints the addresses that its user has to open, one a line, and "ok" in the end. The first is
// that of the authorisation code grant, which returns to a port of this machine; the second that of
// the device authorisation grant.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createClient } from "matrix-js-sdk-rtc";
import { OAuth2 } from "matrix-js-sdk-rtc/lib/oauth/index.js";
import { logger } from "matrix-js-sdk-rtc/lib/logger.js";

// The library is made for Node 22.
Promise.withResolvers ??= function () {
    const made = {};
    made.promise = new this((resolve, reject) => Object.assign(made, { resolve, reject }));
    return made;
};
logger.setLevel("error");
const [baseUrl] = process.argv.slice(2);
const REDIRECT_URI = "http://127.0.0.1/callback";
const STATE = "a state & more";

const metadata = await createClient({ baseUrl }).getAuthMetadata();
const clientId = await OAuth2.registerClient(metadata, {
    application_type: "native",
    client_name: "Messages for desktops",
    client_uri: "https://messages.example/",
    tos_uri: "https://messages.example/terms",
    policy_uri: "https://elsewhere.example/policy", // left out by the library
    redirect_uris: [REDIRECT_URI],
});

await signInWithCode();
await signInFromAnotherDevice();
console.log("ok");

async function signInWithCode() {
    const auth = new OAuth2(metadata, { clientId });
    const { port, callback, close } = await listen();
    const redirectUri = REDIRECT_URI.replace("127.0.0.1", `127.0.0.1:${port}`);
    console.log(await auth.generateAuthorizationCodeGrantUrl(STATE, redirectUri, "query"));
    const outcome = await callback;
    close();
    assert.equal(outcome.get("state"), STATE);
    assert.equal(outcome.get("iss"), metadata.issuer);
    const tokens = await auth.completeAuthorizationCodeGrant(outcome.get("code"), redirectUri);

    const { client, latest } = await signedIn(auth, tokens);
    const { device_id: deviceId } = await client.whoami();
    assert.equal(deviceId, auth.context.deviceId);
    const { room_id: roomId } = await client.createRoom({});
    await client.sendTextMessage(roomId, "hello");
    await refreshed(client, latest);
    await client.sendTextMessage(roomId, "hello again");

    await client.logout();
    const ended = createClient({ baseUrl, accessToken: latest().accessToken });
    await assert.rejects(ended.whoami(), { errcode: "M_UNKNOWN_TOKEN" });
    await assert.rejects(auth.performRefreshTokenGrant(latest().refreshToken));
}

async function signInFromAnotherDevice() {
    const auth = new OAuth2(metadata, { clientId });
    const session = await auth.startDeviceAuthorizationGrant();
    console.log(session.verification_uri_complete);
    const tokens = await auth.waitForDeviceAuthorizationGrant(session);
    assert.equal(tokens.error, undefined);

    const { client } = await signedIn(auth, tokens);
    assert.equal((await client.whoami()).device_id, auth.context.deviceId);
    await auth.revokeToken(tokens.access_token, "access_token");
    await assert.rejects(client.whoami(), { errcode: "M_UNKNOWN_TOKEN" });
}

// A client with these tokens, and those that it has after it refreshed them.
async function signedIn(auth, tokens) {
    let current = { accessToken: tokens.access_token, refreshToken: tokens.refresh_token };
    const { user_id: userId } = await createClient({ baseUrl, accessToken: tokens.access_token }).whoami();
    const client = createClient({
        baseUrl,
        userId,
        deviceId: auth.context.deviceId,
        ...current,
        oauthClientId: clientId,
        onTokenRefresh: (next) => (current = next),
    });
    return { client, latest: () => current };
}

// The library refreshes a token when it is refused.
async function refreshed(client, latest) {
    const before = latest();
    client.http.opts.accessToken = "expired";
    await client.whoami();
    assert.notEqual(latest().accessToken, before.accessToken);
    assert.notEqual(latest().refreshToken, before.refreshToken);
    assert.equal(client.getAccessToken(), latest().accessToken);
}

async function listen() {
    let arrived;
    const callback = new Promise((resolve) => (arrived = resolve));
    const server = createServer((request, response) => {
        const url = new URL(request.url, "http://127.0.0.1");
        response.setHeader("Content-Type", "text/html");
        response.end("<title>done</title><p>You are signed in to Messages.");
        if (url.pathname === "/callback") arrived(url.searchParams);
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    return { port: server.address().port, callback, close: () => server.close() };
}
