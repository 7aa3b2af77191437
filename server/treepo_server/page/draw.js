"use strict";
/* Paints a laid-out tree and its timeline on canvases, and says what lies under the pointer. Only
   what is in sight is painted. Colours come from the style sheet, so that they follow the theme. */

const DENSE_ROW = 11; // pixels a row needs for its label
const LEGIBLE = 3; // pixels a line needs for the colours of its tokens
const RAMP_STEPS = 64;
const LABEL_PADDING = 30; // pixels beside an answer: the gap before it, its tick, the edge
const DASH = [5, 3];

/** The theme's colours, as the style sheet has them now, and the ramp between its calm and hot. */
function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ink", "soft", "line", "panel", "strong", "win", "lost", "halo", "calm", "middle", "warm", "hot"];
  const colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  const stops = [colours.calm, colours.middle, colours.warm, colours.hot].map(channels);
  return { ...colours, ramp: Array.from({ length: RAMP_STEPS + 1 }, (_, index) => mixed(stops, index / RAMP_STEPS)) };
}

function channels(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function mixed(stops, share) {
  const at = share * (stops.length - 1);
  const [low, high] = [stops[Math.floor(at)], stops[Math.ceil(at)]];
  return `rgb(${low.map((channel, index) => Math.round(channel + (high[index] - channel) * (at % 1))).join(" ")})`;
}

/** A colour between calm and hot for an entropy of `value` nats; `scale` is the hottest. */
function entropyColour(colours, value, scale) {
  if (value === null || !scale) return colours.soft;
  return colours.ramp[Math.round(within(value / scale, 0, 1) * RAMP_STEPS)];
}

/** Sizes a canvas to its box in device pixels; returns its context in CSS pixels. */
function fitted(canvas) {
  const { clientWidth, clientHeight } = canvas;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(clientWidth * ratio);
  canvas.height = Math.round(clientHeight * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  return pen;
}

/** Paints the tree. `view` is what app.js shows: tree, layout, viewport, selection, found. */
function paintTree(canvas, view, colours) {
  const pen = fitted(canvas);
  const { tree, layout, viewport } = view;
  if (!tree) return;
  const chosen = new Set(view.selected === null ? [] : lineage(tree, view.reading?.leaf ?? view.selected).map((node) => node.id));
  paintTokens(pen, viewport, colours);
  const isNew = novelty(view);
  for (const node of tree.nodes) {
    const isChosen = chosen.has(node.id);
    if (isNew(node) || isChosen) paintNode(pen, view, colours, node, isChosen);
  }
  pen.globalAlpha = 1;
  pen.fillStyle = colours.ink;
  pen.beginPath();
  pen.arc(viewport.x(0) - PAD.left + 10, viewport.y(layout.promptRow), 5, 0, 2 * Math.PI);
  pen.fill();
  for (const node of tree.nodes) if (!layout.children[node.id].length) paintEnd(pen, view, colours, node, chosen.has(node.id));
}

/** Whether a segment is in sight and not on the very pixels of one before: a wide tree has many
    rows to a pixel. Where a branch only passes through, to rows out of sight, a few stand for all. */
function novelty({ layout, viewport, found }) {
  const seen = new Set();
  return (node) => {
    const [x0, x1] = [viewport.x(node.start), viewport.x(node.start + node.tokens)];
    const y = viewport.y(layout.rows[node.id]);
    const above = viewport.y(node.parent === null ? layout.promptRow : layout.rows[node.parent]);
    const isOut = x1 < -PAD.left || x0 > viewport.width || Math.max(y, above) < -9 || Math.min(y, above) > viewport.height + 9;
    if (isOut) return false;
    const grain = y < -9 || y > viewport.height + 9 ? 256 : 1;
    const key = [x0, x1, above, y / grain].map(Math.round).join() + (found?.has(node.id) ?? "");
    return !seen.has(key) && Boolean(seen.add(key));
  };
}

function paintTokens(pen, viewport, colours) {
  const step = niceStep(90 / viewport.pxPerToken);
  pen.strokeStyle = colours.line;
  pen.lineWidth = 1;
  pen.globalAlpha = 0.6;
  const first = Math.max(0, Math.floor(viewport.left / viewport.pxPerToken / step) * step);
  for (let token = first; token <= viewport.maxEnd; token += step) {
    const x = Math.round(viewport.x(token)) + 0.5;
    if (x > viewport.width) break;
    line(pen, [[x, 0], [x, viewport.height]]);
  }
  pen.globalAlpha = 1;
}

function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, least)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least) ?? 10 * power;
}

