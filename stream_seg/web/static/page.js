// The page. What it knows it asks of the API, once a second; pictures come by themselves.
import { draw } from "/static/charts.js";

const LIVE = 4; // moving pictures at once: a browser opens six connections to a server, and the API needs one
const VIEWS = ["original", "overlay", "mask"];
const $ = (id) => document.getElementById(id);
const tiles = new Map();
let sources = [];
let chosen = null;
let all = false;
let view = "overlay";
let settings = { opacity: 0.5, hidden: [] };
let touched = 0; // when this viewer last changed a setting: answers from before are not shown
let connected = false;

async function ask(path, options) {
  const answer = await fetch(path, options);
  if (answer.status === 401) location.assign("/login");
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer.json();
}

const of = (id, file, query = "") => `/api/sources/${encodeURIComponent(id)}/${file}?view=${view}${query}`;

// pictures

function tile(id) {
  const figure = document.createElement("figure");
  figure.className = "tile";
  figure.dataset.source = id;
  figure.innerHTML = '<img alt=""><div class="veil"><div><b></b><br><small></small></div></div><figcaption><i class="dot"></i><span></span></figcaption>';
  const image = figure.querySelector("img");
  image.alt = `the stream ${id}`;
  image.addEventListener("error", () => image.dataset.live && setTimeout(() => feed(id, true, true), 2000));
  figure.addEventListener("click", () => (all || chosen !== id) && choose(id));
  $("wall").append(figure);
  return figure;
}

function feed(id, live, again = false) {
  const image = tiles.get(id)?.querySelector("img");
  if (!image) return;
  const wanted = live ? of(id, "stream.mjpg") : of(id, "frame.jpg", "&width=480");
  if (live && image.dataset.live === wanted && !again) return;
  image.dataset.live = live ? wanted : "";
  if (document.hidden) image.removeAttribute("src");
  else image.src = `${wanted}&at=${Date.now()}`; // never from a cache
}

