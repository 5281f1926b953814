// The tab "Teach": class cards, recording, live bars and the region. The server holds the state.
"use strict";

const RETRY_MS = 2000;
const HOLD_REPEAT_MS = 500;
const MOST_THUMBS = 24;
const LEAST_REGION = 0.05; // of a side: a smaller rectangle is a click
const byId = (id) => document.getElementById(id);

let state = { version: 0, classes: [], region: null };
let live = null;
let held = null; // the class whose button is held
const cards = new Map(); // by class

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function say(text, isError) {
  byId("message").textContent = text;
  byId("message").classList.toggle("bad", Boolean(isError));
}

// Requests are sent one after the other, so that the end of a recording does not arrive before its beginning.
let sending = Promise.resolve();
function send(name, body, reaction) {
  sending = sending.then(async () => {
    const request = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body || {}) };
    const answer = await fetch(`/api/teach/${name}`, request).catch(() => null);
    const document = answer && await answer.json().catch(() => null);
    if (answer && answer.status === 401) location.href = "/login";
    else if (!document) say("the server does not respond", true);
    else if (document.error) say(document.error, true);
    else { setState(document); if (reaction !== undefined) say(reaction); }
  });
  return sending;
}

function setState(next) {
  if (next.version < state.version) return;
  if (next.message && next.message !== state.message) say(next.message, true);
  state = next;
  document.body.dataset.version = state.version;
  const names = state.classes.map((each) => each.name);
  for (const name of cards.keys()) if (!names.includes(name)) cards.delete(name);
  const shown = state.classes.map(showClass), list = byId("classes");
  // An element that is inserted again loses the pointer that holds its button.
  if (shown.length !== list.children.length || shown.some((root, index) => list.children[index] !== root)) list.replaceChildren(...shown);
  byId("undo").disabled = !state.undo;
  byId("undo").textContent = state.undo ? `Undo: ${state.undo}` : "Undo";
  showResult();
  showRegion(state.region);
  showLive();
}

// A card is kept while its class exists.
function showClass({ name, pictures }) {
  if (!cards.has(name)) cards.set(name, makeCard(name));
  const card = cards.get(name);
  card.count.textContent = pictures.length === 1 ? "1 picture" : `${pictures.length} pictures`;
  const shown = pictures.slice(-MOST_THUMBS).reverse();
  for (const key of card.images.keys()) if (!shown.includes(key)) card.images.delete(key);
  const more = pictures.length - shown.length;
  card.thumbs.replaceChildren(...shown.map((picture) => thumb(card, name, picture)), ...(more > 0 ? [element("span", `and ${more} more`)] : []));
  card.hold.classList.toggle("on", state.recording === name);
  card.hold.textContent = state.recording === name ? "Recording…" : "Hold to record";
  return card.root;
}

function makeCard(name) {
  const root = element("li", undefined, "card class");
  const header = element("header"), title = element("h3", name), count = element("small");
  title.append(count);
  const rename = element("button", "Rename"), remove = element("button", "Delete");
  rename.onclick = () => {
    const wanted = prompt(`New name of ${name}`, name);
    if (wanted && wanted.trim() !== name) send("rename", { name, new: wanted.trim() }, "");
  };
  remove.onclick = () => send("remove", { name }, "");
  header.append(title, rename, remove);
  const bar = element("div", undefined, "bar"), track = element("i"), share = element("span", "–");
  bar.append(track, share);
  const hold = element("button", "Hold to record", "hold"), thumbs = element("div", undefined, "thumbs");
  holdable(hold, name);
  root.append(header, bar, hold, thumbs);
  root.dataset.name = name;
  return { root, count, track, share, hold, thumbs, images: new Map() };
}

function thumb(card, name, picture) {
  if (!card.images.has(picture)) {
    const button = element("button"), image = new Image();
    image.alt = `picture of ${name}`;
    image.src = `/teach/pictures/${encodeURIComponent(name)}/${encodeURIComponent(picture)}`;
    button.title = "Delete this picture";
    button.append(image);
    button.onclick = () => send("remove-picture", { name, picture }, "");
    card.images.set(picture, button);
  }
  return card.images.get(picture);
}

// Mouse, finger, or the space key: the picture is recorded while it is down.
function holdable(button, name) {
  let repeating = 0;
  const begin = () => {
    if (held) return;
    held = name;
    say("");
    send("record", { name, held: true });
    repeating = setInterval(() => send("record", { name, held: true }), HOLD_REPEAT_MS);
  };
  const end = () => {
    if (held !== name) return;
    held = null;
    clearInterval(repeating);
    send("record", { name, held: false });
  };
  button.onpointerdown = (event) => { if (event.button === 0) { button.setPointerCapture(event.pointerId); begin(); } };
  button.onpointerup = button.onpointercancel = button.onlostpointercapture = button.onblur = end;
  button.onkeydown = (event) => { if (event.key === " " || event.key === "Enter") { event.preventDefault(); begin(); } };
  button.onkeyup = end;
  button.oncontextmenu = (event) => event.preventDefault(); // a long touch
  document.addEventListener("visibilitychange", () => { if (document.hidden) end(); });
}

