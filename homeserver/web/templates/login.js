
const form = document.getElementById("login");
const message = document.getElementById("message");
const query = new URLSearchParams(window.location.search);
const base = window.location.pathname.replace(/\/_matrix\/static\/.*$/, "");
async function logIn(body) {
    for (const name of ["device_id", "initial_device_display_name"]) {
        if (query.has(name)) body[name] = query.get(name);
    }
    if (query.has("refresh_token")) body.refresh_token = query.get("refresh_token") === "true";
    message.textContent = "";
    try {
        const fetched = await fetch(base + "/_matrix/client/v3/login", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify(body),
        });
        const response = await fetched.json();
        if (!fetched.ok) {
            message.textContent = response.error;
        } else if (window.matrixLogin && window.matrixLogin.onLogin) {
            window.matrixLogin.onLogin(response);
        } else {
            message.textContent = "You are logged in, but no client waits for it. Close this page, and log in within your client.";
        }
    } catch {
        message.textContent = "The server cannot be reached.";
    }
}
if (form) form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    await logIn({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: form.elements.user.value },
        password: form.elements.password.value,
    });
    button.disabled = false;
});
for (const link of document.querySelectorAll("a.provider")) {
    link.href += encodeURIComponent(window.location.search);
}
if (query.has("loginToken")) {
    const token = query.get("loginToken");
    query.delete("loginToken");
    window.history.replaceState(null, "", "?" + query);
    logIn({ type: "m.login.token", token });
}
