"use strict";
/* The trees seen in this browser, newest first: in its IndexedDB, or only in memory where a
   browser has none to give. Nothing is ever sent anywhere. */

const KEPT_TREES = 100;

class Store {
  constructor() { this.memory = []; }

  /** Opens the database; the page works without one. */
  async open() {
    try {
      const asked = indexedDB.open("treepo", 1);
      asked.onupgradeneeded = () => asked.result.createObjectStore("trees", { keyPath: "number", autoIncrement: true });
      this.database = await result(asked);
      this.memory = (await result(this.trees("readonly").getAll())).reverse();
    } catch (error) {
      console.warn("trees are kept until this page closes:", error.message);
      this.database = null;
    }
  }

  trees(mode) { return this.database.transaction("trees", mode).objectStore("trees"); }

  /** Adds a tree and lets the oldest go; returns its entry. */
  async add(tree) {
    const { leafOf, ...plain } = tree; // complete() makes it anew
    const entry = { seen: Date.now(), tree: plain };
    if (this.database) {
      try { entry.number = await result(this.trees("readwrite").add(entry)); } catch (error) {
        console.warn("a tree is not kept:", error.message);
      }
    }
    this.memory.unshift(entry);
    for (const old of this.memory.splice(KEPT_TREES)) {
      if (this.database && old.number !== undefined) this.trees("readwrite").delete(old.number);
    }
    return entry;
  }

  async forget() {
    this.memory = [];
    if (this.database) await result(this.trees("readwrite").clear());
  }
}

function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
