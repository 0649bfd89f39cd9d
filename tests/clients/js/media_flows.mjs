// Files as users of Element Web see them: `node media_flows.mjs BASE_URL FLOW`.
//
// The server shows previews of pages on this machine.

import assert from "node:assert/strict";
import http from "node:http";
import { EventType, Filter, MatrixError, MsgType } from "matrix-js-sdk";
import { decrypt, encrypt, picture, sizeOf } from "./attachments.mjs";
import { directRoom, register, runFlow, started, until } from "./sdk.mjs";

await runFlow({
    // The others in a room see the new face of a user, in the size that they need.
    async avatars() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        await started(bob);
        const face = picture(300, 200);

        const uri = await upload(alice, face, "image/png", "me.png");
        await alice.setAvatarUrl(uri);
        const member = () => bob.getRoom(roomId).getMember(alice.getUserId());
        await until(() => member().getMxcAvatarUrl() === uri);

        assert.equal((await bob.getProfileInfo(alice.getUserId())).avatar_url, uri);
        assert.deepEqual(await download(bob, uri), new Uint8Array(face));
        assert.deepEqual(sizeOf(await download(bob, uri, 96, 96, "crop")), [96, 96]);
        await alice.setAvatarUrl("");
        await until(() => !member().getMxcAvatarUrl());
    },

    // A room has a picture, which those who are not in it see in the directory and in its summary.
    async room_avatar() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const { room_id: roomId } = await alice.createRoom({ preset: "public_chat", visibility: "public" });
        const uri = await upload(alice, picture(64, 64), "image/png", "room.png");

        await alice.sendStateEvent(roomId, EventType.RoomAvatar, { url: uri });

        assert.equal((await bob.getRoomSummary(roomId)).avatar_url, uri);
        const { chunk } = await bob.publicRooms({ limit: 500 });
        assert.equal(chunk.find((room) => room.room_id === roomId).avatar_url, uri);
        await bob.joinRoom(roomId);
        await started(bob);
        assert.equal(bob.getRoom(roomId).getMxcAvatarUrl(), uri);
        assert.deepEqual(sizeOf(await download(bob, uri, 32, 32, "crop")), [32, 32]);
    },

    // What is posted arrives whole: a picture with a small one beside it, a file, a voice message, a
    // sticker. The panel of files lists what is in the room.
    async attachments() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        await started(bob);
        const [large, small] = [picture(800, 600), picture(80, 60)];
        const speech = new Uint8Array(30_000).map((_, index) => index % 253);
        const thumbnail = { mimetype: "image/png", w: 80, h: 60, size: small.length };
        const url = await upload(alice, large, "image/png", "sunset.png");
        const info = { mimetype: "image/png", w: 800, h: 600, size: large.length };
        const voice = {
            "org.matrix.msc1767.text": "Voice message",
            "org.matrix.msc1767.audio": { duration: 2_000, waveform: [0, 512, 1024, 512] },
            "org.matrix.msc3245.voice": {},
        };
        const contents = [
            {
                msgtype: MsgType.Image,
                body: "Evening",
                filename: "sunset.png",
                url,
                info: {
                    ...info,
                    thumbnail_url: await upload(alice, small, "image/png", "small.png"),
                    thumbnail_info: thumbnail,
                },
            },
            { msgtype: MsgType.File, body: "Übersicht.pdf", url: await upload(alice, speech, "application/pdf", "Übersicht.pdf") },
            {
                msgtype: MsgType.Audio,
                body: "Voice message.ogg",
                url: await upload(alice, speech, "audio/ogg", "Voice message.ogg"),
                info: { mimetype: "audio/ogg", duration: 2_000, size: speech.length },
                ...voice,
            },
        ];

        const ids = [];
        for (const content of contents) ids.push((await alice.sendMessage(roomId, content)).event_id);
        await alice.sendTextMessage(roomId, "no file");
        const sticker = await alice.sendEvent(roomId, EventType.Sticker, { body: "a cat", url, info });
        const found = (eventId) => bob.getRoom(roomId).findEventById(eventId)?.getContent();
        await until(() => found(sticker.event_id));

        assert.deepEqual(ids.map(found), contents);
        assert.equal(found(sticker.event_id).url, url);
        assert.deepEqual(await download(bob, contents[0].info.thumbnail_url), new Uint8Array(small));
        assert.deepEqual(await download(bob, contents[2].url), speech);
        assert.deepEqual(await fileList(bob, roomId), ids);
    },

    // Files of encrypted rooms: the server stores what it cannot read, and makes no thumbnails of it.
    async encrypted_attachments() {
        const [alice, bob] = [await register("alice"), await register("bob")];
        const roomId = await directRoom(alice, bob);
        await started(bob);
        const content = picture(200, 100);
        const [data, file] = await encrypt(content);
        file.url = await upload(alice, data, "application/octet-stream");

        const message = { msgtype: MsgType.Image, body: "secret.png", file, info: { w: 200, h: 100 } };
        const { event_id: eventId } = await alice.sendMessage(roomId, message);
        await until(() => bob.getRoom(roomId).findEventById(eventId));
        const received = bob.getRoom(roomId).findEventById(eventId).getContent().file;

        const ciphertext = await download(bob, received.url);
        assert.deepEqual(ciphertext, data);
        assert.deepEqual(await decrypt(ciphertext, received), new Uint8Array(content));
        await assert.rejects(download(bob, received.url, 96, 96, "crop"), /400/);
    },

    // A link is shown with the title and the picture of its page; one that leads nowhere is not.
    async url_preview() {
        const alice = await register("alice");
        const [site, address] = await pages();
        try {
            const preview = await alice.getUrlPreview(`${address}/#part`, Date.now());

            assert.equal(preview["og:title"], "A page");
            assert.equal(preview["og:image:width"], 120);
            assert.deepEqual(sizeOf(await download(alice, preview["og:image"])), [120, 80]);
            assert.deepEqual(sizeOf(await download(alice, preview["og:image"], 32, 32, "crop")), [32, 32]);
            await assert.rejects(alice.getUrlPreview(`${address}/nothing`, Date.now()), MatrixError);
        } finally {
            site.close();
        }
    },
});

