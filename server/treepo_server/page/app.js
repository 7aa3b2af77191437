"use strict";
/* Joins the parts: what is shown, what was clicked or typed, and when to paint again. */

const view = {
  tree: null, layout: layOut({ nodes: [], leaves: [], leafOf: new Map() }), viewport: new Viewport(),
  selected: null, reading: null, found: null, picked: null,
};
const store = new Store();
const canvas = byId("canvas");
let colours = null;
let current = null; // the entry that is shown; null for the tree that grows, or none
let isPainting = false;

/* ---- showing ---- */

function paint() {
  if (isPainting) return;
  isPainting = true;
  requestAnimationFrame(() => {
    isPainting = false;
    view.viewport.resize(canvas.clientWidth, canvas.clientHeight);
    paintTree(canvas, view, colours);
    paintTimeline(byId("timeline"), view, byId("clock").value, colours);
  });
}

function show(tree, { isSame = false } = {}) {
  const before = view.tree;
  view.tree = tree;
  view.layout = layOut(tree ?? { nodes: [], leaves: [], leafOf: new Map() });
  view.viewport.show(view.layout);
  if (isSame && tree) reselect(before);
  else {
    showTip(view, null);
    view.viewport.reset();
    Object.assign(view, { selected: null, reading: null, picked: null });
    byId("search").value = "";
  }
  byId("empty").hidden = Boolean(tree);
  for (const id of ["timeline-box", "keys", "search-label"]) byId(id).hidden = !tree;
  byId("clock").disabled = !tree?.samples.length;
  if (byId("clock").disabled) byId("clock").value = "tokens";
  showHead(tree);
  showLegend(view);
  search();
}

/** Finds the selection in a tree that has grown since `before`: its segments have other numbers now. */
function reselect(before) {
  if (view.selected === null) return;
  const { path, start } = before.nodes[view.selected];
  const read = view.reading && before.nodes[view.reading.leaf].path;
  view.selected = view.tree.nodes.findIndex((node) => node.path === path && node.start === start);
  view.reading = view.tree.leaves.find((leaf) => view.tree.nodes[leaf.leaf].path === read) ?? null;
  view.reading = readingOf(view.selected); // which may have ended meanwhile
}

function search() {
  const { tree, layout } = view;
  const wanted = byId("search").value.trim().toLowerCase();
  view.found = null;
  let said = "";
  if (tree && (wanted || view.picked !== null)) {
    const hits = tree.leaves.filter((leaf) => (view.picked !== null ? leaf.key === view.picked
      : (leaf.answer ?? "").toLowerCase().includes(wanted)));
    view.found = new Set(hits.flatMap((leaf) => lineage(tree, leaf.leaf).map((node) => node.id)));
    said = `${hits.length} of ${tree.leaves.length} paths`;
  }
  refill(byId("found"), said);
  showVotes(tree, view.picked, pickAnswer);
  showPath(view, colours, select);
  if (layout) paint();
}

function pickAnswer(key) {
  view.picked = view.picked === key ? null : key;
  byId("search").value = "";
  search();
}

function select(id, leaf = null) {
  view.selected = id;
  view.reading = id === null ? null : leaf ?? readingOf(id);
  if (id !== null) {
    const node = view.tree.nodes[id];
    view.viewport.reveal(view.layout.rows[id], node.start, node.start + node.tokens);
    byId("spoken").textContent = `${segmentFacts(view.tree, node)}. ${(node.text ?? "").slice(0, 200)}`;
  }
  showPath(view, colours, select);
  scrollPath();
  paint();
}

/** The path that is read stays as long as it passes through the segment. */
function readingOf(id) {
  const kept = view.reading && lineage(view.tree, view.reading.leaf).some((node) => node.id === id);
  return kept ? view.reading : leafBehind(view.tree, view.layout, id);
}

function step(by) {
  const { tree, layout, reading } = view;
  const leaves = [...tree.leaves].sort((a, b) => layout.rows[a.leaf] - layout.rows[b.leaf]);
  const at = reading ? leaves.indexOf(reading) + by : 0;
  const leaf = leaves[(at + leaves.length) % leaves.length];
  select(leaf.leaf, leaf);
}

/* ---- hands and keys ---- */

attachHands(canvas, view.viewport, {
  onMove: () => { showTip(view, null); paint(); },
  onTap: (x, y) => { canvas.focus(); select(nodeAt(view, x, y)); },
});
canvas.addEventListener("pointermove", (event) => {
  if (event.buttons === 0) showTip(view, nodeAt(view, event.offsetX, event.offsetY), event.offsetX, event.offsetY);
});
canvas.addEventListener("pointerleave", () => showTip(view, null));

