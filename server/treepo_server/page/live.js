"use strict";
/* A tree while it grows: the request, its stream, and the tree as far as it has come. The server
   tells of each path where it forked off (`progress.opened`); texts come as the choices of the
   stream. When the tree has ended its own report takes the place of all this. */

/** Sends a request; calls `onNews()` as `live` grows and returns the finished tree. */
async function growTree(live, { url, key, body, onNews }) {
  const started = performance.now();
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST", signal: live.request.signal, credentials: "omit", headers: headersFor(key), body: JSON.stringify(body),
  });
  if (!response.ok) throw await failure(response);
  for await (const chunk of chunksOf(response.body)) {
    if (chunk.error) throw new Error(text(chunk.error.message ?? chunk.error));
    live.take(chunk, (performance.now() - started) / 1000);
    onNews();
  }
  if (!live.report) throw new Error("The stream ended before the tree did.");
  return { ...fromReport(live.report, live.title), samples: live.samples };
}

function headersFor(key) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  return headers;
}

/** An Error that says what the server said; `status` is HTTP's. */
async function failure(response) {
  const body = parsed(await response.text());
  const said = body?.error?.message ?? body?.error ?? body?.detail ?? response.statusText;
  const error = new Error(`${response.status}: ${typeof said === "string" ? said : JSON.stringify(said)}`);
  error.status = response.status;
  return error;
}

/** The JSON objects of a stream of server-sent events. */
async function* chunksOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const chunk = line.startsWith("data:") ? parsed(line.slice(5)) : undefined;
      if (isObject(chunk)) yield chunk;
    }
  }
}

class LiveTree {
  constructor(title) {
    this.title = title;
    this.request = new AbortController();
    this.paths = new Map();
    this.samples = [];
    this.report = null;
    this.progress = null;
  }

  /** Takes one chunk that arrived `seconds` after the request was sent. */
  take(chunk, seconds) {
    const news = chunk.tree;
    if (news?.trajectories) this.report = news;
    if (news?.progress) this.told(news.progress, seconds);
    for (const choice of list(chunk.choices)) this.heard(choice);
  }

  told(progress, seconds) {
    this.progress = progress;
    this.samples.push([seconds, count(progress.live_paths)]);
    for (const { index, parent, start, is_late } of list(progress.opened)) {
      this.paths.set(index, {
        index, parent: parent ?? null, start: count(start), isLate: is_late === true,
        length: 0, pieces: [], finish: null, answer: null,
      });
    }
  }

  heard(choice) {
    const path = this.paths.get(choice.index);
    if (!path) return;
    const said = text(choice.delta?.reasoning ?? "") + text(choice.delta?.content ?? "");
    const tokens = list(choice.token_ids).length || (said ? 1 : 0);
    path.pieces.push({ from: path.length, tokens, text: said });
    path.length += tokens;
    if (choice.finish_reason) {
      path.finish = text(choice.tree?.finish ?? choice.finish_reason);
      path.answer = textOrNull(choice.tree?.answer);
    }
  }

  /** The tree so far; masses and entropies are known when it has ended. */
  tree(finish = "growing") {
    const nodes = [];
    const leaves = [];
    for (const path of this.paths.values()) {
      const last = this.addPath(path, nodes);
      if (last && path.finish && !GIVEN_UP.has(path.finish)) {
        leaves.push({ leaf: last.id, finish: path.finish, weight: 0, answer: path.answer, key: path.answer, text: null, reward: null });
      }
    }
    const votes = tallied(leaves, false);
    return complete({
      id: "live", title: this.title, nodes, leaves, votes, answer: votes[0]?.answer ?? null,
      agreement: votes[0]?.share ?? null, effective: null, isExact: true, finish,
      uncertainty: "none", notes: [], samples: this.samples,
      stats: { generated_tokens: this.progress?.generated_tokens ?? 0 },
    });
  }

  /** Adds the segments of one path, cut where others fork off; returns its last. */
  addPath(path, nodes) {
    const forks = [...this.paths.values()].filter((other) => other.parent === path.index).map((other) => other.start);
    const inside = forks.filter((at) => at > path.start && at < path.length);
    const cuts = [...new Set([path.start, ...inside, Math.max(path.length, path.start)])].sort((a, b) => a - b);
    let parent = path.parent === null ? null : nodes.findLast(
      (node) => node.path === path.parent && node.start < path.start)?.id ?? null;
    let node = null;
    for (let index = 0; index + 1 < cuts.length; index += 1) {
      const [start, end] = [cuts[index], cuts[index + 1]];
      const own = path.pieces.filter((piece) => piece.from >= start && piece.from < end);
      node = {
        id: nodes.length, parent, path: path.index, start, tokens: end - start, mass: 1 / Math.max(1, this.paths.size),
        isLate: path.isLate, finish: end === path.length ? path.finish : null, entropy: null, entropies: [],
        text: own.map((piece) => piece.text).join(""),
      };
      nodes.push(node);
      parent = node.id;
    }
    return node;
  }
}
