// The page: polls the API once a second. Live images arrive as endless MJPEG responses of their <img> elements.
import { drawChart } from "/static/charts.js";

const MAX_LIVE = 4; // live streams at once: browsers open six connections per server, and the API needs some
const POLL_MS = 1000;
const SILENT_MS = 1500; // without an answer to /healthz for this long the server is gone: reported within 3 s
const SLOW_MS = 10000; // an API request that takes longer is given up
const DISCONNECTED = "Disconnected. Reconnecting…";
const $ = (id) => document.getElementById(id);
const tiles = new Map(); // source id -> <figure>
let sources = [];
let selected = null; // source id
let showAll = false;
let view = "overlay";
let settings = { opacity: 0.5, hidden: [] };
let changedAt = 0; // last change of the settings by this viewer: responses to older requests are outdated
let connected = true; // false while the server does not answer
let stall = ""; // a line about a stage that makes no progress

async function request(path, options) {
  const response = await fetch(path, { ...options, signal: AbortSignal.timeout(SLOW_MS) }).catch(() => {
    setConnected(false);
    throw new Error(DISCONNECTED);
  });
  if (response.status === 401) location.assign("/login");
  if (!response.ok) throw new Error((await response.json()).error);
  return response.json();
}

const sourceUrl = (id, file, query = "") => `/api/sources/${encodeURIComponent(id)}/${file}?view=${view}${query}`;
const tileImage = (id) => tiles.get(id).querySelector("img");

// tiles

function createTile(id) {
  const figure = document.createElement("figure");
  figure.className = "tile";
  figure.dataset.source = id;
  figure.innerHTML = '<img alt=""><div class="scrim"><div><b></b><br><small></small></div></div><figcaption><i class="dot"></i><span></span></figcaption>';
  const image = figure.querySelector("img");
  image.alt = `video of ${id}`;
  image.addEventListener("error", () => setTimeout(() => image.dataset.live && connected && loadImage(id, true, true), 2000));
  figure.addEventListener("click", () => (showAll || selected !== id) && select(id));
  $("tiles").append(figure);
  return figure;
}

function loadImage(id, live, retry = false) {
  if (!tiles.has(id)) return;
  const image = tileImage(id);
  const url = live ? sourceUrl(id, "stream.mjpg") : sourceUrl(id, "frame.jpg", "&width=480");
  if (live && image.dataset.live === url && !retry) return;
  image.dataset.live = live ? url : "";
  if (document.hidden) image.removeAttribute("src");
  else image.src = `${url}&at=${Date.now()}`; // bypasses the cache
}

function stopLiveImages() {
  for (const id of tiles.keys()) tileImage(id).dataset.live = "";
}

function loadStillImages() {
  for (const { id } of sources) if (!tileImage(id).dataset.live) loadImage(id, false);
}

