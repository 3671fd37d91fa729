// Gives a page window.electronAPI: each method of the kernel as a function that returns a promise,
// each event as on…(callback), which returns a function that ends it. A call that fails rejects
// with an Error that has `code` and `details`. onStoreUpdate(callback, names) follows stores: first
// where they stand (`state`), then what changes (`changes`).
(() => {
  "use strict";
  if (window.electronAPI) return; // the program that shows this page brought its own
  const TABLE = /*TABLE*/ null;
  const CONNECT_PATIENCE = 10000; // ms until a call without a connection gives up
  const FIRST_PAUSE = 250, LONGEST_PAUSE = 5000; // ms between attempts to connect
  const address = new URL("ipc", document.currentScript?.src ?? location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";

  class AIPlaygroundError extends Error {
    constructor({ code, message, data }) {
      super(message);
      this.name = "AIPlaygroundError";
      this.code = code;
      this.details = data ?? {};
    }
  }
  const unavailable = (message) => new AIPlaygroundError({ code: -3, message });

  const listeners = new Map(Object.keys(TABLE.events).map((name) => [name, new Set()]));
  const watchers = new Set(); // of stores: { callback, names }
  const followed = new Map(); // stores: { version, state }
  const calls = new Map(); // by id: what waits for a response
  const waiting = new Set(); // what waits for a connection
  let socket = null, lastId = 0, expected = null, pause = FIRST_PAUSE, timer = null;

  const open = () => socket?.readyState === WebSocket.OPEN;
  const listening = () => [...listeners.values()].some((each) => each.size > 0);
  const wanted = () => waiting.size > 0 || watchers.size > 0 || listening();

  function connect() {
    if (socket !== null || timer !== null) return;
    socket = new WebSocket(address);
    socket.onopen = () => {
      pause = FIRST_PAUSE;
      for (const each of [...waiting]) each();
      resync();
      followed.clear();
      if (watchers.size > 0) follow(watchedStores());
    };
    socket.onmessage = (message) => received(JSON.parse(message.data));
    socket.onclose = () => {
      socket = null;
      for (const call of calls.values()) call.reject(unavailable("The connection was lost."));
      calls.clear();
      if (!wanted()) return;
      timer = setTimeout(() => { timer = null; connect(); }, pause);
      pause = Math.min(2 * pause, LONGEST_PAUSE);
    };
  }

  function connected() {
    if (open()) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const done = () => { clearTimeout(limit); waiting.delete(done); resolve(); };
      const limit = setTimeout(() => {
        waiting.delete(done);
        reject(unavailable("The kernel does not answer. Does `aipg serve` run?"));
      }, CONNECT_PATIENCE);
      waiting.add(done);
      connect();
    });
  }

  async function call(method, params) {
    await connected();
    if (!open()) throw unavailable("The connection was lost.");
    const id = ++lastId;
    return new Promise((resolve, reject) => {
      calls.set(id, { resolve, reject });
      socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
    });
  }

  // Begins with events anew: where everything stands comes first, then what happens from then on.
  function resync() {
    if (!listening()) return;
    expected = null; // until the response is here
    call("subscribe", []).then(() => {}, (error) => open() && console.error(error));
  }

  function received(message) {
    if (!("method" in message)) return answered(message);
    const { method, params } = message;
    if (method === TABLE.stores) return storeChanged(params);
    if (expected === null) return; // of a subscription that has ended
    if (params.seq !== expected) return resync(); // something is missing
    expected += 1;
    if (method === TABLE.snapshot) tell("serviceInfoUpdate", params.services);
    else tell(method, params.data);
  }

  function answered({ id, result, error }) {
    const waits = calls.get(id);
    calls.delete(id);
    if (error) return waits?.reject(new AIPlaygroundError(error));
    if (result?.kernel !== undefined && result.seq === 0) {
      expected = 1; // in the same turn: the first event may be right behind
      tell("serviceInfoUpdate", result.services);
    }
    waits?.resolve(result === null ? undefined : result);
  }

  function tell(name, data) {
    const positional = TABLE.events[name]?.positional ?? [];
    const values = positional.length > 0 ? positional.map((field) => data[field]) : [data];
    for (const callback of [...(listeners.get(name) ?? [])]) inform(callback, values);
  }

  function inform(callback, values) {
    try {
      callback(...values);
    } catch (error) {
      reportError(error); // one listener's mistake is not the others'
    }
  }

  // The stores that somebody watches; undefined means all of them.
  function watchedStores() {
    const names = [...watchers].map((each) => each.names);
    return names.includes(undefined) ? undefined : [...new Set(names.flat())];
  }

  function follow(names) {
    const begun = ({ stores }) => { for (const each of stores) storeChanged(each); };
    const failed = (error) => open() && console.error(error);
    call("stores:subscribe", names === undefined ? [] : [names]).then(begun, failed);
  }

  function storeChanged(update) {
    const told = update.state === undefined ? changed(update) : update;
    if (told === null) return;
    const { store, version, state } = told;
    if (told === update) followed.set(store, { version, state });
    for (const { callback, names } of [...watchers]) {
      if (names === undefined || names.includes(store)) inform(callback, [told]);
    }
  }

  // A change with every field whole that became another; null if there is nothing to tell yet.
  function changed({ store, version, changes, patches = [], getters }) {
    const before = followed.get(store);
    if (before === undefined) return null; // where it stands is on its way
    try {
      if (before.version !== version - 1) throw new RangeError("something is missing");
      const state = patches.reduce(patched, { ...before.state, ...changes });
      followed.set(store, { version, state });
      const names = [...Object.keys(changes), ...patches.map(({ path }) => parts(path)[0])];
      const whole = Object.fromEntries(names.map((name) => [name, state[name]]));
      return { store, version, changes: whole, getters };
    } catch {
      followed.delete(store);
      follow([store]);
      return null;
    }
  }

  // JSON Patch (RFC 6902), and `append` for texts. What was there stays as it is.
  const unescaped = (part) => part.replaceAll("~1", "/").replaceAll("~0", "~");
  const parts = (path) => path.split("/").slice(1).map(unescaped);

  function patched(document, operation) {
    return placed(document, parts(operation.path), operation);
  }

  function placed(there, [key, ...deeper], operation) {
    const copy = Array.isArray(there) ? [...there] : { ...there };
    const { op, value } = operation;
    const fits = key in copy || (op === "add" && deeper.length === 0 && !(key > copy.length));
    if (!fits) throw new RangeError(`there is no ${key}`);
    if (deeper.length > 0) copy[key] = placed(copy[key], deeper, operation);
    else if (Array.isArray(copy) && op !== "replace" && op !== "append") {
      copy.splice(key, op === "remove" ? 1 : 0, ...(op === "add" ? [value] : []));
    } else if (op === "remove") delete copy[key];
    else copy[key] = op === "append" ? copy[key] + value : value;
    return copy;
  }

  function watch(callback, names) {
    if (typeof callback !== "function") throw new TypeError("The callback must be a function.");
    const own = { callback, names: names === undefined ? undefined : [names].flat() };
    watchers.add(own);
    if (open()) follow(own.names);
    else connect();
    return () => { watchers.delete(own); };
  }

  function listen(name, callback) {
    if (typeof callback !== "function") throw new TypeError("The callback must be a function.");
    const first = !listening();
    const own = (...values) => callback(...values);
    listeners.get(name).add(own);
    if (!open()) connect();
    else if (first) resync();
    return () => { listeners.get(name).delete(own); };
  }

  const api = {};
  for (const name of TABLE.methods) {
    api[name] = (...given) => {
      while (given.length > 0 && given.at(-1) === undefined) given.pop();
      return call(name, given);
    };
  }
  for (const [name, { listener }] of Object.entries(TABLE.events)) {
    api[listener] = (callback) => listen(name, callback);
  }
  api.onStoreUpdate = watch;
  window.electronAPI = api;
})();
