// Receives and publishes from a page. Copy this file and, for its types, push.d.ts; they need nothing else.
//
//   import { subscribe, publish } from "./push.js";
//   const subscription = subscribe("/sub?id=news", { onmessage: (message) => console.log(message.id, message.data) });
//
// A subscription is a place in the channel's log, the id of the last message, and most of the time a connection. There is
// never more than one, what an earlier one still has to say is not heard, and each begins after the last id: so every
// message comes once and in order, by whatever transport.
// @ts-check

/** @import { Message, Status, Transport } from "./push.d.ts" */

/**
 * Why a connection has ended. `over`: for good. `again`: as it should, come again.
 * @typedef {{ reason: string, over?: boolean, again?: boolean }} Ending
 */

/**
 * What a transport knows and tells.
 * @typedef {object} Link
 * @property {string | undefined} id where to begin: after this message
 * @property {AbortSignal} signal says that the connection is not wanted any more
 * @property {boolean} opened it has worked, once at least
 * @property {() => void} open it works
 * @property {() => void} reopen the browser connects again by itself
 * @property {() => void} alive something was heard
 * @property {(message: Omit<Message, "time">) => void} message
 * @property {(missed: number, atLeast: boolean) => void} gap
 * @property {(ending: Ending) => void} end
 */

/** What has to be open after this time, or it does not work here (a proxy holds it back). All times are milliseconds. */
const OPENING = 15_000;
/** A poll that was not refused after this time waits for a message. */
const ASKING = 500;
/** A connection that brought no message and broke sooner did not work either (a proxy cuts it off). */
const STABLE = 5_000;
/** Timers that are so much late were asleep with the page or the machine. In hidden pages a minute is usual. */
const ASLEEP = 90_000;
/** So many failures in a row does a transport have that worked before, until others are tried. */
const FORGIVEN = 2;
/** An id that no message has in this century: after it comes what is new. */
const NEWEST = "4102444800:0";

/** Which transport worked last, by address without arguments. @type {Map<string, Transport>} */
const worked = new Map();

/** Ends that a status tells. Other refusals may pass. @type {Record<number, string>} */
const FINAL = { 401: "unauthorized", 403: "forbidden", 404: "not found", 409: "conflict", 410: "deleted" };

/** @type {(status: number) => Ending} */
const refused = (status) =>
  status in FINAL ? { reason: FINAL[status], over: true } : { reason: `the server said ${status}` };

/** The end that a stream tells. @type {(reason: string) => Ending} */
const told = (reason) =>
  reason === "deleted" || reason === "conflict" ? { reason, over: true } : { reason, again: true };

/** Ends that a WebSocket tells, by code and reason. @type {Record<string, string>} */
const ENDS = { "1001 channel deleted": "deleted", "1008 another subscriber came": "conflict" };

/** Text if it is UTF-8, else bytes. @param {string | ArrayBuffer | Uint8Array} body */
function readable(body) {
  if (typeof body === "string") return body;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body);
  } catch {
    return new Uint8Array(body);
  }
}

