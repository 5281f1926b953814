// Page of a run: live video, and state from the server's event stream.
"use strict";

const KEPT_S = 60;
const RETRY_MS = 2000;
const UPDATE_S = 0.5; // between two states from the server
const CLIPS_EVERY_MS = 5000;
const byId = (id) => document.getElementById(id);
const style = getComputedStyle(document.documentElement);
const colour = (index) => style.getPropertyValue(`--stage-${Math.min(index, 5)}`).trim();
const known = (value) => value !== null && value !== undefined;
const number = (value, digits) => (known(value) ? value.toFixed(digits) : "–");
const counted = (count, name) => `${count} ${name}${count === 1 ? "" : "s"}`;

const stages = []; // names in order of first appearance, so that each stage keeps its colour
const points = []; // {at, stage_ms}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function show(state) {
  const health = state.health || {};
  byId("source").textContent = state.source;
  byId("tabs").hidden = !state.teaches;
  if (state.paused) setStatus("wait", "paused");
  else if (state.stalled) setStatus("bad", "no frames");
  else if (known(health.camera) && health.camera !== "ok") setStatus("bad", `camera ${health.camera}`);
  else if (state.latest) setStatus("good", "live");
  else setStatus("wait", "waiting for the first frame");
  byId("fps").textContent = number(state.fps, 1);
  byId("age").textContent = number(state.age_ms, 0);
  byId("temperature").textContent = number(health.temperature_c, 1);
  byId("clock").textContent = number(health.clock_mhz, 0);
  showThrottle(health.throttling);
  showLosses(state.outputs);
  // A model of whole images has one result per frame or zone, which needs no number.
  const isNumbered = !(state.latest && state.latest.subject === "image");
  if (state.latest) showFaces(state.latest.faces ?? state.latest.results, isNumbered);
  showEvents(state.events, isNumbered);
  byId("clips-card").hidden = !state.has_clips;
  const counts = [counted(state.frames, "frame"), `${counted(state.missed, "frame")} without a result`, counted(state.viewers, "viewer"), `running for ${duration(state.uptime_s)}`];
  if (state.labels.uncertain) counts.push(`${state.labels.uncertain} uncertain`);
  if (known(health.memory_own_mib)) counts.push(`${number(health.memory_own_mib, 0)} MiB memory used`);
  if (known(health.memory_available_mib)) counts.push(`${number(health.memory_available_mib, 0)} MiB memory available`);
  if (known(health.disk_free_mib)) counts.push(`${number(health.disk_free_mib, 0)} MiB disk space free`);
  byId("counts").textContent = counts.join(", ");
  // Before the first frame there is no stage.
  if (!state.stalled && !state.paused && Object.keys(state.stage_ms).length) addPoint(state.stage_ms);
  drawChart();
}

function setStatus(kind, text) {
  const status = byId("status");
  status.className = `pill ${kind}`;
  // Screen readers would read an equal text again.
  if (status.textContent !== text) status.textContent = text;
}

function showThrottle(throttling) {
  const line = byId("throttle");
  if (!throttling) {
    line.className = "card throttle";
    line.textContent = "Throttling: not reported by this machine";
    return;
  }
  const now = throttling.now.join(", ");
  const before = throttling.since_boot.join(", ");
  line.className = `card throttle ${now ? "bad" : before ? "warn" : "good"}`;
  line.textContent = now ? `Throttling now: ${now}` : before ? `Throttling since boot: ${before}` : "Throttling: none since boot";
}

function showLosses(outputs) {
  const losses = Object.entries(outputs).flatMap(([name, account]) =>
    Object.entries(account.dropped).map(([reason, count]) => `${count} of ${account.produced} ${name} (${reason})`));
  byId("losses").textContent = `Not written: ${losses.join(", ")}`;
  byId("losses").hidden = losses.length === 0;
}

