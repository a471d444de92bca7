// The types of push.js.

/** A way to receive; `stream` is JSON lines by fetch. */
export type Transport = "websocket" | "eventsource" | "stream" | "long-poll";

export interface Message {
  /** The message's place in its channel, such as `1795233558:0`: give it as `from` to go on after it. */
  id: string;
  /** The body; bytes if it is not UTF-8. By `eventsource` always text, with line ends as LF. */
  data: string | Uint8Array;
  /** When it was published, in seconds since 1970. */
  time: number;
  /** Its content type, if the publisher gave one. `eventsource` does not tell. */
  type?: string;
  /** The kind of event that it is, if the publisher said so. `eventsource` and `stream` tell. */
  event?: string;
  /** Which channel it came from, where the location has several. `stream` and `long-poll` tell. */
  channel?: string;
}

/** Messages between the last one and the next are gone. */
export interface Gap {
  missed: number;
  /** It may have been more. */
  atLeast: boolean;
}

/** `waiting` is the pause before the next attempt; after `closed` nothing follows. */
export interface Status {
  state: "connecting" | "open" | "waiting" | "closed";
  transport?: Transport;
  /**
   * Why it waits or has closed. Closed: `deleted` (the channel), `conflict` (another subscriber has it), `forbidden`,
   * `unauthorized`, `not found`, `closed` (by the page), `no transport`. Else a text for people.
   */
  reason?: string;
}

export interface Options {
  onmessage?(message: Message): void;
  /** By `websocket` only what is missed while it is open: what was missed before it, a script cannot see. */
  ongap?(gap: Gap): void;
  onstatus?(status: Status): void;
  /** Which to try, in this order. All, beginning with `websocket`, unless given. */
  transports?: Transport[];
  /**
   * Where to begin: where the location does (unless given; `push_first_message`, with the oldest message that is stored),
   * after the message of an id, or with what is published from now on. Until the first message has come, `newest` begins
   * anew with each connection, and what is published between two of them is lost; so does a
   * location that begins with what is new, but by `eventsource` if the browser connects again by itself. If that matters, give an id.
   */
  from?: "oldest" | "newest" | (string & {});
  /** The shortest and the longest pause before another attempt, in milliseconds: 500 and 30,000 unless given. */
  retry?: { min?: number; max?: number };
  /**
   * Names that the publisher gives to messages (`Push-Event`). An EventSource shows only those that are listed here, so
   * list all. The other transports need no list.
   */
  events?: string[];
  /** Milliseconds without a word after which a stream or a poll is begun anew: 75,000 unless given; 0 for never. */
  silence?: number;
  /** For cookies and logins at other origins, as fetch has it: `same-origin` unless given. */
  credentials?: "omit" | "same-origin" | "include";
}

export interface Subscription {
  /** The id of the last message, to go on after it another time. */
  readonly id: string | undefined;
  /** Ends it. No handler is called afterwards, but `onstatus` once. */
  close(): void;
}

/** Receives what is published to the channel of a subscriber location, until it is closed. */
export declare function subscribe(url: string | URL, options?: Options): Subscription;

/** What the module says of a channel. */
export interface ChannelInfo {
  messages: number;
  /** Seconds since a subscriber asked. */
  requested: number;
  /** Those who waited for the message. */
  subscribers: number;
}

export interface PublishOptions {
  /** The content type; else the one that fetch gives to such a body. */
  type?: string;
  /** The kind of event that it is (`Push-Event`). */
  event?: string;
  credentials?: "omit" | "same-origin" | "include";
}

/** Why a message was not published: the reply's status. */
export interface PublishError extends Error {
  status: number;
}

/** Publishes to the channel of a publisher location. Rejects with a {@link PublishError} or, as fetch, a TypeError. */
export declare function publish(
  url: string | URL,
  data: string | Blob | ArrayBuffer | Uint8Array<ArrayBuffer> | URLSearchParams | FormData,
  options?: PublishOptions,
): Promise<ChannelInfo>;
