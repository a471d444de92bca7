// Tests of push.js with servers and clocks that are made up: node --test push.test.mjs
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { subscribe } from "../../client/push.js";

/** WebSockets and requests that the client has made. */
let sockets, requests, heard, subscription;

/** Milliseconds that have passed, and who waits for more. */
let now, timers;

/** Takes the place of setTimeout and setInterval. */
const later = (again) => (run, milliseconds = 0) => {
  const timer = { run, at: now + milliseconds, every: again ? milliseconds : undefined };
  timers.add(timer);
  return timer;
};

function tick(milliseconds) {
  const end = now + milliseconds;
  for (;;) {
    const [next] = [...timers].filter((timer) => timer.at <= end).sort((one, other) => one.at - other.at);
    if (!next) break;
    now = Math.max(now, next.at);
    if (next.every) next.at = now + next.every;
    else timers.delete(next);
    next.run();
  }
  now = end;
}

class FakeSocket {
  constructor(url, protocol) {
    Object.assign(this, { url, protocol, closed: false });
    sockets.push(this);
  }
  close() { this.closed = true; }
  say(id, text) { this.onmessage({ data: `id: ${id}\ncontent-type: text/plain\n\n${text}` }); }
  end(code, reason = "") { this.onclose({ code, reason }); }
}

/** Promises have their turn. */
const settle = async () => { for (let turn = 0; turn < 1000; turn++) await null; };
const pass = async (milliseconds) => { await settle(); tick(milliseconds); await settle(); };

async function start(options) {
  subscription = subscribe("http://push.example/sub?id=a%20b&x", {
    retry: { min: 1000, max: 8000 },
    onmessage: ({ id, data }) => heard.push(`${id} ${data}`),
    ongap: ({ missed, atLeast }) => heard.push(`gap ${atLeast ? "at least " : ""}${missed}`),
    onstatus: ({ state, transport, reason }) => heard.push([state, transport, reason].filter(Boolean).join(" ")),
    ...options,
  });
  await settle();
}

/** What was heard since the last time. */
const news = () => heard.splice(0);

/** A reply of JSON lines that goes on: what it brings is said by `push`. */
function lines() {
  let controller;
  const body = new ReadableStream({ start: (given) => { controller = given; } });
  const reply = new Response(body, { headers: { "Content-Type": "application/x-ndjson" } });
  const push = (part) => controller.enqueue(typeof part === "string" ? new TextEncoder().encode(part) : part);
  return { reply, push, close: () => controller.close() };
}

beforeEach(() => {
  now = 0;
  timers = new Set();
  mock.method(Date, "now", () => now);
  for (const [name, replacement] of Object.entries({
    setTimeout: later(false), setInterval: later(true),
    clearTimeout: (timer) => timers.delete(timer), clearInterval: (timer) => timers.delete(timer),
  })) mock.method(globalThis, name, replacement);
  mock.method(Math, "random", () => 1);
  sockets = [];
  requests = [];
  heard = [];
  globalThis.WebSocket = FakeSocket;
  globalThis.fetch = (url, options) => new Promise((resolve, reject) => {
    requests.push({ url: String(url), ...options, resolve, reject });
    options.signal?.addEventListener("abort", () => reject(options.signal.reason));
  });
});

afterEach(async () => {
  subscription.close();
  await settle();
  mock.restoreAll();
});

test("a slow reader of a WebSocket is told what it has missed", async () => {
  await start({ transports: ["websocket"] });
  assert.equal(sockets[0].url, "ws://push.example/sub?id=a%20b&x");
  assert.equal(sockets[0].protocol, "ws+meta.nchan");
  sockets[0].onopen();
  sockets[0].say("7:0", "one");
  sockets[0].end(4000, "missed at least 3 messages");
  await settle();
  assert.deepEqual(news(), [
    "connecting websocket", "open websocket", "7:0 one", "gap at least 3", "waiting websocket missed at least 3 messages",
  ]);
  await pass(1000);
  assert.equal(sockets[1].url, "ws://push.example/sub?id=a%20b&x&last_event_id=7%3A0");
});