/** @type {typeof import("./push.d.ts").subscribe} */
export function subscribe(url, options = {}) {
  const address = new URL(url, globalThis.location?.href);
  address.hash = "";
  const key = address.origin + address.pathname;
  const { credentials = "same-origin", events = [], silence = 75_000, from = "oldest" } = options;
  const { min = 500, max = 30_000 } = options.retry ?? {};
  const order = (options.transports ?? ALL).filter((transport) => {
    if (!ALL.includes(transport)) throw new TypeError(`There is no transport "${transport}".`);
    return isThere[transport]();
  });

  let id = from === "oldest" || from === "newest" ? undefined : from;
  /** @type {Transport | undefined} */
  let transport;
  let closed = false;
  /** Ends what goes on: a connection or a pause. @type {(reason: string) => void} */
  let cut = () => {};
  /** What was told of the gap after a message, as a gap is told again to who comes again. */
  let gap = { after: /** @type {string | undefined} */ (undefined), missed: -1 };

  // An error in a handler is the page's, and no reason to lose the connection.
  /** @type {<T>(handler: ((value: T) => void) | undefined, value: T) => void} */
  const call = (handler, value) => {
    try {
      handler?.call(options, value);
    } catch (error) {
      setTimeout(() => { throw error; });
    }
  };
  /** @type {(state: Status["state"], reason?: string) => void} */
  const tell = (state, reason) => call(options.onstatus, { state, transport, ...(reason && { reason }) });

  /** @type {(reason: string) => void} */
  function close(reason) {
    if (closed) return;
    closed = true;
    clearInterval(clock);
    listening.abort();
    cut(reason);
    tell("closed", reason);
  }

  // A connection may not outlive a sleep or a change of networks, and nobody says so.
  const wake = (/** @type {boolean} */ slept) => slept && cut("the page woke up");
  let ticked = Date.now();
  const clock = setInterval(() => {
    wake(Date.now() - ticked > ASLEEP);
    ticked = Date.now();
  }, ASLEEP / 9);
  const listening = new AbortController();
  globalThis.addEventListener?.("online", () => wake(true), { signal: listening.signal });
  globalThis.addEventListener?.("pageshow", (event) => wake(event.persisted), { signal: listening.signal });

  /** Doubles with each failure, and differs from client to client. @type {(failures: number) => number} */
  const backoff = (failures) =>
    failures === 0 ? min * Math.random() : Math.min(max, min * 2 ** (failures - 1)) * (1 + Math.random()) / 2;

  /** @type {(milliseconds: number) => Promise<void>} */
  const pause = (milliseconds) => new Promise((resolve) => {
    if (closed) return resolve();
    const timer = setTimeout(resolve, milliseconds);
    cut = () => { clearTimeout(timer); resolve(); };
  });

  /**
   * One connection, from its beginning to its end.
   * @type {(by: Transport) => Promise<Ending & { worked: boolean }>}
   */
  const connect = (by) => new Promise((resolve) => {
    const controller = new AbortController(), began = Date.now();
    let live = true, open = false, received = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const expect = (/** @type {number} */ milliseconds) => {
      clearTimeout(timer);
      if (live && milliseconds) timer = setTimeout(() => link.end({ reason: "silence", again: link.opened }), milliseconds);
    };
    /** @type {Link} */
    const link = {
      id: id ?? (from === "newest" ? NEWEST : undefined),
      signal: controller.signal,
      opened: false,
      open() {
        if (!live || open) return;
        open = link.opened = true;
        worked.set(key, by);
        link.alive();
        tell("open");
      },
      reopen() {
        open = false;
        expect(0);
        tell("connecting");
      },
      // Pings of EventSource and WebSocket are for the browser, which asks by TCP as well whether the server is there.
      alive: () => expect(by === "stream" || by === "long-poll" ? silence : 0),
      message({ id: next, data, ...more }) {
        if (!live) return;
        if (!next) return link.end({ reason: "there are no ids here" });
        received = true;
        id = link.id = next;
        call(options.onmessage, { id: next, data, time: Number.parseInt(next, 10), ...more });
      },
      gap(missed, atLeast) {
        // Who begins with what is new misses nothing.
        if (!live || (from === "newest" && !id)) return;
        const before = gap.missed >= 0 && gap.after === id ? gap.missed : -1;
        if (missed <= before) return;
        gap = { after: id, missed };
        call(options.ongap, { missed: missed - Math.max(0, before), atLeast });
      },
      end(ending) {
        if (!live) return;
        live = false;
        clearTimeout(timer);
        controller.abort();
        const lasted = link.opened && (ending.again || Date.now() - began > STABLE);
        resolve({ ...ending, worked: received || lasted });
      },
    };
    cut = (reason) => link.end({ reason, again: true });
    if (closed) return cut("closed");
    expect(OPENING);
    Promise.resolve(link).then(receive[by]).catch((error) => link.end({ reason: String(error.message) }));
  });

  /** The address from a message on. Its arguments stay as they are written, for so nginx takes them. */
  const resumed = (/** @type {string | undefined} */ after) =>
    address.href + (after ? `${address.href.includes("?") ? "&" : "?"}last_event_id=${encodeURIComponent(after)}` : "");

  /** @type {Record<Transport, (link: Link) => void | Promise<void>>} */
  const receive = {
    // With this subprotocol (Nchan's) each message begins with lines that tell its id and type, and an empty line.
    websocket(link) {
      const socket = new WebSocket(resumed(link.id).replace(/^http/, "ws"), "ws+meta.nchan");
      socket.binaryType = "arraybuffer";
      link.signal.addEventListener("abort", () => socket.close());
      socket.onopen = link.open;
      socket.onmessage = ({ data }) => {
        const split = (typeof data === "string" ? data : new TextDecoder("latin1").decode(data)).indexOf("\n\n");
        const head = String(readable(data.slice(0, split)));
        const fields = Object.fromEntries(head.split("\n").map((line) => line.split(/: (.*)/)));
        const { id: next, "content-type": type, event, channel } = fields;
        link.message({ id: next, data: readable(data.slice(split + 2)), type, event, channel });
      };
      socket.onclose = ({ code, reason }) => {
        const missed = /^missed (at least )?(\d+)/.exec(reason);
        if (code === 4000 && missed) link.gap(Number(missed[2]), missed[1] !== undefined);
        // Proxies, too, close with these codes when they go, and mean no end.
        const end = ENDS[`${code} ${reason}`];
        link.end(end ? told(end) : { reason: reason || "no connection", again: [1000, 1001, 1012, 4000].includes(code) });
      };
    },

    // The browser connects again by itself, when the server wants it to, and names the last id. It does not say why it was
    // refused: another transport may.
    eventsource(link) {
      const source = new EventSource(resumed(link.id), { withCredentials: credentials === "include" });
      let failures = 0;
      link.signal.addEventListener("abort", () => source.close());
      source.onopen = () => { failures = 0; link.open(); };
      for (const name of new Set(["message", ...events])) {
        source.addEventListener(name, (event) => {
          // The browser's own "open" and "error" are no messages.
          if (!(event instanceof MessageEvent)) return;
          link.message({ id: event.lastEventId, data: event.data, event: name === "message" ? undefined : name });
        });
      }
      source.addEventListener("gap", ({ data }) => {
        const { missed, at_least } = JSON.parse(data);
        link.gap(missed, at_least);
      });
      source.addEventListener("end", ({ data }) => link.end(told(JSON.parse(data).reason)));
      source.onerror = () => {
        // A message may be named so.
        if (source.readyState === EventSource.OPEN) return;
        const again = source.readyState === EventSource.CONNECTING && link.opened && failures++ < FORGIVEN;
        if (again) link.reopen();
        else link.end({ reason: "no connection" });
      };
    },

    // JSON lines. The second type gets a plain refusal where there is neither, in place of a poll that waits.
    async stream(link) {
      const headers = { Accept: "application/x-ndjson, text/event-stream;q=0.1" };
      const reply = await fetch(resumed(link.id), { headers, credentials, cache: "no-store", signal: link.signal });
      if (!reply.ok) return link.end(refused(reply.status));
      if (!reply.body || !reply.headers.get("Content-Type")?.startsWith("application/x-ndjson")) {
        return link.end({ reason: "there are no JSON lines here" });
      }
      link.open();
      const reader = reply.body.getReader(), decoder = new TextDecoder();
      let rest = "";
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        link.alive();
        const lines = (rest + decoder.decode(part.value, { stream: true })).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines.filter(Boolean)) {
          const { data, base64, missed, at_least, end, time: _, ...message } = JSON.parse(line);
          if (end !== undefined) link.end(told(end));
          else if (missed !== undefined) link.gap(missed, at_least);
          // Without an id, a line tells that one of several channels was left.
          else if (message.id !== undefined) {
            link.message({ ...message, data: data ?? Uint8Array.from(atob(base64), (byte) => byte.charCodeAt(0)) });
          }
        }
      }
      link.end({ reason: "the stream was cut off" });
    },

    // One reply a message, whose id is what two headers say. Two headers can ask for what comes after it as well, but not
    // where push_ignore_queue_on_no_cache is on: browsers send "no-cache" with what they are not to store.
    async "long-poll"(link) {
      for (let quick = 0; !link.signal.aborted;) {
        link.alive();
        const began = Date.now();
        setTimeout(link.open, ASKING);
        const reply = await fetch(resumed(link.id), { credentials, cache: "no-store", signal: link.signal });
        if (reply.status === 304) {
          link.open();
          // Ask again; but an answer at once, again and again, must not become a busy loop.
          quick = Date.now() - began < 1000 ? quick + 1 : 0;
          if (quick > 1) await new Promise((resolve) => setTimeout(resolve, backoff(quick - 1)));
          continue;
        }
        if (!reply.ok) return link.end(refused(reply.status));
        const header = (/** @type {string} */ name) => reply.headers.get(name) ?? undefined;
        const time = Date.parse(header("Last-Modified") ?? "") / 1000;
        const tag = header("Etag")?.replace(/^W\/|"/g, "");
        if (Number.isNaN(time) || !tag) return link.end({ reason: "there are no ids here" });
        const data = readable(await reply.arrayBuffer());
        link.open();
        const missed = header("Push-Missed");
        if (missed) link.gap(Number.parseInt(missed, 10), missed.includes("at-least"));
        link.message({ id: `${time}:${tag}`, data, type: header("Content-Type"), channel: header("Push-Channel") });
        quick = 0;
      }
    },
  };

  async function run() {
    let place = Math.max(0, order.findIndex((name) => name === worked.get(key)));
    let failures = 0, forgiven = 0;
    if (order.length === 0) close("no transport");
    while (!closed) {
      transport = order[place];
      tell("connecting");
      const ending = await connect(transport);
      if (ending.over) return close(ending.reason);
      if (ending.worked) {
        failures = 0;
        forgiven = FORGIVEN;
      } else {
        failures += 1;
      }
      // The same again, or round all others without a pause.
      const others = Math.max(0, failures - forgiven);
      if (others > 0) {
        worked.delete(key);
        place = (place + 1) % order.length;
      }
      if (closed || others % order.length > 0) continue;
      tell("waiting", ending.reason);
      await pause(backoff(Math.min(failures, forgiven) + others / order.length));
    }
  }
  Promise.resolve().then(run);

  return { get id() { return id; }, close: () => close("closed") };
}

/** @type {Transport[]} */
const ALL = ["websocket", "eventsource", "stream", "long-poll"];

/** Whether the browser has it. @type {Record<Transport, () => boolean>} */
const isThere = {
  "websocket": () => typeof WebSocket === "function",
  "eventsource": () => typeof EventSource === "function",
  "stream": () => typeof ReadableStream === "function",
  "long-poll": () => true,
};

/** @type {typeof import("./push.d.ts").publish} */
export async function publish(url, data, { type, event, credentials = "same-origin" } = {}) {
  const headers = new Headers({ Accept: "application/json" });
  if (type) headers.set("Content-Type", type);
  if (event) headers.set("Push-Event", event);
  const reply = await fetch(url, { method: "POST", headers, body: data, credentials });
  if (!reply.ok) throw Object.assign(new Error(`not published: the server said ${reply.status}`), { status: reply.status });
  return reply.json();
}
