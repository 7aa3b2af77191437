"use strict";
/* A tree as this page knows it, read from whatever somebody has saved: a response, a recorded
   stream, a line of a rollout file, or many of them. It draws nothing and asks nobody. What is
   read is untrusted: numbers are checked here, texts are only ever shown as text (panels.js).
   A further format is a function beside `fromReport`. */

const GIVEN_UP = new Set(["pruned", "unfinished", "failed"]);

/** All trees of a text; throws an Error with a sentence for the reader where there is none. */
function readTrees(text, name) {
  const whole = parsed(text.trim());
  const records = whole === undefined ? readLines(text) : Array.isArray(whole) ? whole : [whole];
  const isOne = records.length === 1;
  const trees = records.map((record, index) => treeOf(record, isOne ? name : `${name} ${index + 1}`));
  if (!trees.length) throw new Error(`${name} is empty.`);
  return trees;
}

function readLines(text) {
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  if (lines.some((line) => line.startsWith("data:"))) return [lastTreeOf(lines)];
  return lines.map((line, index) => {
    const record = parsed(line);
    if (record !== undefined) return record;
    throw new Error(`Line ${index + 1} is not JSON. Open a saved response or a rollout file.`);
  });
}

function lastTreeOf(lines) {
  const chunks = lines.map((line) => parsed(line.replace(/^data:\s*/, ""))).filter(isObject);
  const last = chunks.findLast((chunk) => chunk.tree?.trajectories);
  if (!last) throw new Error("This stream ends before its tree does.");
  return last;
}

