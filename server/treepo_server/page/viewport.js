"use strict";
/* From rows and tokens to pixels and back, and the hands on it: wheel, drag, pinch. Rows and
   tokens zoom apart, since a wide tree has thousands of rows and a page a few hundred lines.
   It knows nothing of what is drawn. */

const PAD = { left: 34, top: 12, bottom: 12 };
const TALLEST_ROW = 64;

class Viewport {
  constructor() {
    this.width = this.height = 1;
    this.numRows = this.maxEnd = 1;
    this.labels = 120;
    this.reset();
  }

  reset() {
    this.zoomX = this.zoomY = 1;
    this.left = this.top = 0;
  }

  resize(width, height) {
    this.width = width;
    this.height = height;
    this.labels = Math.min(220, Math.max(84, width * 0.2));
    this.clamp();
  }

  show(layout) {
    this.numRows = Math.max(1, layout.numRows);
    this.maxEnd = layout.maxEnd;
    this.clamp();
  }

  get plotWidth() { return Math.max(1, this.width - PAD.left - this.labels); }
  get plotHeight() { return Math.max(1, this.height - PAD.top - PAD.bottom); }
  get pxPerToken() { return this.zoomX * this.plotWidth / this.maxEnd; }
  get pxPerRow() { return this.zoomY * Math.min(TALLEST_ROW, this.plotHeight / this.numRows); }

  x(token) { return PAD.left + token * this.pxPerToken - this.left; }
  y(row) { return PAD.top + this.margin + (row + 0.5) * this.pxPerRow - this.top; }

  /** A tree that is not as tall as its box stands in the middle. */
  get margin() { return Math.max(0, (this.plotHeight - this.numRows * this.pxPerRow) / 2); }

  pan(dx, dy) {
    this.left -= dx;
    this.top -= dy;
    this.clamp();
  }

  /** Zooms about a point; rows by `factor`, tokens by its root. */
  zoom(factor, px = this.width / 2, py = this.height / 2, { tokens = Math.sqrt(factor), rows = factor } = {}) {
    const token = (px - PAD.left + this.left) / this.pxPerToken;
    const row = (py - PAD.top - this.margin + this.top) / this.pxPerRow;
    this.zoomX = within(this.zoomX * tokens, 1, Math.max(1, this.maxEnd / 20));
    this.zoomY = within(this.zoomY * rows, 1, Math.max(3, this.numRows / 5));
    this.left = token * this.pxPerToken - px + PAD.left;
    this.top = row * this.pxPerRow - py + PAD.top + this.margin;
    this.clamp();
  }

  /** Moves as little as needed to have a segment in sight. */
  reveal(row, start, end) {
    const [x0, x1, y] = [this.x(start), this.x(end), this.y(row)];
    const limit = this.width - this.labels;
    if (x0 < PAD.left) this.left += x0 - PAD.left;
    else if (x1 > limit) this.left += Math.min(x1 - limit, x0 - PAD.left);
    if (y < 20) this.top += y - 20;
    else if (y > this.height - 20) this.top += y - this.height + 20;
    this.clamp();
  }

  clamp() {
    this.left = within(this.left, 0, this.plotWidth * (this.zoomX - 1));
    this.top = within(this.top, 0, Math.max(0, this.numRows * this.pxPerRow - this.plotHeight));
  }
}

function within(value, least, most) { return Math.max(least, Math.min(most, value)); }

/** Lets the pointer move a viewport; `onMove` is called after each change, `onTap` for a click. */
function attachHands(canvas, viewport, { onMove, onTap }) {
  const fingers = new Map();
  let travelled = 0;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const factor = Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.002));
    const only = event.shiftKey ? { tokens: Math.exp(-(event.deltaX || event.deltaY) * 0.002), rows: 1 } : {};
    viewport.zoom(factor, event.offsetX, event.offsetY, only);
    onMove();
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    if (!fingers.size) travelled = 0;
    fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = [event.offsetX, event.offsetY];
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) viewport.zoom(apart(now, other) / Math.max(1, apart(before, other)), ...other);
    else viewport.pan(now[0] - before[0], now[1] - before[1]);
    travelled += apart(now, before);
    fingers.set(event.pointerId, now);
    onMove();
  });
  const lift = (event) => {
    const was = fingers.delete(event.pointerId);
    if (was && event.type === "pointerup" && travelled < 6) onTap(event.offsetX, event.offsetY);
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
}

function apart(a, b) { return Math.hypot(a[0] - b[0], a[1] - b[1]); }
