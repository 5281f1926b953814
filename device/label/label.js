// Page for labelling: shows waiting crops in groups, and sends a decision for each. The server holds the state.
"use strict";

const CLASS_KEYS = "1234567890abcdefghijklmopqrtvwyz"; // without the keys of the commands: n s u x
const PRELOADED_GROUPS = 8;
const POLL_MS = 3000;
const DOUBLE_CLICK_MS = 250;
const NO_RESPONSE = "the server does not respond: repeat what the page then shows as not done";
const byId = (id) => document.getElementById(id);

let state = { version: 0, classes: [], counts: {}, total: 0, waiting: 0, groups: [], last: null };
let items = []; // groups to decide, a split one as one item for each crop
let at = 0;
let sending = Promise.resolve(); // requests are sent one after the other
let pending = 0;
const split = new Set(); // keys of split groups
const sent = new Set(); // crops of decisions on the way
const images = new Map(); // preloaded <img> by name of the crop

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Replaces the state; the item shown before, or the crop `name`, stays in view.
function setState(next, name) {
  const shown = name || (items[at] && items[at].crops[0].name);
  state = next;
  items = state.groups.flatMap((group) => {
    const crops = group.crops.filter((crop) => !sent.has(crop.name));
    if (!split.has(group.key)) return crops.length ? [{ ...group, crops }] : [];
    return crops.map((crop) => ({ ...group, crops: [crop], probabilities: crop.probabilities, suggestion: crop.suggestion }));
  });
  const place = items.findIndex((item) => item.crops.some((crop) => crop.name === shown));
  at = place >= 0 ? place : Math.min(at, Math.max(0, items.length - 1));
  show();
}

// The most probable first; of equal probabilities, the suggestion's is first.
function sorted({ probabilities, suggestion }) {
  const isSuggested = (entry) => Number(entry[0] === suggestion);
  return Object.entries(probabilities).sort((a, b) => b[1] - a[1] || isSuggested(b) - isSuggested(a));
}

function show() {
  const item = items[at];
  byId("progress").max = Math.max(1, state.total);
  byId("progress").value = state.total - state.waiting;
  byId("count").textContent = `${state.total - state.waiting} of ${state.total} done`;
  document.body.dataset.waiting = state.waiting;
  byId("undo").disabled = !state.last && !pending;
  for (const id of ["accept", "discard", "split", "previous", "next"]) byId(id).disabled = !item;
  byId("split").disabled = !item || item.crops.length < 2;
  showItem(item);
  showClasses(item);
  preload();
}

function showItem(item) {
  if (!item) {
    byId("title").textContent = state.total ? finished() : "No crops yet";
    byId("crops").replaceChildren(...(state.total && !state.waiting ? [element("code", state.next)] : []));
    byId("model").replaceChildren();
    return;
  }
  const several = item.crops.length > 1 ? `${item.crops.length} crops of one track` : "one crop";
  byId("title").replaceChildren(element("b", several), element("span", `${at + 1} of ${items.length} · ${day(item.crops[0].time)}`, "dim"));
  byId("crops").classList.toggle("single", item.crops.length === 1);
  byId("crops").replaceChildren(...item.crops.map((crop) => image(crop.name)));
  byId("crops").dataset.crop = item.crops[0].name;
  byId("model").replaceChildren(...sorted(item).slice(0, 3).map(([label, probability]) => {
    const bar = element("div", undefined, "bar");
    const track = element("i");
    track.style.setProperty("--share", `${(100 * probability).toFixed(1)}%`);
    bar.append(element("span", label), track, element("span", `${Math.round(100 * probability)} %`));
    return bar;
  }));
}

function finished() {
  const labelled = state.total - state.waiting - state.discarded - state.missing;
  const deleted = state.missing ? `, ${state.missing} deleted` : "";
  return `Done: ${labelled} labelled, ${state.discarded} discarded${deleted}. Next:`;
}

function day(text) {
  const time = new Date(text);
  return isNaN(time) ? "" : time.toLocaleString();
}

function showClasses(item) {
  byId("classes").replaceChildren(...state.classes.map((name, index) => {
    const button = element("button", undefined, item && item.suggestion === name ? "suggested" : "");
    button.append(element("kbd", CLASS_KEYS[index] || ""), element("span", name), element("small", state.counts[name] || 0));
    button.disabled = !item;
    button.onclick = () => decide(name);
    return button;
  }));
}

function image(name) {
  if (!images.has(name)) {
    const made = new Image();
    made.alt = "crop";
    made.onerror = () => { made.classList.add("gone"); made.alt = "this crop was deleted"; };
    made.src = `/crop/${encodeURIComponent(name)}`;
    images.set(name, made);
  }
  return images.get(name);
}

function preload() {
  const near = new Set(items.slice(Math.max(0, at - 1), at + PRELOADED_GROUPS).flatMap((item) => item.crops.map((crop) => crop.name)));
  near.forEach(image);
  for (const name of images.keys()) if (!near.has(name)) images.delete(name);
}

function say(text, isError) {
  byId("message").textContent = text;
  byId("message").classList.toggle("bad", Boolean(isError));
}

