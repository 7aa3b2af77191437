"use strict";
/* Where things stand: a row for each segment, tokens from left to right, and how many paths are
   alive at each token. Units are rows and tokens; pixels belong to viewport.js. Pure functions
   of a tree, so that ten thousand segments are laid out once and not with every frame. */

const LEAST_GROWING = 40; // tokens; a tree of two of them should not fill the box

/** The rows of a tree's segments and what is read off them. */
function layOut(tree) {
  const places = new Float64Array(tree.nodes.length);
  const children = tree.nodes.map(() => []);
  const roots = [];
  for (const node of tree.nodes) (node.parent === null ? roots : children[node.parent]).push(node.id);
  let maxEnd = tree.finish === "growing" ? LEAST_GROWING : 1;
  for (const node of tree.nodes) maxEnd = Math.max(maxEnd, node.start + node.tokens);
  let numRows = 0;
  let promptRow = 0;
  if (roots.length) {
    const data = { id: null };
    const root = d3.hierarchy(data, ({ id }) => (id === null ? roots : children[id]).map((id) => ({ id })));
    d3.cluster().nodeSize([1, 1]).separation(() => 1)(root);
    let first = Infinity;
    root.each((at) => { first = Math.min(first, at.x); });
    root.each((at) => { if (at.data.id !== null) places[at.data.id] = at.x - first; });
    numRows = root.leaves().length;
    promptRow = root.x - first;
  }
  return { rows: places, children, roots, maxEnd, numRows, promptRow, alive: aliveAt(tree), scale: entropyScale(tree) };
}

/** Steps [token, live paths from there on] of a tree. */
function aliveAt(tree) {
  const changes = new Map();
  const add = (at, by) => changes.set(at, (changes.get(at) ?? 0) + by);
  for (const node of tree.nodes) {
    add(node.start, 1);
    add(node.start + node.tokens, -1);
  }
  let alive = 0;
  return [...changes].sort((a, b) => a[0] - b[0]).map(([at, by]) => [at, (alive += by)]);
}

/** The entropy, in nats, that is drawn as the hottest: nineteen of twenty segments lie below. */
function entropyScale(tree) {
  const known = tree.nodes.map((node) => node.entropy).filter((value) => value !== null).sort((a, b) => a - b);
  return known.length ? Math.max(0.5, known[Math.floor(known.length * 0.95)]) : 0;
}

/** Of the leaves behind a segment the one to read: the winner's if there is one, else the heaviest. */
function leafBehind(tree, layout, id) {
  let best = null;
  const todo = [id];
  while (todo.length) {
    const at = todo.pop();
    todo.push(...layout.children[at]);
    const leaf = tree.leafOf.get(at);
    if (leaf && (!best || rank(tree, leaf) > rank(tree, best))) best = leaf;
  }
  return best;
}

function rank(tree, leaf) {
  return (tree.winnerKey !== null && leaf.key === tree.winnerKey ? 2 : 0) + leaf.weight;
}

/** The segment that an arrow key leads to, or the same one. */
function neighbour(tree, layout, id, key) {
  const node = tree.nodes[id];
  if (key === "ArrowLeft") return node.parent ?? id;
  if (key === "ArrowRight") return layout.children[id][0] ?? id;
  const middle = node.start + node.tokens / 2;
  const sign = key === "ArrowDown" ? 1 : -1;
  let best = id;
  for (const other of tree.nodes) {
    const isBeside = other.start <= middle && middle < other.start + Math.max(1, other.tokens);
    const distance = (layout.rows[other.id] - layout.rows[id]) * sign;
    const nearest = best === id ? Infinity : (layout.rows[best] - layout.rows[id]) * sign;
    if (isBeside && other.id !== id && distance > 0 && distance < nearest) best = other.id;
  }
  return best;
}