async function upload(client, content, type, name) {
    const { content_uri: uri } = await client.uploadContent(new Blob([content]), { type, name });
    return uri;
}

// A file, or its thumbnail in a size, from the authenticated endpoints.
async function download(client, uri, ...size) {
    const [width, height, method] = size;
    const url = client.mxcUrlToHttp(uri, width, height, method, false, true, true);
    const response = await fetch(url, { headers: { Authorization: `Bearer ${client.getAccessToken()}` } });
    if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
    return new Uint8Array(await response.arrayBuffer());
}

// The event ids in the panel of files, which is a timeline with a filter, oldest first.
async function fileList(client, roomId) {
    const filter = new Filter(client.getUserId());
    filter.setDefinition({ room: { timeline: { contains_url: true, types: [EventType.RoomMessage] } } });
    filter.filterId = await client.getOrCreateFilter(`FILTER_FILES_${client.getUserId()}`, filter);
    const files = client.getRoom(roomId).getOrCreateFilteredTimelineSet(filter);
    const timeline = files.getLiveTimeline();
    while (await client.paginateEventTimeline(timeline, { backwards: true, limit: 2 }));
    return timeline.getEvents().map((event) => event.getId());
}

// A web server with a page that has a picture.
async function pages() {
    const responses = {
        "/": ["text/html", '<meta property="og:title" content="A page"><meta property="og:image" content="/picture">'],
        "/picture": ["image/png", picture(120, 80)],
    };
    const site = http.createServer((request, response) => {
        const [type, content] = responses[request.url] ?? [];
        response.writeHead(content ? 200 : 404, content && { "Content-Type": type }).end(content);
    });
    await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));
    return [site, `http://127.0.0.1:${site.address().port}`];
}
