"use strict";
/* What stands beside the picture: figures, vote, path, tooltip, the list of trees. Every text of a
   model or a file enters the page here, through `textContent` and nothing else. */

/** Trees without a report, whose weights are not known, and what is said of them: without an answer, and of one. */
const UNREPORTED = new Map([["growing", ["Growing", "So far"]], ["stopped", ["Stopped", "Until it was stopped"]]]);

/** An element with properties and children; strings become text, never markup. */
function el(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function byId(id) { return document.getElementById(id); }

/** Gives an element new children, unless they look like those it has: ten times a second, while a
    tree grows. What had the focus gets it back; it is told by its `data-key`. */
function refill(element, ...children) {
  const wanted = element.cloneNode(false);
  wanted.append(...children);
  if (wanted.isEqualNode(element)) return;
  const focused = element.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  element.replaceChildren(...wanted.childNodes);
  const again = [...element.querySelectorAll("[data-key]")].find(({ dataset }) => dataset.key === focused);
  again?.focus({ preventScroll: true });
}

/** The answer and what it is worth. */
function showHead(tree) {
  byId("headline").textContent = tree ? headlineOf(tree) : "";
  const figures = tree ? figuresOf(tree) : [];
  byId("figures").replaceChildren(...figures.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  byId("notes").replaceChildren(...(tree?.notes ?? []).map((note) => el("li", {}, note)));
  byId("notes").hidden = !tree?.notes.length;
}

function headlineOf(tree) {
  const [without, withOne] = UNREPORTED.get(tree.finish) ?? ["No answer", "Answer"];
  return tree.answer === null ? without : `${withOne}: \u2068${tree.answer}\u2069`;
}

function figuresOf(tree) {
  const { generated_tokens: generated, trajectory_tokens: separate, duration_s: seconds } = tree.stats;
  const all = [
    ["agreement", tree.agreement === null ? null : percent(tree.agreement)],
    ["paths", String(tree.leaves.length)],
    ["worth", tree.effective === null ? null : `${tree.effective.toFixed(1)} independent`],
    ["tokens", Number.isFinite(generated) ? generated.toLocaleString("en") : null],
    ["saved", separate > generated ? percent(1 - generated / separate) : null],
    ["time", Number.isFinite(seconds) && seconds > 0 ? `${seconds.toFixed(1)} s` : null],
    ["weights", tree.isExact ? null : "not exact"],
    ["ended", tree.finish === "growing" ? null : tree.finish],
  ];
  return all.filter(([, value]) => value !== null);
}

/** The table of answers; `onPick(key)` is called for a click on one. */
function showVotes(tree, picked, onPick) {
  if (!tree?.votes.length) return refill(byId("votes"), el("p", { className: "hint" }, tree ? "No path has answered." : ""));
  const most = Math.max(...tree.votes.map((vote) => vote.share), 1e-9);
  const rows = tree.votes.map((vote) => {
    const button = el("button", { type: "button", title: vote.answer.slice(0, 400) }, vote.answer.slice(0, 400) || "(empty)");
    button.dataset.key = vote.key;
    button.setAttribute("aria-pressed", String(vote.key === picked));
    button.addEventListener("click", () => onPick(vote.key));
    const bar = el("span", { className: "bar" });
    bar.style.width = `${(100 * vote.share) / most}%`;
    return el("tr", { className: vote.key === tree.winnerKey ? "winner" : "" },
      el("td", { className: "answer" }, button), el("td", { className: "count" }, String(vote.count)),
      el("td", { className: "count" }, percent(vote.share)), el("td", {}, bar));
  });
  const head = ["answer", "paths", "share"].map((name) =>
    el("th", { scope: "col", className: name === "answer" ? "" : "count" }, name));
  return refill(byId("votes"), el("table", {}, el("thead", {}, el("tr", {}, ...head, el("td"))), el("tbody", {}, ...rows)));
}

/** The whole text from the prompt to a leaf, segment by segment. */
function showPath(view, colours, onSegment) {
  const { tree, layout, reading, selected } = view;
  byId("path-steps").hidden = !tree?.leaves.length;
  if (!tree || selected === null) {
    byId("path-head").textContent = "Click a segment to read its path.";
    return refill(byId("path"));
  }
  const nodes = lineage(tree, reading?.leaf ?? selected);
  byId("path-head").textContent = pathHead(tree, reading, nodes);
  const hasTexts = nodes.some((node) => node.text !== null);
  if (!hasTexts) return refill(byId("path"), reading?.text ?? "This file holds no texts.");
  const spans = nodes.map((node) => {
    const span = el("span", { title: segmentFacts(tree, node) }, node.text ?? "");
    span.style.setProperty("--tone", entropyColour(colours, node.entropy, layout.scale));
    span.dataset.key = node.id;
    if (node.id === selected) span.className = "here";
    span.addEventListener("click", () => onSegment(node.id));
    return span;
  });
  return refill(byId("path"), ...spans);
}

/** Brings the selected segment into sight, within its own box: the page itself stays where it is. */
function scrollPath() {
  const here = byId("path").querySelector(".here");
  byId("path").scrollTop = here ? here.offsetTop - byId("path").offsetTop - 40 : 0;
}

function pathHead(tree, leaf, nodes) {
  const last = nodes.at(-1);
  const tokens = `${last.start + last.tokens} tokens, ${nodes.length} ${nodes.length === 1 ? "segment" : "segments"}`;
  const isReported = !UNREPORTED.has(tree.finish);
  if (!leaf) return `Not completed (${last.finish ?? (isReported ? "given up" : tree.finish)}): ${tokens}`;
  const reward = leaf.reward === null ? "" : `, reward ${leaf.reward}`;
  const answer = leaf.answer === null ? "no answer" : `answer \u2068${leaf.answer.slice(0, 200)}\u2069`;
  const weight = isReported ? `, weight ${leaf.weight.toFixed(3)}` : "";
  return `${tree.leaves.indexOf(leaf) + 1} of ${tree.leaves.length}: ${answer}${weight}${reward}, ended: ${leaf.finish}, ${tokens}`;
}

/** One line about a segment. */
function segmentFacts(tree, node) {
  const facts = [`tokens ${node.start} to ${node.start + node.tokens}`];
  if (node.entropy !== null) facts.push(`${tree.uncertainty} ${node.entropy.toFixed(2)} nats`);
  if (!UNREPORTED.has(tree.finish)) facts.push(`weight ${node.mass.toFixed(3)}`);
  if (node.isLate) facts.push("opened late");
  if (node.finish) facts.push(`ended: ${node.finish}`);
  return facts.join(", ");
}

/** The tooltip beside the pointer, or none. */
function showTip(view, id, x, y) {
  const tip = byId("tip");
  tip.hidden = id === null;
  if (id === null) return;
  const node = view.tree.nodes[id];
  const shown = node.text === null ? "" : node.text.length > 600 ? `${node.text.slice(0, 600)}…` : node.text;
  tip.replaceChildren(...(shown ? [el("p", {}, shown)] : []), el("p", {}, segmentFacts(view.tree, node)));
  const box = tip.parentElement;
  tip.style.left = `${within(x + 14, 0, Math.max(0, box.clientWidth - tip.offsetWidth))}px`;
  tip.style.top = `${y + 18 + tip.offsetHeight > box.clientHeight ? Math.max(0, y - tip.offsetHeight - 12) : y + 18}px`;
}

/** The list of trees; `onPick(entry)` shows one, `onPick(null)` the one that grows, if any. */
function showTrees(entries, growing, current, onPick) {
  const rows = entries.map((entry) => [entry, entry.tree.title, entryFacts(entry)]);
  if (growing) rows.unshift([null, growing.title, "growing"]);
  refill(byId("trees"), ...rows.map(([entry, title, facts]) => {
    const button = el("button", { type: "button" },
      el("span", { className: "title" }, title.slice(0, 200) || "tree"), el("span", {}, facts));
    button.dataset.key = entry ? `${entry.seen} ${entry.number}` : "growing";
    if (entry === current) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => onPick(entry));
    return el("li", {}, button);
  }));
  byId("forget").hidden = !entries.length;
}

function entryFacts({ seen, tree: { answer, leaves } }) {
  const said = answer === null ? "no answer" : `\u2068${answer.slice(0, 40)}\u2069`;
  return `${said} · ${leaves.length} paths · ${new Date(seen).toLocaleString()}`;
}

/** What the colours and lines mean for this tree. */
function showLegend(view) {
  const { tree, layout } = view;
  const parts = [];
  if (tree && layout.scale) {
    const name = tree.uncertainty === "none" ? "entropy" : tree.uncertainty;
    parts.push(el("span", {}, `${name} 0`, el("i"), `${layout.scale.toFixed(1)} nats`));
  }
  if (tree && !UNREPORTED.has(tree.finish)) parts.push(el("span", {}, el("i", { className: "thick" }), "weight"));
  if (tree?.nodes.some((node) => node.isLate)) parts.push(el("span", {}, el("i", { className: "dashed" }), "opened late"));
  byId("legend").replaceChildren(...parts);
}

function percent(share) { return `${Math.round(100 * share)}%`; }