test("a gap that is told again counts once", async () => {
  await start({ transports: ["stream"], from: "7:0" });
  for (const [missed, told] of [[3, ["gap 3"]], [3, []], [5, ["gap 2"]]]) {
    const { reply, push, close } = lines();
    requests.at(-1).resolve(reply);
    push(`{"missed":${missed},"at_least":false}\n`);
    close();
    await settle();
    assert.deepEqual(news().filter((text) => text.startsWith("gap")), told);
    await pass(8000);
  }
  const { reply, push } = lines();
  requests.at(-1).resolve(reply);
  push('{"missed":5,"at_least":false}\n{"id":"8:0","time":8,"data":"x"}\n{"missed":1,"at_least":true}\n');
  await settle();
  assert.deepEqual(news().filter((text) => !text.includes("stream")), ["8:0 x", "gap at least 1"]);
});

test("what an earlier connection still says is not heard", async () => {
  await start({ transports: ["websocket"] });
  sockets[0].onopen();
  sockets[0].say("7:0", "one");
  sockets[0].end(1012, "worker leaves");
  sockets[0].say("7:1", "too late");
  await pass(1000);
  sockets[0].say("7:1", "much too late");
  sockets[1].onopen();
  sockets[1].say("7:1", "two");
  assert.deepEqual(news().filter((text) => text.startsWith("7")), ["7:0 one", "7:1 two"]);
  assert.equal(subscription.id, "7:1");
});

test("a line may come in pieces, also within a letter", async () => {
  await start({ transports: ["stream"] });
  const { reply, push } = lines();
  requests[0].resolve(reply);
  const bytes = new TextEncoder().encode('{"id":"7:0","time":7,"data":"\u00e4\u{1f600}"}\n\n{"id":"7:1","time":7,"base64":"/wA="}\n');
  for (const byte of bytes) push(Uint8Array.of(byte));
  await settle();
  assert.deepEqual(news().slice(2), ["7:0 \u00e4\u{1f600}", "7:1 255,0"]);
});

test("pauses grow with the failures, and end with the first success", async () => {
  await start({ transports: ["websocket"] });
  const pauses = [];
  for (let failures = 1; failures <= 6; failures++) {
    const before = sockets.length;
    sockets.at(-1).end(1006);
    await settle();
    let waited = 0;
    for (; sockets.length === before; waited += 500) await pass(500);
    pauses.push(waited);
  }
  assert.deepEqual(pauses, [1000, 2000, 4000, 8000, 8000, 8000]);
  sockets.at(-1).onopen();
  sockets.at(-1).say("7:0", "one");
  sockets.at(-1).end(1006);
  await pass(1000);
  assert.equal(sockets.length, 8);
});

test("what worked before is forgiven twice, then the others are tried", async () => {
  await start({ transports: ["websocket", "stream", "long-poll"] });
  sockets[0].onopen();
  sockets[0].say("7:0", "one");
  for (const milliseconds of [1000, 1000, 2000]) {
    sockets.at(-1).end(1006);
    await pass(milliseconds);
    assert.equal(requests.length, 0);
  }
  assert.equal(sockets.length, 4);
  sockets[3].end(1006);
  await settle();
  assert.equal(requests.length, 1);
  assert.equal(requests[0].url, "http://push.example/sub?id=a%20b&x&last_event_id=7%3A0");
  requests[0].resolve(new Response(null, { status: 406 }));
  await settle();
  assert.equal(requests[1].url, "http://push.example/sub?id=a%20b&x&last_event_id=7%3A0");
  requests[1].reject(new TypeError("no connection"));
  await settle();
  assert.equal(sockets.length, 4, "after all a pause");
  await pass(8000);
  assert.equal(sockets.length, 5);
});

test("a transport that is held back or cut off at once does not work", async () => {
  await start({ transports: ["websocket", "stream"] });
  await pass(15_000);
  assert.ok(sockets[0].closed);
  const { reply, close } = lines();
  requests[0].resolve(reply);
  await settle();
  close();
  await settle();
  await pass(8000);
  assert.equal(sockets.length, 2, "round again");
  assert.deepEqual(news(), [
    "connecting websocket", "connecting stream", "open stream", "waiting stream the stream was cut off", "connecting websocket",
  ]);
});

