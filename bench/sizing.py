"""How much shared memory channels and messages take, from how many of them fit.

Each case is counted in a small zone and in a larger one; the difference between the two is what the number of
bytes between them holds, without the zone's fixed part.
"""

import socket
from dataclasses import dataclass

from servers import PEERS, BenchError, Settings, running

KIB = 1024
PIPELINE = 64


class Connection:
    """A keep-alive connection with pipelined requests. Reads replies with a Content-Length or in chunks."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def ask(self, requests):
        """Sends all requests and returns all replies: (status, body)."""
        replies = []
        for at in range(0, len(requests), PIPELINE):
            part = requests[at : at + PIPELINE]
            self.socket.sendall("".join(part).encode())
            replies += [self.reply() for _ in part]
        return replies

    def send(self, request):
        """Sends a request whose reply is not read (a long-poll)."""
        self.socket.sendall(request.encode())

    def reply(self):
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.lower().split(b"\r\n")
        fields = dict(line.split(b": ", 1) for line in lines[1:] if b": " in line)
        status = int(lines[0].split()[1])
        if fields.get(b"transfer-encoding") == b"chunked":
            body = b""
            while True:
                size = int(self.line(), 16)
                body += self.take(size)
                self.take(2)
                if size == 0:
                    return status, body
        return status, self.take(int(fields.get(b"content-length", 0)))

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def take(self, count):
        while len(self.buffer) < count:
            self.more()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def more(self):
        received = self.socket.recv(65536)
        if not received:
            raise ConnectionError("closed by the server")
        self.buffer += received


@dataclass(frozen=True)
class Case:
    """A kind of channel, and the blocks of 128 bytes that the README's formula gives it."""

    title: str
    blocks: int
    id_length: int = 12
    # Sizes of the messages that each channel gets; their content type is empty unless `type` is set.
    bodies: tuple = ()
    content_type: str = ""
    # Directives of the publisher location.
    pub: str = ""
    # Waiting subscribers per channel, each on another worker.
    subscribers: int = 0
    workers: int = 1


CASES = [
    Case("an empty channel (one subscriber waits), id of 12 bytes", 2, subscribers=1),
    Case("the same, id of 70 bytes with its slash", 2, id_length=69, subscribers=1),
    Case("the same, id of 71 bytes", 3, id_length=70, subscribers=1),
    Case("the same, id of 190 bytes", 3, id_length=189, subscribers=1),
    Case("the same, id of 191 bytes", 4, id_length=190, subscribers=1),
    Case("an empty channel, subscribers on 4 workers", 2, subscribers=4, workers=4),
    Case("an empty channel, subscribers on 5 workers", 3, subscribers=5, workers=5),
    Case("a channel with one empty message", 3, bodies=(0,)),
    Case("a channel with two empty messages", 4, bodies=(0, 0)),
    Case("a channel with one message of 40 bytes", 3, bodies=(40,)),
    Case("a channel with one message of 41 bytes", 4, bodies=(41,)),
    Case("a channel with one message of 160 bytes", 4, bodies=(160,)),
    Case("a channel with one message of 161 bytes", 5, bodies=(161,)),
    Case("a channel with one message of 100 bytes, text/plain", 4, bodies=(100,), content_type="text/plain"),
    Case(
        "the same after another message was dropped",
        5,
        bodies=(100, 100),
        content_type="text/plain",
        pub="push_message_buffer_length 1;",
    ),
]


def measure(case, quick):
    """Bytes per channel of a case, and how many fit into the two zones."""
    small, large = (256 * KIB, 512 * KIB) if quick or case.subscribers > 1 else (512 * KIB, 1536 * KIB)
    count = waiting_until_full if case.subscribers else stored_until_dropped
    fit = [count(case, size) for size in (small, large)]
    return {
        "title": case.title,
        "formula": case.blocks * 128,
        "zones": [small, large],
        "fit": fit,
        "bytes": (large - small) / (fit[1] - fit[0]),
    }


def channel_id(case, number):
    return f"c{number:0{case.id_length - 1}d}"


def waiting_until_full(case, size):
    """Subscribers on ever more channels, until one is told that the zone is full."""
    settings = Settings(workers=case.workers, shm=f"{size // KIB}k", reuseport=case.workers > 1)
    with running(PEERS["compact"], settings) as server, Connection(server.port) as control:
        waiting, number, spare = [], 0, {}
        try:
            while True:
                for expected, connection in enumerate(one_per_worker(server, case.subscribers, spare), 1):
                    waiting.append(connection)
                    connection.send(f"GET /sub?id={channel_id(case, number)} HTTP/1.1\r\nHost: b\r\n\r\n")
                    if refused(connection, control, case, number, expected):
                        return number
                number += 1
        finally:
            for connection in [*waiting, *(c for some in spare.values() for c in some)]:
                connection.socket.close()


def one_per_worker(server, workers, spare):
    """Connections to so many different workers. Those that nobody needs now wait in `spare`."""
    if workers == 1:
        return [Connection(server.port)]
    while sum(bool(connections) for connections in spare.values()) < workers:
        connection = Connection(server.port)
        pid = connection.ask(["GET /pid HTTP/1.1\r\nHost: b\r\n\r\n"])[0][1]
        spare.setdefault(pid, []).append(connection)
    fullest = sorted(spare.values(), key=len, reverse=True)[:workers]
    return [connections.pop() for connections in fullest]


def refused(connection, control, case, number, expected):
    """Whether a long-poll was refused: until the channel says how many wait there, look for a reply to it."""
    connection.socket.settimeout(0.002)
    try:
        while True:
            status, body = control.ask([f"GET /pub?id={channel_id(case, number)} HTTP/1.1\r\nHost: b\r\n\r\n"])[0]
            if status == 200 and body.rstrip().endswith(b"active subscribers: %d" % expected):
                return False
            try:
                status, _ = connection.reply()
            except TimeoutError:
                continue
            if status != 507:
                raise BenchError(f"A long-poll on an empty channel was answered with {status}.")
            return True
    finally:
        connection.socket.settimeout(30)


def stored_until_dropped(case, size):
    """The largest number of channels of which each still has its messages."""
    low, high = 0, size // (case.blocks * 128) + 16
    while high - low > 1:
        middle = (low + high) // 2
        if all_stay(case, size, middle):
            low = middle
        else:
            high = middle
    return low


def all_stay(case, size, count):
    with running(PEERS["compact"], Settings(shm=f"{size // KIB}k", pub=case.pub)) as server:
        with Connection(server.port) as connection:
            kind = f"Content-Type: {case.content_type}\r\n" if case.content_type else ""
            ids = [channel_id(case, n) for n in range(count)]
            published = connection.ask(
                [
                    f"POST /pub?id={i} HTTP/1.1\r\nHost: b\r\n{kind}Content-Length: {body}\r\n\r\n{'x' * body}"
                    for i in ids
                    for body in case.bodies
                ]
            )
            if any(status != 202 for status, _ in published):
                return False
            told = connection.ask([f"GET /pub?id={i} HTTP/1.1\r\nHost: b\r\n\r\n" for i in ids])
    stored = 1 if "buffer_length 1;" in case.pub else len(case.bodies)
    return all(status == 200 and body.startswith(b"queued messages: %d\r" % stored) for status, body in told)