function paintNode(pen, view, colours, node, isChosen) {
  const { tree, layout, viewport } = view;
  const [x0, x1] = [viewport.x(node.start), viewport.x(node.start + node.tokens)];
  const y = viewport.y(layout.rows[node.id]);
  const above = viewport.y(node.parent === null ? layout.promptRow : layout.rows[node.parent]);
  const width = thickness(node, viewport);
  const bend = Math.min((x1 - x0) * 0.5, 16);
  const isFaded = view.found && !view.found.has(node.id);
  pen.globalAlpha = isFaded ? 0.14 : 1;
  pen.setLineDash(node.isLate ? DASH : []);
  const walk = () => {
    pen.beginPath();
    if (node.parent === null) fromPrompt(pen, x0, above, y);
    else pen.moveTo(x0, above);
    if (node.parent !== null && above !== y) pen.bezierCurveTo(x0 + bend * 0.7, above, x0 + bend * 0.3, y, x0 + bend, y);
    pen.lineTo(x1, y);
    pen.stroke();
  };
  if (isChosen) {
    pen.strokeStyle = colours.halo;
    pen.lineWidth = width + 6;
    walk();
  }
  pen.strokeStyle = entropyColour(colours, node.entropy, layout.scale);
  pen.lineWidth = width;
  walk();
  pen.setLineDash([]);
  if (node.entropies.length && viewport.pxPerToken >= 1.5 && width >= LEGIBLE) paintEach(pen, view, colours, node, bend, width);
  if (node.id === view.selected) {
    pen.strokeStyle = colours.ink;
    pen.lineWidth = 1.5;
    pen.strokeRect(x0, y - width / 2 - 3, Math.max(3, x1 - x0), width + 6);
  } else if (x1 - x0 > 6 && width >= LEGIBLE) {
    pen.fillStyle = colours.panel; // a gap where one segment ends and the next begins
    pen.fillRect(x1 - 1, y - width / 2 - 1, 1, width + 2);
  }
}

/** The way from the prompt, which has no tokens of its own here, to a root segment. */
function fromPrompt(pen, x, prompt, y) {
  const start = x - PAD.left + 10;
  pen.moveTo(start, prompt);
  pen.bezierCurveTo((start + x) / 2, prompt, (start + x) / 2, y, x, y);
}

/** Token by token, behind the bend. */
function paintEach(pen, { layout, viewport }, colours, node, bend, width) {
  const y = viewport.y(layout.rows[node.id]);
  const bent = viewport.x(node.start) + (node.parent === null ? 0 : bend);
  node.entropies.forEach((entropy, index) => {
    const x = viewport.x(node.start + index);
    if (x < bent || x + viewport.pxPerToken < 0 || x > viewport.width) return;
    pen.fillStyle = entropyColour(colours, entropy, layout.scale * 1.5);
    pen.fillRect(x, y - width / 2, viewport.pxPerToken, width);
  });
  if (node.isLate) paintGaps(pen, colours, bent, viewport.x(node.start + node.tokens), y, width);
}

/** The gaps of a dashed line, over the colours of its tokens. */
function paintGaps(pen, colours, x0, x1, y, width) {
  pen.strokeStyle = colours.panel;
  pen.lineWidth = width + 1;
  pen.setLineDash([DASH[1], DASH[0]]);
  pen.lineDashOffset = DASH[1];
  line(pen, [[x0, y], [x1, y]]);
  pen.setLineDash([]);
  pen.lineDashOffset = 0;
}

/** Line width in pixels: the root of the mass, so that a sixteenth is still a quarter as thick. */
function thickness(node, viewport) {
  return within(Math.sqrt(node.mass) * 14, 1.2, Math.max(1.2, viewport.pxPerRow * 0.8));
}

