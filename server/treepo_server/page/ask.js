"use strict";
/* The form: which server and model, what is asked, and the tree while it grows. The key is sent to
   that server and kept by this tab. Showing is app.js's. */

const SAID_EVERY_MS = 3000; // a screen reader speaks each sentence to its end

let growing = null; // the LiveTree, while there is one
const isServed = location.protocol.startsWith("http");

function serverUrl() {
  if (isServed) return location.origin + location.pathname.replace(/\/treepo\/?$/, "");
  return byId("server").value.replace(/\/+$/, "").replace(/\/v1$/, "");
}

async function fillModels() {
  const response = await fetch(`${serverUrl()}/v1/models`, { credentials: "omit", headers: headersFor(byId("key").value) });
  if (!response.ok) throw await failure(response);
  const models = list((await response.json()).data).map((model) => text(model.id));
  byId("model").replaceChildren(...models.map((name) => el("option", { value: name }, name)));
}

async function loadModels() {
  try {
    await fillModels();
    if (!growing) say(""); // of a key or an address that was wrong
  } catch (error) { refused(error); }
}

function refused(error) {
  if (error.status === 401) {
    byId("key-row").hidden = false;
    say("This server asks for its API key.", true);
    byId("key").focus();
  } else say(error instanceof TypeError ? `The server cannot be reached: ${serverUrl()}` : error.message, true);
}

/** The request's body, from the form. */
function requested(model) {
  const extra = byId("options").value.trim();
  const options = extra ? parsed(extra) : {};
  if (!isObject(options)) throw new Error("The options of `tree` are not a JSON object.");
  const width = Number(byId("width").value);
  const body = {
    model, messages: [{ role: "user", content: byId("question").value }],
    max_tokens: Number(byId("max-tokens").value), temperature: Number(byId("temperature").value),
    n: options.width ?? width, stream: true, return_token_ids: true,
    tree: { width, include: ["nodes", "texts", "entropies"], ...options },
  };
  if (byId("seed").value !== "") body.seed = Number(byId("seed").value);
  return body;
}

async function grow() {
  if (growing) return; // Ctrl+Enter does not ask whether the button is enabled
  const live = new LiveTree(byId("question").value);
  setGrowing(live);
  try {
    if (!byId("model").value) await fillModels();
    const body = requested(byId("model").value);
    remember("treepo-key", byId("key").value);
    say("Growing…");
    pick(null);
    if (window.innerWidth <= 720) byId("stage").scrollIntoView(); // it stands below the form there
    const tree = await growTree(live, { url: serverUrl(), key: byId("key").value, body, onNews: showLive });
    const entry = await store.add(tree);
    setGrowing(null);
    if (current === null) pick(entry);
    else listTrees();
    say(headlineOf(tree));
  } catch (error) {
    setGrowing(null);
    if (current === null) show(live.paths.size ? live.tree("stopped") : null, { isSame: true });
    listTrees();
    if (error.name === "AbortError") say("Stopped: the server has ended this tree.");
    else refused(error);
  }
}

function setGrowing(live) {
  growing = live;
  byId("send").disabled = Boolean(live);
  byId("stop").disabled = !live;
  setBusy(Boolean(live));
}

let pending = null;
let saidAt = -Infinity;

/** Lays out the growing tree, unless another is looked at, at most ten times a second. */
function showLive() {
  pending ??= setTimeout(() => {
    pending = null;
    if (!growing) return;
    if (current === null) show(growing.tree(), { isSame: true });
    sayProgress(growing.progress);
  }, 100);
}

function sayProgress(progress) {
  if (!progress || performance.now() - saidAt < SAID_EVERY_MS) return;
  saidAt = performance.now();
  say(`Growing: ${progress.live_paths} live, ${progress.finished} finished, ${progress.generated_tokens} tokens`);
}

byId("ask").addEventListener("submit", (event) => { event.preventDefault(); grow(); });
byId("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("ask").requestSubmit();
});
byId("stop").addEventListener("click", () => growing?.request.abort());
byId("key").addEventListener("change", loadModels);
byId("server").addEventListener("change", loadModels);

/** The key lives as long as this tab, and nowhere where storage is refused. */
function remember(name, value) {
  try { sessionStorage.setItem(name, value); } catch { /* it is asked for again */ }
}

function recalled(storage, name) {
  try { return window[storage].getItem(name); } catch { return null; }
}