function arrange() {
  for (const [id, figure] of tiles) {
    if (!sources.some((source) => source.id === id)) {
      figure.querySelector("img").removeAttribute("src");
      figure.remove();
      tiles.delete(id);
    }
  }
  for (const source of sources) if (!tiles.has(source.id)) tiles.set(source.id, tile(source.id));
  if (!tiles.has(chosen)) chosen = sources[0]?.id ?? null;
  $("empty").hidden = sources.length > 0;
  $("bar").hidden = !sources.length;
  $("all").hidden = sources.length < 2;
  $("all").setAttribute("aria-pressed", all);
  $("wall").className = all && sources.length > 1 ? "all" : "one";
  sources.forEach(({ id }, place) => {
    tiles.get(id).classList.toggle("chosen", id === chosen);
    feed(id, $("wall").className === "all" ? place < LIVE : id === chosen);
  });
  for (const button of document.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", button.dataset.view === view);
}

function caption(source) {
  const figure = tiles.get(source.id);
  const up = source.state === "up";
  figure.classList.toggle("up", up);
  figure.classList.toggle("down", source.state === "down");
  figure.classList.toggle("veiled", !up && !source.card); // a card says it itself
  figure.querySelector("b").textContent = source.state;
  figure.querySelector("small").textContent = `${source.reason ?? ""} · last picture ${Math.round(source.since_s)} s ago`;
  const small = !all && source.id !== chosen;
  const figures = up ? `${source.fps.toFixed(0)} fps` + (small ? "" : ` · ${source.width}×${source.height}`) : [source.state, source.reason].filter(Boolean).join(", ");
  figure.querySelector("figcaption span").textContent = `${source.id} · ${figures}`;
}

// figures and classes

function plot(stats) {
  const series = stats.series.find((one) => one.id === chosen);
  const source = sources.find((one) => one.id === chosen);
  if (!series || !source) return;
  draw($("chart-fps"), series.seconds_ago, series.fps, { least: 10 });
  draw($("chart-age"), series.seconds_ago, series.age_ms, { least: 50 });
  draw($("chart-dropped"), series.seconds_ago, series.dropped, { least: 5, bars: true });
  $("fps").textContent = source.fps.toFixed(1);
  $("age").textContent = source.age_ms === null ? "–" : `${source.age_ms.toFixed(0)} ms`;
  $("dropped").textContent = `${series.dropped.at(-1) ?? 0} (${source.dropped} in all)`;
  $("whose").textContent = source.id;
  $("engine").textContent = source.engine ?? (source.card ? "" : "nothing segments this source");
  $("leave").hidden = !stats.login;
  $("link").textContent = stats.viewers === 1 ? "1 picture watched" : `${stats.viewers} of ${stats.max_viewers} pictures watched`;
}

function legend(classes) {
  const list = $("legend");
  if (list.dataset.names !== classes.map((one) => one.name).join()) {
    list.dataset.names = classes.map((one) => one.name).join();
    list.replaceChildren(...classes.map(entry));
  }
  classes.forEach((one, place) => {
    const row = list.children[place];
    row.querySelector("input").checked = !settings.hidden.includes(one.name);
    row.querySelector(".share").textContent = one.share >= 0.0995 ? `${Math.round(one.share * 100)} %` : `${(one.share * 100).toFixed(1)} %`;
    row.querySelector("i").style.transform = `scaleX(${one.share})`;
  });
  $("every").hidden = !settings.hidden.length;
  if (document.activeElement !== $("opacity") || Date.now() - touched > 3000) $("opacity").value = Math.round(settings.opacity * 100);
  $("opacity-said").textContent = `${Math.round(settings.opacity * 100)} %`;
}

function entry({ name, colour }) {
  const row = document.createElement("li");
  row.innerHTML = '<label><input type="checkbox"><span class="swatch"></span><span class="name"></span><span class="share"></span><span class="track"><i></i></span></label>';
  row.querySelector(".swatch").style.background = colour;
  row.querySelector(".name").textContent = name;
  row.querySelector("input").addEventListener("change", ({ target }) => {
    const others = settings.hidden.filter((hidden) => hidden !== name);
    change({ hidden: target.checked ? others : [...others, name] });
  });
  return row;
}

let sending = null;
function change(some) {
  settings = { ...settings, ...some };
  touched = Date.now();
  $("opacity-said").textContent = `${Math.round(settings.opacity * 100)} %`;
  $("every").hidden = !settings.hidden.length;
  clearTimeout(sending);
  sending = setTimeout(async () => {
    const body = JSON.stringify(settings);
    await ask("/api/view", { method: "PUT", headers: { "Content-Type": "application/json" }, body }).catch(lost);
  }, 60);
}

// controls

function choose(id, { stay = false } = {}) { chosen = id; all &&= stay; arrange(); refresh().catch(lost); }
function look(at) { view = at; arrange(); for (const { id } of sources) if (!tiles.get(id).querySelector("img").dataset.live) feed(id, false); }
function step(by) {
  const place = sources.findIndex((source) => source.id === chosen);
  if (sources.length) choose(sources[(place + by + sources.length) % sources.length].id, { stay: true });
}
function opacity(value) { $("opacity").value = value; change({ opacity: Math.min(1, Math.max(0, value / 100)) }); }
function snapshot() {
  const link = document.createElement("a");
  link.href = of(chosen, "snapshot.png");
  link.download = "";
  link.click();
}
function full() {
  if (document.fullscreenElement) document.exitFullscreen();
  else tiles.get(chosen)?.requestFullscreen?.();
}
const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
function theme(name) {
  if (name) document.documentElement.dataset.theme = name;
  $("theme").textContent = dark() ? "Light" : "Dark";
}
function toggleTheme() {
  theme(dark() ? "light" : "dark");
  localStorage.setItem("theme", document.documentElement.dataset.theme);
  refresh().catch(lost);
}
const KEYS = {
  o: () => look("original"), l: () => look("overlay"), m: () => look("mask"),
  "+": () => opacity(+$("opacity").value + 5), "=": () => opacity(+$("opacity").value + 5), "-": () => opacity($("opacity").value - 5),
  ArrowLeft: () => step(-1), ArrowRight: () => step(1),
  g: () => { all = !all; arrange(); }, s: snapshot, f: full, t: toggleTheme, "?": () => $("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input[type=range]") && event.key.startsWith("Arrow");
  const key = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (!key || typing || event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  event.preventDefault();
  key();
});
for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => look(button.dataset.view));
$("opacity").addEventListener("input", ({ target }) => opacity(+target.value));
$("every").addEventListener("click", () => { change({ hidden: [] }); refresh().catch(lost); });
$("all").addEventListener("click", KEYS.g);
$("snapshot").addEventListener("click", snapshot);
$("full").addEventListener("click", full);
$("theme").addEventListener("click", toggleTheme);
$("help").addEventListener("click", KEYS["?"]);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme());
document.addEventListener("visibilitychange", () => {
  for (const figure of tiles.values()) figure.querySelector("img").dataset.live = ""; // nobody looks: nothing is sent
  arrange();
});

// once a second

function lost(error) {
  connected = false;
  $("link").textContent = error instanceof TypeError ? "no connection; trying again" : error.message;
  $("link").classList.add("lost");
}

async function refresh() {
  const asked = Date.now();
  const [listed, classes, stats, shown] = await Promise.all(["/api/sources", "/api/classes", "/api/stats", "/api/view"].map((path) => ask(path)));
  sources = listed;
  if (asked > touched + 300) settings = shown;
  if (!connected) for (const figure of tiles.values()) figure.querySelector("img").dataset.live = "";
  connected = true;
  $("link").classList.remove("lost");
  arrange();
  for (const source of sources) {
    caption(source);
    if (!tiles.get(source.id).querySelector("img").dataset.live) feed(source.id, false);
  }
  legend(classes.find((one) => one.id === chosen)?.classes ?? []);
  plot(stats);
}

async function live() {
  if (!document.hidden) await refresh().catch(lost);
  setTimeout(live, 1000);
}

theme(localStorage.getItem("theme"));
live();
