// A page that shows files as web clients do: requests to another origin, with the token in a header.
//
// The address names the server and the account to make. A service worker adds the token to the requests
// of pictures and sounds, as those of Element Web and Cinny do. What the page shows is posted to
// `/result`, or `{error}`.

import { createClient } from "matrix-js-sdk";

const { server, name } = Object.fromEntries(new URLSearchParams(location.search));

try {
    await post(await show());
} catch (error) {
    await post({ error: `${error.stack ?? error}` });
}

async function show() {
    const client = await registered();
    const [picture, sound] = [await drawing(200, 100), tone(2)];
    const urls = {};
    for (const [key, blob] of Object.entries({ picture, sound })) {
        const { content_uri: uri } = await client.uploadContent(blob, { name: key, type: blob.type });
        urls[key] = uri;
    }
    const http = (key, ...size) => client.mxcUrlToHttp(urls[key], ...size, false, true, true);
    const whole = http("picture", undefined, undefined, undefined);
    const recording = http("sound", undefined, undefined, undefined);
    const headers = { Authorization: `Bearer ${client.getAccessToken()}` };

    const stranger = await fetch(whole);
    const answer = await fetch(whole, { headers });
    const again = await fetch(whole, { headers });
    const part = await fetch(recording, { headers: { ...headers, Range: "bytes=44-143" } });
    const blobUrl = URL.createObjectURL(await (await fetch(recording, { headers })).blob());
    const before = { picture: await image(URL.createObjectURL(await answer.blob())), duration: await play(blobUrl) };

    await worker(headers.Authorization);
    return {
        stranger: stranger.status,
        again: (await again.blob()).size === picture.size,
        part: [part.status, (await part.blob()).size],
        type: answer.headers.get("Content-Type"),
        ...before,
        workerPicture: await image(whole),
        workerThumbnail: await image(http("picture", 32, 32, "crop")),
        workerDuration: await play(recording),
    };
}

async function registered() {
    const auth = { type: "m.login.dummy" };
    const body = { username: name, password: name, auth };
    const account = await createClient({ baseUrl: server }).registerRequest(body);
    const { user_id: userId, access_token: accessToken, device_id: deviceId } = account;
    return createClient({ baseUrl: server, userId, accessToken, deviceId });
}

async function worker(authorization) {
    await navigator.serviceWorker.register(`/worker.js?${new URLSearchParams({ authorization })}`);
    await navigator.serviceWorker.ready;
    if (!navigator.serviceWorker.controller) {
        await new Promise((resolve) =>
            navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true }),
        );
    }
}

// Width and height of a picture that is shown.
async function image(src) {
    const element = new Image();
    element.src = src;
    await element.decode();
    return [element.naturalWidth, element.naturalHeight];
}

// The seconds of a sound, of which the second half was played.
async function play(src) {
    const element = new Audio(src);
    element.muted = true;
    await happened(element, "loadedmetadata");
    element.currentTime = element.duration / 2;
    await happened(element, "seeked");
    await element.play();
    await happened(element, "ended");
    return element.duration;
}

function happened(element, event) {
    return new Promise((resolve, reject) => {
        element.addEventListener(event, resolve, { once: true });
        element.addEventListener("error", () => reject(new Error(element.error?.message)), { once: true });
    });
}

function drawing(width, height) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    canvas.getContext("2d").fillRect(0, 0, width / 2, height);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// A sound of this many seconds, as WAV.
function tone(seconds) {
    const rate = 8_000;
    const view = new DataView(new ArrayBuffer(44 + seconds * rate));
    const write = (at, text) => [...text].forEach((char, index) => view.setUint8(at + index, char.charCodeAt(0)));
    write(0, "RIFF");
    view.setUint32(4, view.byteLength - 8, true);
    write(8, "WAVEfmt ");
    view.setUint32(16, 16, true); // bytes of the format
    view.setUint16(20, 1, true); // PCM
    view.setUint16(22, 1, true); // channels
    view.setUint32(24, rate, true);
    view.setUint32(28, rate, true); // bytes of a second
    view.setUint16(32, 1, true); // bytes of a sample
    view.setUint16(34, 8, true); // bits of a sample
    write(36, "data");
    view.setUint32(40, seconds * rate, true);
    for (let at = 44; at < view.byteLength; at++) view.setUint8(at, 128 + 60 * Math.sin(at / 4));
    return new Blob([view], { type: "audio/wav" });
}

async function post(result) {
    await fetch("/result", { method: "POST", body: JSON.stringify(result) });
}
