// Show why the last login failed: the server redirects to /login?error=STATUS.
const MESSAGES = { 401: "Invalid token.", 429: "Too many invalid tokens. Try again in a minute." };
const status = new URLSearchParams(location.search).get("error");
document.getElementById("message").textContent = MESSAGES[status] ?? "";