function showResult() {
  const { fit } = state;
  const recorded = state.classes.filter((each) => each.pictures.length > 1).length;
  byId("accuracy").textContent = state.is_fitting && recorded > 1 ? "fitting…" : fit && fit.accuracy ? fit.accuracy : "";
  byId("advice").textContent = fit ? fit.advice : recorded < 2 ? "Record two things, about ten pictures each, from different sides." : "";
  byId("use").disabled = !fit || state.is_fit_used;
  byId("back").disabled = !state.has_before;
  byId("in-use").textContent = state.is_used ? "The run uses a taught model." : state.base ? `The run uses ${state.base}.` : "No model is in use yet.";
  byId("file").textContent = state.file;
  byId("folder").textContent = state.folder;
  byId("size").textContent = `${(state.size_bytes / 1e6).toFixed(1)} of at most ${(state.most_bytes / 1e6).toFixed(0)} MB`;
  byId("download-model").hidden = !state.is_used;
  byId("subject-hint").hidden = state.subject !== "face";
  byId("region-actions").hidden = !state.has_own_region;
}

function showLive() {
  const probabilities = live && live.probabilities || {};
  for (const [name, card] of cards) {
    const value = probabilities[name];
    card.track.style.setProperty("--share", `${(100 * (value || 0)).toFixed(1)}%`);
    card.share.textContent = value === undefined ? "–" : `${Math.round(100 * value)} %`;
    card.root.classList.toggle("best", Boolean(live) && live.label === name);
  }
  const distance = live ? live.unlike : undefined; // 1: the threshold
  byId("none").hidden = !state.fit;
  byId("none").classList.toggle("unlike", distance > 1);
  byId("none").querySelector("i").style.setProperty("--share", `${Math.min(100, 50 * (distance || 0)).toFixed(1)}%`);
  byId("none-value").textContent = distance === undefined ? "–" : distance > 1 ? "uncertain" : "known";
  document.body.dataset.label = live && live.label || "";
}

function showRegion(region) {
  const box = byId("region");
  box.hidden = !region;
  byId("whole").hidden = !region;
  if (!region) return;
  for (const [name, value] of [["left", region.x], ["top", region.y], ["width", region.width], ["height", region.height]]) {
    box.style.setProperty(name, `${(100 * value).toFixed(2)}%`);
  }
}

// Draws the region with a mouse or a finger.
function drawable(stage) {
  let from = null;
  const at = (event) => {
    const box = stage.getBoundingClientRect();
    const inside = (value) => Math.min(1, Math.max(0, value));
    return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
  };
  const drawn = (event) => {
    const [x, y] = at(event);
    return { x: Math.min(x, from[0]), y: Math.min(y, from[1]), width: Math.abs(x - from[0]), height: Math.abs(y - from[1]) };
  };
  stage.onpointerdown = (event) => {
    if (!stage.classList.contains("drawing")) return;
    event.preventDefault();
    stage.setPointerCapture(event.pointerId);
    from = at(event);
  };
  stage.onpointermove = (event) => { if (from) showRegion(drawn(event)); };
  stage.onpointerup = (event) => {
    if (!from) return;
    const { x, y, width, height } = drawn(event);
    from = null;
    setDrawing(false);
    if (width < LEAST_REGION || height < LEAST_REGION) showRegion(state.region);
    else send("region", { region: [x, y, width, height] }, "");
  };
  stage.onpointercancel = () => { from = null; showRegion(state.region); };
}

function setDrawing(isDrawing) {
  byId("stage").classList.toggle("drawing", isDrawing);
  byId("draw").setAttribute("aria-pressed", isDrawing);
  byId("region-hint").textContent = isDrawing ? "Draw a rectangle on the picture." : "";
}

function watch() {
  const video = byId("video");
  video.onerror = () => setTimeout(watch, RETRY_MS);
  video.onload = () => byId("stage").style.setProperty("--aspect", video.naturalWidth / video.naturalHeight);
  video.src = `/stream.mjpg?${Date.now()}`;
}

let wasLost = false;
function listen() {
  const stream = new EventSource("/api/teach/events");
  const received = () => {
    if (wasLost) watch();
    wasLost = false;
    byId("status").className = "pill good";
    if (byId("status").textContent !== "live") byId("status").textContent = "live";
  };
  stream.addEventListener("state", (message) => { received(); setState(JSON.parse(message.data)); });
  stream.addEventListener("live", (message) => { live = JSON.parse(message.data); showLive(); });
  stream.onerror = () => {
    wasLost = true;
    state.version = 0; // a run that was started again counts anew
    byId("status").className = "pill bad";
    byId("status").textContent = "connection lost";
    if (stream.readyState === EventSource.CLOSED) setTimeout(reconnect, RETRY_MS);
  };
}

async function reconnect() {
  const response = await fetch("/api/state").catch(() => null);
  if (response && response.status === 401) location.reload();
  else listen();
}

byId("new").onsubmit = (event) => {
  event.preventDefault();
  const name = byId("new-name").value.trim();
  if (name) send("add", { name }, "");
  byId("new-name").value = "";
};
byId("undo").onclick = () => send("undo", {}, "");
byId("use").onclick = () => { say("writing the model…"); send("use", {}, "The run uses this model now."); };
byId("back").onclick = () => send("back", {}, "The run uses the model before.");
byId("draw").onclick = () => setDrawing(!byId("stage").classList.contains("drawing"));
byId("whole").onclick = () => send("region", { region: null }, "");
drawable(byId("stage"));
watch();
listen();
