// Drawing of a zone on the live video: the corners become a line for the settings. The server gets nothing.
"use strict";

const LEAST_CORNERS = 3;
const corners = []; // [x, y] as fractions of the picture

function setDrawing(isDrawing) {
  const video = byId("video"), layer = byId("drawing");
  if (isDrawing) {
    corners.length = 0;
    // As the video in its element, the layer is scaled to fit and centred.
    layer.setAttribute("viewBox", `0 0 ${video.naturalWidth} ${video.naturalHeight}`);
  }
  const isClosed = !isDrawing && corners.length >= LEAST_CORNERS;
  layer.classList.toggle("open", isDrawing);
  layer.classList.toggle("closed", isClosed);
  byId("draw").textContent = isDrawing ? "Cancel" : "Draw a zone";
  byId("draw-hint").textContent = isDrawing ? "Click or tap the corners. A double click closes the zone." : "";
  byId("draw-done").hidden = !isDrawing;
  byId("zone").hidden = !isClosed;
  showZone();
}

function showZone() {
  const { width, height } = byId("drawing").viewBox.baseVal;
  const points = corners.map(([x, y]) => `${x * width},${y * height}`).join(" ");
  // A line without length is a dot, for the first corner.
  byId("outline").setAttribute("points", corners.length === 1 ? `${points} ${points}` : points);
  byId("draw-done").disabled = corners.length < LEAST_CORNERS;
  const name = byId("zone-name").value.trim().replace(/[^\w-]+/g, "-") || "zone";
  const text = `${name}=${corners.flat().map((value) => Number(value.toFixed(3))).join(",")}`;
  byId("zone-setting").textContent = `zone = ["${text}"]`;
  byId("zone-option").textContent = `--zone ${text}`;
}

function addCorner(event) {
  if (event.button !== 0) return;
  event.preventDefault();
  const layer = byId("drawing"), { width, height } = layer.viewBox.baseVal;
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(layer.getScreenCTM().inverse());
  const inside = (value) => Math.min(1, Math.max(0, value));
  corners.push([inside(point.x / width), inside(point.y / height)]);
  showZone();
}

function closeZone() {
  corners.pop(); // the second click of two is at the same place
  if (corners.length >= LEAST_CORNERS) setDrawing(false);
  else showZone();
}

byId("draw").onclick = () => {
  const isDrawing = byId("drawing").classList.contains("open");
  if (isDrawing) corners.length = 0;
  setDrawing(!isDrawing);
};
byId("draw-done").onclick = () => setDrawing(false);
byId("drawing").onpointerdown = addCorner;
byId("drawing").ondblclick = closeZone;
byId("zone-name").oninput = showZone;
