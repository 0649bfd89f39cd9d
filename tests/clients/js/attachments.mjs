// Pictures, and encrypted attachments as clients make them.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#sending-encrypted-attachments

import zlib from "node:zlib";

// A picture of one colour, as PNG.
export function picture(width, height) {
    const row = Buffer.concat([Buffer.alloc(1), Buffer.alloc(width * 3, 0x5a)]);
    const header = Buffer.alloc(13);
    header.writeUInt32BE(width, 0);
    header.writeUInt32BE(height, 4);
    header.set([8, 2], 8); // bits of a sample; red, green and blue
    const content = zlib.deflateSync(Buffer.concat(Array(height).fill(row)));
    return Buffer.concat([
        Buffer.from("\x89PNG\r\n\x1a\n", "latin1"),
        chunk("IHDR", header),
        chunk("IDAT", content),
        chunk("IEND", Buffer.alloc(0)),
    ]);
}

// Width and height of a PNG or a JPEG.
export function sizeOf(content) {
    const view = new DataView(content.buffer, content.byteOffset);
    if (view.getUint16(0) !== 0xffd8) return [view.getUint32(16), view.getUint32(20)];
    let at = 2; // of a marker, which the length of its segment follows
    const frames = [0xffc0, 0xffc1, 0xffc2];
    while (!frames.includes(view.getUint16(at))) at += 2 + view.getUint16(at + 2);
    return [view.getUint16(at + 7), view.getUint16(at + 5)];
}

// The ciphertext of a file, and its `EncryptedFile`, which lacks the address.
export async function encrypt(content) {
    const algorithm = { name: "AES-CTR", length: 256 };
    const key = await crypto.subtle.generateKey(algorithm, true, ["encrypt", "decrypt"]);
    const iv = new Uint8Array(16); // the counter in the second half begins at 0
    crypto.getRandomValues(iv.subarray(0, 8));
    const data = await crypto.subtle.encrypt({ name: "AES-CTR", counter: iv, length: 64 }, key, content);
    const sha256 = base64(await crypto.subtle.digest("SHA-256", data));
    const file = { v: "v2", key: await crypto.subtle.exportKey("jwk", key), iv: base64(iv), hashes: { sha256 } };
    return [new Uint8Array(data), file];
}

// The content of a file whose ciphertext was downloaded; fails if it is another one.
export async function decrypt(data, file) {
    const sha256 = base64(await crypto.subtle.digest("SHA-256", data));
    if (sha256 !== file.hashes.sha256) throw new Error("the ciphertext has another hash");
    const key = await crypto.subtle.importKey("jwk", file.key, "AES-CTR", false, ["decrypt"]);
    const counter = Buffer.from(file.iv, "base64");
    const options = { name: "AES-CTR", counter, length: 64 };
    return new Uint8Array(await crypto.subtle.decrypt(options, key, data));
}

function chunk(name, content) {
    const body = Buffer.concat([Buffer.from(name), content]);
    const [length, checksum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(content.length);
    checksum.writeUInt32BE(zlib.crc32(body));
    return Buffer.concat([length, body, checksum]);
}

function base64(bytes) {
    return Buffer.from(bytes).toString("base64").replaceAll("=", "");
}