function place({ track_id, zone }, isNumbered) {
  const number = isNumbered && known(track_id) ? [`face ${track_id}`] : [];
  return [...number, ...(known(zone) ? [zone] : [])].join(", ");
}

function showFaces(faces, isNumbered) {
  const cards = faces.map((face) => {
    // No class has the label of an uncertain face.
    const isUncertain = !(face.label in face.probabilities);
    const card = element("li", undefined, isUncertain ? "card face uncertain" : "card face");
    const title = element("h3", face.label);
    title.append(element("small", place(face, isNumbered)));
    card.append(title);
    // Of equal probabilities, the label's is first.
    const isLabel = (entry) => Number(entry[0] === face.label);
    const best = Object.entries(face.probabilities).sort((a, b) => b[1] - a[1] || isLabel(b) - isLabel(a)).slice(0, 3);
    for (const [label, probability] of best) {
      const bar = element("div", undefined, "bar");
      const track = element("i");
      track.style.setProperty("--share", `${(100 * probability).toFixed(1)}%`);
      bar.append(element("span", label), track, element("span", `${Math.round(100 * probability)} %`));
      card.append(bar);
    }
    return card;
  });
  byId("faces").replaceChildren(...(cards.length ? cards : [element("li", "no faces", "dim")]));
}

function showEvents(events, isNumbered) {
  const lines = events.map((event) => {
    const line = element("li");
    line.append(element("time", new Date(1000 * event.wall_s).toLocaleTimeString()));
    const where = place(event, isNumbered);
    const text = element("span", where && `${where}: `);
    // The same label again: the label between had no event (--event-label).
    const hasChanged = event.previous && event.previous !== event.label;
    // Isolated, since two labels of a right-to-left script would stand in reverse order around the arrow.
    if (hasChanged) text.append(element("bdi", event.previous), " → ");
    text.append(element("bdi", event.label));
    line.append(text);
    return line;
  });
  byId("events").replaceChildren(...(lines.length ? lines : [element("li", "no events yet", "dim")]));
}

let shownClips = "";
async function showClips() {
  if (byId("clips-card").hidden || document.hidden) return;
  const response = await fetch("/api/clips").catch(() => null);
  if (!response || !response.ok) return;
  const clips = await response.json();
  // A new list would load all pictures again.
  if (JSON.stringify(clips) === shownClips) return;
  shownClips = JSON.stringify(clips);
  const entries = clips.map((clip) => {
    const entry = element("li"), button = element("button"), picture = element("img");
    picture.src = `/clips/${clip.picture}`;
    picture.alt = "";
    picture.loading = "lazy";
    const time = new Date(clip.time).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    button.append(picture, element("bdi", clip.label), element("small", clip.zone), element("time", time));
    button.onclick = () => play(clip);
    entry.append(button);
    return entry;
  });
  byId("clips").replaceChildren(...(entries.length ? entries : [element("li", "no clips yet", "dim")]));
}

function play(clip) {
  const player = byId("player"), video = player.querySelector("video");
  video.src = `/clips/${clip.clip}`;
  player.onclose = () => { video.removeAttribute("src"); video.load(); };
  player.showModal();
  video.play().catch(() => {}); // the browser may want a second click
}

function addPoint(stageMs) {
  const at = performance.now() / 1000;
  for (const name of Object.keys(stageMs)) if (!stages.includes(name)) stages.push(name);
  // A point stands for the time since the previous one; otherwise the first one would have no width.
  // Nothing is drawn in a gap, such as a pause or a lost connection.
  const last = points[points.length - 1];
  if (!last || at - last.at > 4 * UPDATE_S) {
    if (last) points.push({ at: last.at, stageMs: {} }, { at: at - UPDATE_S, stageMs: {} });
    points.push({ at: at - UPDATE_S, stageMs });
  }
  points.push({ at, stageMs });
  while (points.length && at - points[0].at > KEPT_S + 2) points.shift();
  byId("chart").dataset.points = points.length;
  const total = stages.reduce((sum, name) => sum + (stageMs[name] || 0), 0);
  byId("total").textContent = `${total.toFixed(1)} ms`;
  byId("legend").replaceChildren(...stages.map((name, index) => {
    const entry = element("li", `${name} ${number(stageMs[name], 1)}`);
    entry.style.setProperty("--colour", colour(index));
    return entry;
  }));
}

