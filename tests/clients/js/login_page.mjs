// The fallback page of log-in, as a browser runs it: `node login_page.mjs BASE_URL USER PASSWORD`.
//
// Runs the script of the page with stand-ins for the few things of a browser that it touches, submits
// the form, and prints what the client that opened the page is given, or what the user is told.

import vm from "node:vm";

const [baseUrl, user, password] = process.argv.slice(2);
const address = new URL("/_matrix/static/client/login/?device_id=FALLBACK&refresh_token=true", baseUrl);
const page = await (await fetch(address)).text();
const script = /<script>(.*)<\/script>/s.exec(page)[1];
const told = { set textContent(text) { if (text) console.log(text); } };
let submit;
const form = {
    elements: { user: { value: user }, password: { value: password } },
    querySelector: () => ({}),
    addEventListener: (_name, listener) => (submit = listener),
};
const window = {
    location: address,
    matrixLogin: { onLogin: (response) => console.log(JSON.stringify(response)) },
};
vm.runInNewContext(script, {
    URLSearchParams,
    document: { getElementById: (id) => ({ login: form, told })[id] },
    fetch: (path, options) => fetch(new URL(path, baseUrl), options),
    window,
});
await submit({ preventDefault() {} });
