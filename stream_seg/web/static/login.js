// Why the form is shown again, as the address says it.
const asked = new URLSearchParams(location.search);
const said = asked.has("again") ? "That is not the token." : asked.has("later") ? "Too many wrong tokens; wait a minute." : "";
document.getElementById("said").textContent = said;