function paintEnd(pen, view, colours, node, isChosen) {
  const { tree, layout, viewport } = view;
  const y = viewport.y(layout.rows[node.id]);
  if (y < -9 || y > viewport.height + 9) return;
  const x = viewport.x(node.start + node.tokens);
  const leaf = tree.leafOf.get(node.id);
  const isWinner = leaf && leaf.key !== null && leaf.key === tree.winnerKey;
  pen.globalAlpha = view.found && !view.found.has(node.id) ? 0.2 : 1;
  const colour = leaf ? (isWinner ? colours.win : colours.soft) : node.finish ? colours.lost : colours.strong;
  pen.fillStyle = colour;
  if (viewport.pxPerRow < DENSE_ROW) pen.fillRect(x + 2, y - 1, 5, Math.max(1, Math.min(3, viewport.pxPerRow)));
  else paintLabel(pen, view, { node, leaf, isWinner, isChosen, colour, ink: colours.ink, x, y });
  pen.globalAlpha = 1;
}

function paintLabel(pen, { viewport }, { node, leaf, isWinner, isChosen, colour, ink, x, y }) {
  const size = Math.min(13, Math.max(9, viewport.pxPerRow * 0.8));
  pen.font = `${isWinner || isChosen ? "600 " : ""}${size}px system-ui, "Noto Sans", "DejaVu Sans", sans-serif`;
  pen.textBaseline = "middle";
  const label = leaf ? leaf.answer ?? "no answer" : node.finish ? `× ${node.finish}` : "…";
  // Isolated, so that a text from right to left does not turn its neighbours.
  pen.fillStyle = leaf && !isWinner && leaf.answer !== null ? ink : colour;
  pen.fillText(`${isWinner ? "✓ " : ""}\u2068${shortened(pen, label, viewport.width - x - LABEL_PADDING)}\u2069`, x + 7, y);
}

function shortened(pen, label, room) {
  const flat = [...label.slice(0, 60).replace(/\s+/g, " ")];
  if (label.length <= 60 && pen.measureText(flat.join("")).width <= room) return flat.join("");
  while (flat.length > 1 && pen.measureText(`${flat.join("")}…`).width > room) flat.pop();
  return `${flat.join("")}…`;
}

function line(pen, points) {
  pen.beginPath();
  points.forEach(([x, y], index) => (index ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.stroke();
}

/** The id of the segment under a point, null where there is none. */
function nodeAt({ tree, layout, viewport }, x, y) {
  let best = null;
  let nearest = 9;
  for (const node of tree?.nodes ?? []) {
    if (viewport.x(node.start) > x + 3 || viewport.x(node.start + node.tokens) < x - 3) continue;
    const distance = Math.abs(viewport.y(layout.rows[node.id]) - y);
    if (distance < nearest) [best, nearest] = [node.id, distance];
  }
  return best;
}

/** Paints how many paths live, by token under the tree or by second. */
function paintTimeline(canvas, { tree, layout, viewport }, clock, colours) {
  const pen = fitted(canvas);
  if (!tree) return;
  const isTime = clock === "seconds" && tree.samples.length;
  const steps = isTime ? tree.samples : layout.alive;
  const end = steps.at(-1)?.[0] || 1;
  const x = isTime ? (at) => PAD.left + (at / end) * viewport.plotWidth : (at) => viewport.x(at);
  const most = Math.max(1, ...steps.map(([, alive]) => alive));
  const base = canvas.clientHeight - 15;
  const y = (alive) => base - (alive / most) * (base - 6);
  pen.beginPath();
  pen.moveTo(x(steps[0]?.[0] ?? 0), base);
  let before = 0;
  for (const [at, alive] of steps) {
    pen.lineTo(x(at), y(before));
    pen.lineTo(x(at), y(alive));
    before = alive;
  }
  pen.lineTo(x(end), base);
  pen.fillStyle = colours.strong;
  pen.globalAlpha = 0.35;
  pen.fill();
  pen.globalAlpha = 1;
  pen.fillStyle = colours.soft;
  pen.font = `11px system-ui, "Noto Sans", "DejaVu Sans", sans-serif`;
  pen.textBaseline = "alphabetic";
  pen.fillText(`most: ${most}`, viewport.width - viewport.labels + 8, 14);
  const step = isTime ? end / 4 : niceStep(90 / viewport.pxPerToken);
  for (let at = 0; at <= end; at += step) {
    if (x(at) >= 0 && x(at) <= viewport.width) pen.fillText(isTime ? `${at.toFixed(1)} s` : String(at), x(at), base + 12);
  }
}
