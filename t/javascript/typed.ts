// Says to TypeScript what a page says to push.js, right and wrong. Nobody runs it.
import { publish, subscribe, type Message, type Status } from "../../client/push.js";

const subscription = subscribe(new URL("https://example.com/sub?id=news"), {
  onmessage({ id, data, time, type, event, channel }: Message) {
    const text: string = typeof data === "string" ? data : new TextDecoder().decode(data);
    console.log(id.split(":"), text, time + 1, type?.length, event?.length, channel?.length);
  },
  ongap: ({ missed, atLeast }) => console.log(missed + 1, atLeast === true),
  onstatus: (status: Status) => console.log(status.state === "waiting", status.transport, status.reason),
  transports: ["eventsource", "long-poll"],
  from: "1795233558:0",
  retry: { min: 100 },
  events: ["price"],
  silence: 0,
  credentials: "include",
});
subscribe("/sub");
const id: string | undefined = subscription.id;
subscription.close();

publish("/pub", new URLSearchParams({ id: id ?? "" }), { type: "text/plain", event: "price" }).then(
  ({ messages, requested, subscribers }) => console.log(messages + requested + subscribers),
);

// @ts-expect-error: there is no such transport
subscribe("/sub", { transports: ["pigeon"] });
// @ts-expect-error: a misspelt handler would never be called
subscribe("/sub", { onMessage() {} });
// @ts-expect-error: the id changes with the messages only
subscription.id = "1:1";
// @ts-expect-error: what should such a body be?
publish("/pub", { text: "hello" });