function updateTiles() {
  for (const [id, figure] of tiles) {
    if (!sources.some((source) => source.id === id)) {
      figure.querySelector("img").removeAttribute("src");
      figure.remove();
      tiles.delete(id);
    }
  }
  for (const { id } of sources) if (!tiles.has(id)) tiles.set(id, createTile(id));
  if (!tiles.has(selected)) selected = sources[0]?.id ?? null;
  const grid = showAll && sources.length > 1;
  $("empty").hidden = sources.length > 0;
  $("bar").hidden = !sources.length;
  $("all").hidden = sources.length < 2;
  $("all").setAttribute("aria-pressed", showAll);
  $("tiles").className = grid ? "all" : "one";
  sources.forEach(({ id }, index) => {
    tiles.get(id).classList.toggle("selected", id === selected);
    loadImage(id, grid ? index < MAX_LIVE : id === selected);
  });
  for (const button of document.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", button.dataset.view === view);
}

function updateCaption(source) {
  const figure = tiles.get(source.id);
  if (!figure) return;
  const state = connected ? source.state : "disconnected";
  const reason = connected ? source.reason : "the server does not answer";
  const up = state === "up";
  figure.classList.toggle("up", up);
  figure.classList.toggle("down", ["down", "disconnected"].includes(state));
  figure.classList.toggle("ended", state === "ended");
  // A placeholder frame shows the state itself, and the last image of a recording stays as it is.
  figure.classList.toggle("dimmed", !connected || !(up || state === "ended" || source.placeholder));
  figure.querySelector("b").textContent = state;
  figure.querySelector("small").textContent = connected ? [reason, `last image ${formatSeconds(source.since_s)} ago`].filter(Boolean).join(" · ") : reason;
  const small = !showAll && source.id !== selected;
  figure.style.setProperty("--ratio", `${source.width} / ${source.height}`); // the tile keeps its shape without an image
  const size = small ? "" : ` · ${source.width}×${source.height}`;
  const details = up ? `${source.fps.toFixed(0)} fps${size}` : [state, reason].filter(Boolean).join(", ");
  figure.querySelector("figcaption span").textContent = `${source.id} · ${details}`;
}

const formatSeconds = (seconds) => (seconds < 100 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`);

// statistics and classes

function updateStats(stats) {
  const series = stats.series.find(({ id }) => id === selected);
  const source = sources.find(({ id }) => id === selected);
  if (!series || !source) return;
  drawChart($("chart-fps"), series.seconds_ago, series.fps, { minTop: 10 });
  drawChart($("chart-age"), series.seconds_ago, series.age_ms, { minTop: 50 });
  drawChart($("chart-dropped"), series.seconds_ago, series.dropped, { minTop: 5, bars: true });
  $("fps").textContent = source.fps.toFixed(1);
  $("age").textContent = source.age_ms === null ? "–" : `${source.age_ms.toFixed(0)} ms`;
  $("dropped").textContent = `${series.dropped.at(-1) ?? 0} (${source.dropped} total)`;
  $("source-name").textContent = source.id;
  $("engine").textContent = source.engine ?? (source.placeholder ? "" : "No segmentation of this source.");
  $("quality").textContent = source.quality ? describeQuality(source.quality) : "";
  $("logout").hidden = !stats.login;
  $("connection").textContent = `${stats.viewers} of ${stats.max_viewers} live streams in use`;
}

function describeQuality({ level, every, size: [height, width] }) {
  const frames = every === 1 ? "every frame" : every === "auto" ? "key frames as the motion needs" : `every ${ORDINALS[every] ?? `${every}th`} frame`;
  return `Quality level ${level}${level ? "" : " (full)"}: the network runs on ${frames}, at ${width}×${height}.`;
}
const ORDINALS = { 2: "second", 3: "third" };

function updateLegend(classes) {
  const list = $("legend");
  const names = classes.map(({ name }) => name).join();
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    list.replaceChildren(...classes.map(createLegendRow));
  }
  classes.forEach(({ name, share }, index) => {
    const row = list.children[index];
    row.querySelector("input").checked = !settings.hidden.includes(name);
    row.querySelector(".share").textContent = share >= 0.0995 ? `${Math.round(share * 100)} %` : `${(share * 100).toFixed(1)} %`;
    row.querySelector("i").style.transform = `scaleX(${share})`;
  });
  if (document.activeElement !== $("opacity") || Date.now() - changedAt > 3000) $("opacity").value = Math.round(settings.opacity * 100);
  updateSettings();
}

function createLegendRow({ name, colour }) {
  const row = document.createElement("li");
  row.innerHTML = '<label><input type="checkbox"><span class="swatch"></span><span class="name"></span><span class="share"></span><span class="track"><i></i></span></label>';
  row.querySelector(".swatch").style.background = colour;
  row.querySelector(".name").textContent = name;
  row.querySelector("input").addEventListener("change", ({ target }) => {
    const others = settings.hidden.filter((hidden) => hidden !== name);
    changeSettings({ hidden: target.checked ? others : [...others, name] });
  });
  return row;
}

function updateSettings() {
  $("opacity-value").textContent = `${Math.round(settings.opacity * 100)} %`;
  $("show-all").hidden = !settings.hidden.length;
}

let sendTimer = null;
function changeSettings(changes) {
  settings = { ...settings, ...changes };
  changedAt = Date.now();
  updateSettings();
  clearTimeout(sendTimer);
  sendTimer = setTimeout(async () => {
    const body = JSON.stringify(settings);
    await request("/api/view", { method: "PUT", headers: { "Content-Type": "application/json" }, body }).catch(showError);
  }, 60);
}

// controls

function select(id, { keepGrid = false } = {}) {
  selected = id;
  showAll &&= keepGrid;
  updateTiles();
  refresh().catch(showError);
}
function selectNext(step) {
  const index = sources.findIndex(({ id }) => id === selected);
  if (sources.length) select(sources[(index + step + sources.length) % sources.length].id, { keepGrid: true });
}
function setView(name) {
  view = name;
  updateTiles();
  loadStillImages();
}
function setOpacity(percent) {
  $("opacity").value = percent;
  changeSettings({ opacity: Math.min(1, Math.max(0, percent / 100)) });
}
function toggleGrid() {
  showAll = !showAll;
  updateTiles();
}
function saveSnapshot() {
  const link = document.createElement("a");
  link.href = sourceUrl(selected, "snapshot.png");
  link.download = "";
  link.click();
}
function toggleFullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else tiles.get(selected)?.requestFullscreen?.();
}
const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
function setTheme(name) {
  if (name) document.documentElement.dataset.theme = name;
  $("theme").textContent = isDark() ? "Light" : "Dark";
}
function toggleTheme() {
  setTheme(isDark() ? "light" : "dark");
  localStorage.setItem("theme", document.documentElement.dataset.theme);
  refresh().catch(showError);
}
const SHORTCUTS = {
  o: () => setView("original"), l: () => setView("overlay"), m: () => setView("mask"),
  "+": () => setOpacity(+$("opacity").value + 5), "=": () => setOpacity(+$("opacity").value + 5), "-": () => setOpacity($("opacity").value - 5),
  ArrowLeft: () => selectNext(-1), ArrowRight: () => selectNext(1),
  g: toggleGrid, s: saveSnapshot, f: toggleFullscreen, t: toggleTheme, "?": () => $("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  const movesSlider = event.target.matches("input[type=range]") && event.key.startsWith("Arrow");
  const action = SHORTCUTS[event.key] ?? SHORTCUTS[event.key.toLowerCase()];
  if (!action || movesSlider || event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  event.preventDefault();
  action();
});
for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => setView(button.dataset.view));
$("opacity").addEventListener("input", ({ target }) => setOpacity(+target.value));
$("show-all").addEventListener("click", () => { changeSettings({ hidden: [] }); refresh().catch(showError); });
$("all").addEventListener("click", toggleGrid);
$("snapshot").addEventListener("click", saveSnapshot);
$("full").addEventListener("click", toggleFullscreen);
$("theme").addEventListener("click", toggleTheme);
$("help").addEventListener("click", SHORTCUTS["?"]);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme());
document.addEventListener("visibilitychange", () => {
  stopLiveImages(); // a hidden page requests nothing
  updateTiles();
});

// polling

function showError(error) {
  $("connection").textContent = error.message;
  $("connection").classList.add("error");
}

function setConnected(answers) {
  if (answers === connected) return;
  connected = answers;
  if (connected) {
    stopLiveImages(); // the next refresh opens them again
  } else {
    showError(new Error(DISCONNECTED));
    sources.forEach(updateCaption);
  }
}

async function refresh() {
  const requestedAt = Date.now();
  const paths = ["/api/sources", "/api/classes", "/api/stats", "/api/view"];
  const [newSources, classes, stats, newSettings] = await Promise.all(paths.map((path) => request(path)));
  setConnected(true);
  // A server that starts again has no source before its first frame: the tiles, and full screen, stay meanwhile.
  sources = newSources.length ? newSources : sources.map((source) => ({ ...source, state: "starting", reason: null, placeholder: false }));
  if (requestedAt > changedAt + 300) settings = newSettings;
  $("connection").classList.remove("error");
  updateTiles();
  sources.forEach(updateCaption);
  loadStillImages();
  updateLegend(classes.find(({ id }) => id === selected)?.classes ?? []);
  updateStats(stats);
  if (stall) showError(new Error(stall));
}

/** Call a function again and again while the page is visible, each time POLL_MS after it has finished. */
async function repeat(task) {
  if (!document.hidden) await task();
  setTimeout(repeat, POLL_MS, task);
}

setTheme(localStorage.getItem("theme"));
repeat(async () => {
  const options = { cache: "no-store", priority: "high", signal: AbortSignal.timeout(SILENT_MS) };
  const response = await fetch("/healthz", options).catch(() => null);
  stall = !response || response.ok ? "" : (await response.text().catch(() => "")).split("\n")[0];
  setConnected(response !== null);
});
repeat(async () => connected && refresh().catch(showError));