// Sends a request after those before it; `use` gets the answer to one that was accepted.
function send(path, makeBody, use) {
  pending += 1;
  sending = sending.then(async () => {
    const body = makeBody(), crops = body.files || [];
    const request = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    const answer = await fetch(path, request).catch(() => null);
    const document = answer && await answer.json().catch(() => null);
    pending -= 1;
    crops.forEach((name) => sent.delete(name));
    if (answer && answer.status === 401) location.href = "/login";
    else if (!document) { setState(state, crops[0]); say(NO_RESPONSE, true); }
    else if (answer.ok) use(document);
    else { setState(document); say(document.error, true); }
  });
}

function decide(label) {
  const item = items[at];
  if (!item) return;
  const files = item.crops.map((crop) => crop.name);
  files.forEach((name) => sent.add(name));
  items.splice(at, 1);
  at = Math.min(at, Math.max(0, items.length - 1));
  say(label === null ? `discarded ${files.length}` : `${label}: ${files.length}`);
  show();
  send("/api/decide", () => ({ files, label }), (answer) => {
    if (answer.gone.length) say(`${answer.gone.length} deleted before the decision: skipped`, true);
    const ours = answer.version === state.version + 1;
    const done = new Set(files);
    const groups = state.groups.map((group) => ({ ...group, crops: group.crops.filter((crop) => !done.has(crop.name)) }));
    state = { ...state, ...answer, groups: groups.filter((group) => group.crops.length) };
    if (ours) show();
    else load(true); // another page has decided something too
  });
}

function accept() {
  const item = items[at];
  if (!item) return;
  if (item.suggestion === null) say("the model gave these crops no label", true);
  else if (state.classes.includes(item.suggestion)) decide(item.suggestion);
  else say(`the model's label '${item.suggestion}' is not among the classes`, true);
}

function undo() {
  // The decision to undo is known once the requests before it are answered.
  send("/api/undo", () => ({ id: state.last ? state.last.id : 0 }), (answer) => {
    setState(answer, answer.restored.find((name) => !answer.gone.includes(name)));
    say(answer.gone.length ? `undone; ${answer.gone.length} deleted: skipped` : "undone", answer.gone.length);
  });
}

function splitTrack() {
  const item = items[at];
  if (!item || item.crops.length < 2) return;
  split.add(item.key);
  setState(state, item.crops[0].name);
}

function addClass() {
  const name = prompt("Name of the new class");
  if (name) send("/api/classes", () => ({ name: name.trim() }), (answer) => setState(answer));
}

async function teach() {
  byId("teach").disabled = true;
  byId("taught").textContent = "teaching…";
  byId("taught-next").textContent = "";
  const answer = await fetch("/api/teach", { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" }).catch(() => null);
  const document = answer && await answer.json().catch(() => null);
  byId("teach").disabled = false;
  if (!document || document.error) byId("taught").textContent = document ? document.error : NO_RESPONSE;
  else {
    byId("taught").textContent = [document.accuracy, ...document.notes, "Next:"].join(". ");
    byId("taught-next").textContent = document.next;
  }
}

function move(step) {
  at = Math.min(Math.max(0, at + step), Math.max(0, items.length - 1));
  show();
}

const COMMANDS = {
  " ": accept, x: () => decide(null), u: undo, s: splitTrack, n: addClass,
  ArrowLeft: () => move(-1), ArrowRight: () => move(1), ArrowUp: () => move(-1), ArrowDown: () => move(1),
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key === " " && event.target.closest("button")) return; // the browser clicks the button
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const name = key.length === 1 ? state.classes[CLASS_KEYS.indexOf(key)] : undefined;
  if (COMMANDS[key]) COMMANDS[key]();
  else if (name !== undefined && CLASS_KEYS.includes(key)) decide(name);
  else return;
  event.preventDefault();
});
for (const [id, command] of [["accept", accept], ["discard", () => decide(null)], ["undo", undo], ["split", splitTrack],
  ["previous", () => move(-1)], ["next", () => move(1)], ["add", addClass], ["teach", teach]]) {
  // After a click of the mouse, Space is the key of a command again; a click by keyboard keeps the focus.
  byId(id).onclick = (event) => { command(); if (event.detail) event.currentTarget.blur(); };
}

// The second click of a double click would decide on a track that nobody has seen.
let lastClickMs = -DOUBLE_CLICK_MS;
addEventListener("click", (event) => {
  if (event.timeStamp - lastClickMs < DOUBLE_CLICK_MS) event.stopPropagation();
  lastClickMs = event.timeStamp;
}, true);
addEventListener("beforeunload", (event) => { if (pending) event.preventDefault(); });

// Fetches the state if it is newer: other pages decide too, and a run may still collect.
async function load(always) {
  if (pending && !always) return;
  try {
    const answer = await fetch(`/api/state?version=${always ? 0 : state.version}`);
    if (answer.status === 401) { location.href = "/login"; return; }
    if (answer.status === 200) setState(await answer.json());
    if (byId("message").textContent === NO_RESPONSE) say("the server responds again");
  } catch (error) {
    say(NO_RESPONSE, true);
  }
}

setInterval(() => { if (!document.hidden) load(false); }, POLL_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) load(false); });
load(true);
