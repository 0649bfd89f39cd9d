// A service worker that adds a token to the requests of files; it is the query of the worker's address.

const authorization = new URLSearchParams(location.search).get("authorization");

addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("fetch", (event) => {
    if (event.request.url.includes("/_matrix/client/v1/media/")) {
        event.respondWith(fetch(event.request.url, { headers: { Authorization: authorization } }));
    }
});
