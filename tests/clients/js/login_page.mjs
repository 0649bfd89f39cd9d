// Runs the fallback page of log-in as a browser would: `node login_page.mjs BASE_URL USER PASSWORD`.
//
// Runs the script of the page with replacements for the few objects of a browser that it uses, submits
// the form, and prints the response that the client gets, or the message that the user sees.

import vm from "node:vm";

const [baseUrl, user, password] = process.argv.slice(2);
const address = new URL("/_matrix/static/client/login/?device_id=FALLBACK&refresh_token=true", baseUrl);
const page = await (await fetch(address)).text();
const script = /<script>(.*)<\/script>/s.exec(page)[1];
const message = { set textContent(text) { if (text) console.log(text); } };
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
    document: { getElementById: (id) => ({ login: form, message })[id], querySelectorAll: () => [] },
    fetch: (path, options) => fetch(new URL(path, baseUrl), options),
    window,
});
await submit({ preventDefault() {} });