const KEYS = {
  "+": () => view.viewport.zoom(1.5),
  "=": () => view.viewport.zoom(1.5),
  "-": () => view.viewport.zoom(1 / 1.5),
  0: () => view.viewport.reset(),
  Escape: () => { select(null); view.picked = null; byId("search").value = ""; search(); },
  Home: () => select(ends()[0] ?? null),
  End: () => select(ends().at(-1) ?? null),
  Enter: () => { select(view.selected ?? view.layout.roots[0]); byId("path").focus(); },
};

function ends() {
  return view.tree.leaves.map((leaf) => leaf.leaf).sort((a, b) => view.layout.rows[a] - view.layout.rows[b]);
}

canvas.addEventListener("keydown", (event) => {
  if (!view.tree?.nodes.length || event.ctrlKey || event.metaKey || event.altKey) return;
  const isArrow = event.key.startsWith("Arrow");
  if (!isArrow && !(event.key in KEYS)) return;
  event.preventDefault();
  if (!isArrow) KEYS[event.key]();
  else select(view.selected === null ? view.layout.roots[0] : neighbour(view.tree, view.layout, view.selected, event.key));
  paint();
});

byId("closer").addEventListener("click", () => { view.viewport.zoom(1.5); paint(); });
byId("wider").addEventListener("click", () => { view.viewport.zoom(1 / 1.5); paint(); });
byId("fit").addEventListener("click", () => { view.viewport.reset(); paint(); });
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("clock").addEventListener("change", paint);
byId("search").addEventListener("input", () => { view.picked = null; search(); });
byId("path").tabIndex = 0;

/* ---- trees that are opened ---- */

function pick(entry) {
  current = entry;
  show(entry ? complete(entry.tree) : growing?.tree() ?? null);
  const winner = view.tree?.leaves.find((leaf) => leaf.key !== null && leaf.key === view.tree.winnerKey);
  if (winner) Object.assign(view, { selected: winner.leaf, reading: winner });
  showPath(view, colours, select);
  scrollPath();
  listTrees();
}

function listTrees() { showTrees(store.memory, growing, current, pick); }

/** Opens the trees of a text or of the promise of one, which a dropped folder breaks. */
async function openText(text, name) {
  try {
    const trees = readTrees(await text, name);
    for (const tree of trees.slice(0, KEPT_TREES).reverse()) await store.add(tree);
    pick(store.memory[0]);
    say(`${name}: ${trees.length === 1 ? "one tree" : `${trees.length} trees`}${trees.length > KEPT_TREES ? `, the first ${KEPT_TREES} kept` : ""}`);
  } catch (error) {
    say(error.message, true);
  }
}

function say(sentence, isWrong = false) {
  byId("status").textContent = sentence.slice(0, 600);
  byId("status").classList.toggle("wrong", isWrong);
}

async function openFiles(files) {
  setBusy(true);
  for (const file of files) await openText(file.text(), file.name);
  setBusy(false);
}

function setBusy(isBusy) { byId("stage").setAttribute("aria-busy", String(isBusy)); }

byId("open").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", (event) => {
  openFiles([...event.target.files]);
  event.target.value = ""; // or the same file, chosen again, would be no change
});
byId("forget").addEventListener("click", async () => { await store.forget(); pick(null); });
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
}
for (const name of ["dragleave", "drop"]) {
  document.addEventListener(name, () => document.body.classList.remove("dropping"));
}
document.addEventListener("drop", (event) => { event.preventDefault(); openFiles([...event.dataTransfer.files]); });
document.addEventListener("paste", (event) => {
  const isTyping = event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement;
  if (!isTyping) openText(event.clipboardData.getData("text/plain"), "pasted");
});

/* ---- light and dark ---- */

const THEMES = ["system", "light", "dark"];
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
let theme = THEMES.includes(recalled("localStorage", "treepo-theme")) ? recalled("localStorage", "treepo-theme") : "system";

function setTheme() {
  const isDark = theme === "dark" || (theme === "system" && systemIsDark.matches);
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  const name = theme === "system" ? "as the system" : theme;
  byId("theme").setAttribute("aria-label", `Colours: ${name}`);
  byId("theme").textContent = { system: "◐", light: "☀", dark: "☾" }[theme];
  colours = readColours();
  showPath(view, colours, select);
  paint();
}

byId("theme").addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  try { localStorage.setItem("treepo-theme", theme); } catch { /* until this page closes */ }
  setTheme();
});
systemIsDark.addEventListener("change", setTheme);
new ResizeObserver(paint).observe(canvas);

/* ---- begin ---- */

byId("server-row").hidden = isServed;
byId("key").value = recalled("sessionStorage", "treepo-key") ?? "";
byId("key-row").hidden = isServed && !byId("key").value;
if (window.innerWidth <= 720) byId("asking").open = isServed;
setTheme();
show(null);
store.open().then(listTrees);
if (isServed) loadModels();