test("an end that the server wants is no failure", async () => {
  await start({ transports: ["websocket", "stream"] });
  for (const [code, reason] of [[1012, "worker leaves"], [1000, "timeout"], [1012, ""], [4000, "missed 1 messages"], [1000, ""]]) {
    sockets.at(-1).onopen();
    sockets.at(-1).end(code, reason);
    await pass(1000);
  }
  assert.equal(sockets.length, 6);
  assert.equal(requests.length, 0);
  sockets.at(-1).onopen();
  sockets.at(-1).end(1008, "another subscriber came");
  await settle();
  assert.deepEqual(news().at(-1), "closed websocket conflict");
});

test("a proxy that closes as it goes ends nothing", async () => {
  await start({ transports: ["websocket", "stream"] });
  for (const reason of ["", "the proxy restarts", "constructor"]) {
    sockets.at(-1).onopen();
    sockets.at(-1).end(1001, reason);
    await pass(1000);
  }
  assert.equal(sockets.length, 4);
  for (let refusals = 0; requests.length === 0 && refusals < 5; refusals++) {
    sockets.at(-1).end(1008, "blocked here");
    await pass(8000);
  }
  assert.equal(requests.length, 1, "another transport may pass");
  requests[0].reject(new TypeError("no connection"));
  await pass(30_000);
  sockets.at(-1).onopen();
  sockets.at(-1).end(1001, "channel deleted");
  await settle();
  assert.deepEqual(news().at(-1), "closed websocket deleted");
});

test("a stream goes on when one of its channels was deleted", async () => {
  await start({ transports: ["stream"] });
  const { reply, push } = lines();
  requests[0].resolve(reply);
  push('{"id":"7:0","time":7,"channel":"a","data":"one"}\n{"left":"b","reason":"deleted"}\n');
  push('{"id":"7:1","time":7,"channel":"a","data":"two"}\n');
  await settle();
  assert.deepEqual(news(), ["connecting stream", "open stream", "7:0 one", "7:1 two"]);
  assert.equal(requests.length, 1);
});

test("a stream without pings is begun anew", async () => {
  await start({ transports: ["stream"], silence: 40_000 });
  const { reply, push } = lines();
  requests[0].resolve(reply);
  await settle();
  for (let pings = 0; pings < 3; pings++) {
    await pass(39_000);
    push("\n");
    await settle();
  }
  assert.equal(requests.length, 1);
  await pass(40_000);
  await pass(1000);
  assert.equal(requests.length, 2);
  assert.ok(requests[0].signal.aborted);
});

test("after a sleep it connects again", async () => {
  await start({ transports: ["websocket"] });
  sockets[0].onopen();
  await pass(10_000);
  now += 3_600_000;
  await pass(10_000);
  assert.ok(sockets[0].closed);
  await pass(1000);
  assert.equal(sockets.length, 2);
});

test("answers at once, again and again, are no busy loop", async () => {
  await start({ transports: ["long-poll"] });
  const answer = async () => {
    requests.at(-1).resolve(new Response(null, { status: 304 }));
    await settle();
  };
  await answer();
  assert.equal(requests.length, 2, "a worker may leave");
  await answer();
  assert.equal(requests.length, 2);
  await pass(1000);
  assert.equal(requests.length, 3);
  await answer();
  await pass(1999);
  assert.equal(requests.length, 3);
  await pass(1);
  assert.equal(requests.length, 4);
});

test("a reply without ids is not the module's", async () => {
  await start({ transports: ["long-poll"] });
  requests[0].resolve(new Response("<!doctype html>", { headers: { "Content-Type": "text/html" } }));
  await settle();
  assert.deepEqual(news(), ["connecting long-poll", "waiting long-poll there are no ids here"]);
});

test("it may be closed in any handler", async () => {
  for (const state of ["connecting", "waiting"]) {
    const seen = [];
    await start({
      transports: ["websocket"],
      onstatus: (status) => {
        seen.push(status.state);
        if (status.state === state) subscription.close();
      },
    });
    sockets.at(-1)?.end(1006);
    await pass(60_000);
    assert.equal(seen.at(-1), "closed");
    assert.equal(seen.filter((name) => name === "closed").length, 1);
    assert.ok(sockets.length <= 1);
  }
});

test("without anything to receive by it says so", async () => {
  delete globalThis.WebSocket;
  await start({ transports: ["websocket"] });
  assert.deepEqual(news(), ["closed no transport"]);
  assert.throws(() => subscribe("http://push.example/", { transports: ["pigeon"] }), /no transport "pigeon"/);
});