function drawChart() {
  const canvas = byId("chart");
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const bottom = 18, top = 6;
  const now = performance.now() / 1000;
  const totals = points.map((point) => stages.reduce((sum, name) => sum + (point.stageMs[name] || 0), 0));
  const most = niceCeiling(Math.max(1, ...totals));
  pen.font = "11px system-ui, sans-serif";
  const left = Math.max(50, pen.measureText(`${most} ms`).width + 6);
  const x = (at) => left + (width - left) * (1 - (now - at) / KEPT_S);
  const y = (ms) => height - bottom - (height - bottom - top) * ms / most;
  grid(pen, width, height, left, y, most);
  pen.save();
  pen.beginPath();
  pen.rect(left, 0, width - left, height);
  pen.clip();
  const base = points.map(() => 0);
  stages.forEach((name, index) => {
    const upper = points.map((point, i) => base[i] + (point.stageMs[name] || 0));
    pen.beginPath();
    points.forEach((point, i) => pen.lineTo(x(point.at), y(upper[i])));
    for (let i = points.length - 1; i >= 0; i--) pen.lineTo(x(points[i].at), y(base[i]));
    pen.closePath();
    pen.fillStyle = colour(index);
    pen.globalAlpha = 0.82;
    pen.fill();
    upper.forEach((value, i) => { base[i] = value; });
  });
  pen.restore();
}

function grid(pen, width, height, left, y, most) {
  pen.fillStyle = style.getPropertyValue("--dim");
  pen.strokeStyle = style.getPropertyValue("--line");
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (let i = 0; i <= 4; i++) {
    const ms = most * i / 4;
    pen.beginPath();
    pen.moveTo(left, y(ms));
    pen.lineTo(width, y(ms));
    pen.stroke();
    if (i % 2 === 0) pen.fillText(i === 4 ? `${ms} ms` : ms, left - 5, Math.max(8, y(ms)));
  }
  pen.textBaseline = "bottom";
  pen.textAlign = "left";
  pen.fillText(`${KEPT_S} s ago`, left, height);
  pen.textAlign = "right";
  pen.fillText("now", width, height);
}

function niceCeiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 8, 10].map((step) => step * power).find((step) => step >= value);
}

function duration(seconds) {
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = parts.findIndex(([, size]) => seconds >= size);
  const [unit, size] = parts[first < 0 ? 3 : first];
  return `${Math.floor(seconds / size)} ${unit}`;
}

function watch() {
  const video = byId("video");
  video.onerror = () => setTimeout(watch, RETRY_MS);
  video.onload = () => { video.style.aspectRatio = `${video.naturalWidth} / ${video.naturalHeight}`; };
  // A new address each time, because Chromium does not request an address again whose video has ended.
  video.src = `/stream.mjpg?${Date.now()}`;
}

let wasLost = false;
function listen() {
  const stream = new EventSource("/api/events");
  stream.onmessage = (message) => {
    // Browsers may report no error when the video stream ends: request it again.
    if (wasLost) watch();
    wasLost = false;
    show(JSON.parse(message.data));
  };
  stream.onerror = () => {
    wasLost = true;
    setStatus("bad", "connection lost");
    if (stream.readyState === EventSource.CLOSED) setTimeout(reconnect, RETRY_MS);
  };
}

// The run may have another token now, or the cookie has expired: then the page leads to the login.
async function reconnect() {
  const response = await fetch("/api/state").catch(() => null);
  if (response && response.status === 401) location.reload();
  else listen();
}

watch();
listen();
setInterval(showClips, CLIPS_EVERY_MS);
window.addEventListener("resize", drawChart);