function parsed(text) {
  try { return JSON.parse(text); } catch { return undefined; }
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function treeOf(record, name) {
  if (isObject(record) && "rollout" in record && isObject(record.tree)) return fromRollout(record, name);
  const report = isObject(record?.tree) ? record.tree : record;
  if (isObject(report) && Array.isArray(report.trajectories)) return fromReport(report, name);
  throw new Error(`${name}: neither a response with \`tree\` nor a line of a rollout file.`);
}

/** The `tree` object of a response. */
function fromReport(report, title) {
  const nodes = list(report.nodes).map((node) => ({
    ...nodeOf(node, count(node.num_tokens)),
    id: count(node.id),
    text: textOrNull(node.text),
    entropy: numberOrNull(node.entropy),
    entropies: list(node.entropies).map(numberOrNull),
  }));
  const leaves = list(report.trajectories).map((leaf) => leafOf(leaf, leaf.answer, leaf.key));
  return complete({
    id: text(report.id), title, leaves, nodes,
    answer: textOrNull(report.answer),
    agreement: numberOrNull(report.agreement),
    effective: numberOrNull(report.effective_samples),
    isExact: report.weights_exact === true,
    finish: text(report.finish),
    uncertainty: text(report.uncertainty ?? "none"),
    votes: list(report.votes).map(voteOf),
    stats: isObject(report.stats) ? report.stats : {},
    notes: list(report.notes).map(text),
    samples: [],
  });
}

/** A line of a rollout file: token ids without segment texts, and no vote yet. */
function fromRollout(record, name) {
  const tree = record.tree;
  const nodes = list(tree.nodes).map((node, id) => {
    const entropies = list(node.uncertainty).map(numberOrNull);
    const known = entropies.filter((value) => value !== null);
    const entropy = known.length ? known.reduce((a, b) => a + b) / known.length : null;
    return { ...nodeOf(node, list(node.token_ids).length), id, text: null, entropy, entropies };
  });
  const rewards = list(record.rewards);
  const leaves = list(tree.trajectories).map((leaf, index) => ({
    ...leafOf(leaf, leaf.answer_text ?? leaf.answer, leaf.answer), reward: numberOrNull(rewards[index]),
  }));
  const isWeighted = tree.settings?.vote === "weighted";
  const votes = tallied(leaves, isWeighted);
  return complete({
    id: text(tree.id), title: titleOf(record, name), leaves, nodes, votes,
    answer: votes[0]?.answer ?? null,
    agreement: votes[0]?.share ?? null,
    effective: null,
    isExact: tree.weights_exact === true,
    finish: text(tree.finish),
    uncertainty: text(tree.uncertainty_kind ?? "none"),
    stats: isObject(tree.stats) ? tree.stats : {},
    notes: [
      ...list(tree.notes).map(text),
      `A rollout: the vote is counted here, by ${isWeighted ? "weight" : "number of paths"}.`,
    ],
    samples: [],
  });
}

function titleOf(record, name) {
  const columns = isObject(record.columns) ? record.columns : {};
  const messages = list(columns.prompt ?? columns.messages);
  const said = messages.length ? messages.at(-1)?.content : columns.prompt ?? columns.question;
  return typeof said === "string" ? said : text(columns.id ?? name);
}

function tallied(leaves, isWeighted) {
  const votes = new Map();
  for (const leaf of leaves) {
    if (leaf.key === null) continue;
    const vote = votes.get(leaf.key) ?? { answer: leaf.answer, key: leaf.key, count: 0, weight: 0 };
    vote.count += 1;
    vote.weight += leaf.weight;
    votes.set(leaf.key, vote);
  }
  const size = (vote) => (isWeighted ? vote.weight : vote.count / leaves.length);
  return [...votes.values()].sort((a, b) => size(b) - size(a)).map((vote) => ({ ...vote, share: size(vote) }));
}

/** Fills in what the views read, and refuses what is no tree. */
function complete(tree) {
  if (!tree.nodes.length && tree.leaves.length) withoutNodes(tree);
  tree.nodes.forEach((node, index) => {
    const isTree = node.id === index && (node.parent === null || node.parent < index);
    if (!isTree) throw new Error(`${tree.title}: segment ${index} has no earlier parent.`);
  });
  tree.leaves = tree.leaves.filter((leaf) => leaf.leaf in tree.nodes);
  tree.leafOf = new Map(tree.leaves.map((leaf) => [leaf.leaf, leaf]));
  tree.winnerKey = tree.votes.find((vote) => vote.answer === tree.answer)?.key ?? null;
  return tree;
}

/** Stand-ins: one bar a trajectory, as long as its text. */
function withoutNodes(tree) {
  tree.nodes = tree.leaves.map((leaf, id) => ({
    id, parent: null, path: id, start: 0, tokens: Math.max(1, leaf.text?.length ?? 1),
    mass: leaf.weight, isLate: false, finish: leaf.finish, text: leaf.text, entropy: null, entropies: [],
  }));
  tree.leaves.forEach((leaf, id) => { leaf.leaf = id; });
  tree.notes = [...tree.notes,
    "Saved without segments: ask with include: [\"nodes\", \"texts\", \"entropies\"] to see the branches."];
}

function nodeOf(node, tokens) {
  return {
    parent: node.parent === null || node.parent === undefined ? null : count(node.parent),
    path: count(node.path ?? 0), start: count(node.start ?? 0), tokens,
    mass: numberOrNull(node.mass) ?? 1, isLate: node.is_late === true, finish: textOrNull(node.finish),
  };
}

function leafOf(leaf, answer, key) {
  return {
    leaf: count(leaf.leaf), finish: text(leaf.finish), weight: numberOrNull(leaf.weight) ?? 0,
    answer: textOrNull(answer), key: textOrNull(key), text: textOrNull(leaf.text), reward: null,
  };
}

function voteOf(vote) {
  return {
    answer: text(vote.answer), key: text(vote.key ?? vote.answer), count: count(vote.count),
    weight: numberOrNull(vote.weight) ?? 0, share: numberOrNull(vote.share) ?? 0,
  };
}

/** The segments from the prompt to one of them. */
function lineage(tree, id) {
  const walk = [];
  for (let at = id; at !== null; at = tree.nodes[at].parent) walk.push(tree.nodes[at]);
  return walk.reverse();
}

function list(value) { return Array.isArray(value) ? value : []; }
function text(value) { return typeof value === "string" ? value : String(value ?? ""); }
function textOrNull(value) { return value === null || value === undefined ? null : text(value); }
function numberOrNull(value) { return Number.isFinite(value) ? value : null; }
function count(value) {
  if (Number.isInteger(value) && value >= 0) return value;
  throw new Error(`This tree is broken: ${JSON.stringify(value) ?? "nothing"} stands where a count belongs.`);
}
