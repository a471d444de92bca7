// Prints every message of a channel, a line each: node client.mjs eventsource|ws|stream|long-poll URL
// What an application would write with these libraries: EventSource resumes by itself, a WebSocket by the last id, and
// push.js, which has the other two, does all that.
import { EventSource } from "eventsource";
import WebSocket from "ws";
import { subscribe } from "../../client/push.js";

const [kind, url] = process.argv.slice(2);
const print = (text) => process.stdout.write(text + "\n");

function receiveEvents() {
  const source = new EventSource(url);
  source.onmessage = (event) => print(event.data);
  source.addEventListener("gap", (event) => print("gap " + event.data));
  source.addEventListener("end", () => { source.close(); print("end"); });
}

function receiveFrames(id = "") {
  const socket = new WebSocket(url + (id && "&last_event_id=" + encodeURIComponent(id)), "ws+meta.nchan");
  socket.on("message", (data) => {
    const text = data.toString();
    const split = text.indexOf("\n\n");
    id = /^id: (.*)/m.exec(text.slice(0, split))[1];
    print(text.slice(split + 2));
  });
  socket.on("error", () => {});
  socket.on("close", (code) => {
    if (code === 1001) print("end");
    else setTimeout(() => receiveFrames(id), 50);
  });
}

function receive() {
  subscribe(url, {
    transports: [kind],
    retry: { min: 50, max: 1000 },
    onmessage: ({ data }) => print(data),
    ongap: ({ missed }) => print("gap " + missed),
    onstatus: ({ state, reason }) => { if (state === "closed") print(reason === "deleted" ? "end" : reason); },
  });
}

({ eventsource: receiveEvents, ws: receiveFrames, "stream": receive, "long-poll": receive })[kind]();
