// Gives a page window.electronAPI: each method of the kernel as a function that returns a promise,
// each event as on…(callback), which returns a function that ends it. A call that fails rejects
// with an Error that has `code` and `details`.
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
  const calls = new Map(); // by id: what waits for a response
  const waiting = new Set(); // what waits for a connection
  let socket = null, lastId = 0, expected = null, pause = FIRST_PAUSE, timer = null;

  const open = () => socket?.readyState === WebSocket.OPEN;
  const wanted = () => waiting.size > 0 || [...listeners.values()].some((each) => each.size > 0);

  function connect() {
    if (socket !== null || timer !== null) return;
    socket = new WebSocket(address);
    socket.onopen = () => {
      pause = FIRST_PAUSE;
      for (const each of [...waiting]) each();
      resync();
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
    if (![...listeners.values()].some((each) => each.size > 0)) return;
    expected = null; // until the response is here
    call("subscribe", []).then(() => {}, (error) => open() && console.error(error));
  }

  function received(message) {
    if (!("method" in message)) return answered(message);
    const { method, params } = message;
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
    for (const callback of [...(listeners.get(name) ?? [])]) {
      try {
        callback(...values);
      } catch (error) {
        reportError(error); // one listener's mistake is not the others'
      }
    }
  }

  function listen(name, callback) {
    if (typeof callback !== "function") throw new TypeError("The callback must be a function.");
    const first = ![...listeners.values()].some((each) => each.size > 0);
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
  window.electronAPI = api;
})();
