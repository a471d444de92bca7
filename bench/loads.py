"""What is measured, and how pushload is called for it."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from servers import BROWSER_HEADERS, PEERS, ROOT, WORK, BenchError, Settings, one_cpu, running

PUSHLOAD_SOURCE = ROOT / "bench" / "pushload"
RUN_TIMEOUT_S = 900


@dataclass(frozen=True)
class Load:
    """One load, the same for all peers."""

    key: str
    title: str
    # fanout, publish or park
    command: str
    options: tuple
    peers: tuple
    workers: int = 1
    shm: str = "256m"
    # Ask for a small page meanwhile.
    probe: bool = False
    # Keep server and clients on one CPU. Where the kernel puts them decides how many requests a server finds at each
    # wake-up, and that decides what a request costs: free, the same server is seen at 1.5 or at 4.9 us per publish.
    one_cpu: bool = False
    # pushload's kind of client.
    kind: str = "longpoll"
    # A listening socket for each worker, so that the kernel deals the clients out evenly; else one worker may get more
    # than it may open.
    reuseport: bool = False
    # Write an access log, as nginx does by default: for the line at its end a stream has to remember its request.
    access_log: bool = False
    # What counts is when the last client has a message.
    until_last: bool = False


BOTH = ("compact", "plain")
# The clients that get all messages on one reply, by pushload's kind.
STREAMS = {"sse": "EventSource clients", "ws": "WebSocket clients"}


def loads(quick):
    """All loads of a comparison."""
    subscribers, messages = (2000, 10) if quick else (10000, 30)
    publishes = 20000 if quick else 300_000
    crowd, crowd_messages = (3000, 4) if quick else (18000, 10)
    # Four client processes, as none may hold all; a message each second is over before the next one.
    throng, throng_messages = (4000, 4) if quick else (50000, 10)
    until_last = ("--subs", throng, "--procs", 4, "--messages", throng_messages, "--warmup", 2, "--rate", 1)
    # A stream counts as open when the reply's head is there: a server without this transport would be waited for.
    opening = ("--connect-timeout", 30)
    fanout = ("--subs", subscribers, "--messages", messages, "--warmup", 3, "--rate", 3)
    publish = ("--conns", 16, "--channels", 100, "--messages", publishes, "--warmup", publishes // 20)
    paced = ("--conns", 16, "--channels", 100, "--messages", publishes // 4, "--warmup", publishes // 20, "--rate", 20_000)
    return [
        Load(
            "fanout-1",
            f"{subscribers:,} long-polls on one channel, 1 worker",
            "fanout",
            fanout,
            ("floor", "nchan", *BOTH),
        ),
        Load(
            "fanout-1-cpu",
            f"{subscribers:,} long-polls on one channel, 1 worker, server and clients on one CPU",
            "fanout",
            fanout,
            ("floor", "nchan", *BOTH),
            one_cpu=True,
        ),
        *(
            Load(
                f"fanout-1{'-cpu' if pinned_to_one else ''}-{kind}",
                f"{subscribers:,} {clients} on one channel, 1 worker"
                + (", server and clients on one CPU" if pinned_to_one else ""),
                "fanout",
                (*fanout, *opening),
                ("floor", "nchan", *BOTH),
                kind=kind,
                one_cpu=pinned_to_one,
            )
            for kind, clients in STREAMS.items()
            for pinned_to_one in (False, True)
        ),
        Load(
            "last-4-sse",
            f"until the last of {throng:,} EventSource clients on one channel has it, 4 workers",
            "fanout",
            (*until_last, *opening),
            ("floor", "nchan", "compact"),
            workers=4,
            kind="sse",
            reuseport=True,
            until_last=True,
        ),
        Load(
            "publish-full",
            "publishing without subscribers, 16 connections, as fast as it goes, 1 worker, all on one CPU",
            "publish",
            publish,
            ("floor", "nginx", "nchan", "compact"),
            one_cpu=True,
        ),
        Load(
            "publish-paced",
            "publishing without subscribers, 16 connections, 20,000 a second, 1 worker, all on one CPU",
            "publish",
            paced,
            ("floor", "nginx", "nchan", "compact"),
            one_cpu=True,
        ),
        Load(
            "park",
            f"{subscribers:,} parked long-polls, 1 worker",
            "park",
            ("--subs", subscribers, "--hold", 1),
            ("floor", "nchan", *BOTH),
        ),
        *(
            Load(
                f"park-{kind}",
                f"{subscribers:,} idle {clients}, 1 worker",
                "park",
                ("--subs", subscribers, "--hold", 1, *opening),
                ("floor", "nchan", *BOTH),
                kind=kind,
                access_log=True,
            )
            for kind, clients in STREAMS.items()
        ),
        Load(
            "wait",
            f"a small request beside fan-outs to {crowd:,} long-polls on the same worker",
            "fanout",
            ("--subs", crowd, "--messages", crowd_messages, "--warmup", 1, "--rate", 1),
            ("nchan", *BOTH),
            probe=True,
        ),
        Load(
            "fanout-4",
            f"{subscribers:,} long-polls on one channel, 4 workers",
            "fanout",
            fanout,
            ("floor", "nchan", *BOTH),
            workers=4,
        ),
        Load(
            "publish-4",
            "publishing without subscribers, 16 connections, 4 workers",
            "publish",
            publish,
            # No floor: pushload's server passes each publish on to its other workers, which is more than the least.
            ("nginx", "nchan", "compact"),
            workers=4,
        ),
    ]


def build_pushload():
    """Builds the load generator (a workspace of its own) and returns its path."""
    if given := os.environ.get("PUSHLOAD"):
        return Path(given)
    target = WORK / "pushload"
    done = subprocess.run(
        ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", str(PUSHLOAD_SOURCE / "Cargo.toml")],
        env={**os.environ, "CARGO_TARGET_DIR": str(target)},
    )
    if done.returncode != 0:
        raise BenchError("pushload could not be built.")
    return target / "release" / "pushload"


def call(pushload, arguments, timeout=RUN_TIMEOUT_S, quiet=True):
    """Runs pushload; its result as a dictionary, or an error with its words. Its progress is shown unless `quiet`."""
    command = [str(pushload), *map(str, arguments), "--json", *(["--quiet"] if quiet else [])]
    stderr = subprocess.PIPE if quiet else None
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise BenchError(f"pushload took longer than {timeout} s.") from None
    if not done.stdout.startswith("{"):
        raise BenchError(f"pushload: {((done.stderr or '').strip() or 'no result').splitlines()[-1]}")
    return json.loads(done.stdout)


def client(kind):
    """The options for clients of a kind whose requests look like a browser's."""
    return ["--kind", kind, *(word for line in BROWSER_HEADERS[kind] for word in ("--header", line))]


def pinned(load):
    """The options that keep pushload on the CPU of the server, if the load asks for that."""
    return ["--client-cpus", one_cpu()] if load.one_cpu else []


def addresses(server, load):
    """The options that point pushload at a server."""
    options = ["--server-master", server.pid, *pinned(load)]
    if load.command != "park":
        options += ["--pub", f"{server.url}/pub?id={{chan}}"]
    if load.command != "publish":
        options += [*client(load.kind), "--sub", server.url + server.peer.subscribe]
        path, word = server.peer.ready
        options += ["--ready-url", server.url + path, "--ready-key", word]
    if load.probe:
        options += ["--probe", f"{server.url}/small"]
    return options


def run(pushload, load, name):
    """One run of a load against a fresh server: pushload's result, with `log` added."""
    peer = PEERS[name]
    if name == "floor":
        options = ["floor", "--workers", load.workers, *pinned(load)]
        if load.one_cpu:
            options += ["--server-cpus", one_cpu()]
        if load.command == "fanout":
            options += client(load.kind)
        elif load.command == "park":
            options += ["--park", *client(load.kind)]
        else:
            options += ["--publish"]
        result = call(pushload, [*options, *load.options])
        result["log"] = []
        return result
    settings = Settings(
        workers=load.workers,
        shm=load.shm,
        reuseport=load.reuseport,
        access_log=load.access_log,
        cpu=one_cpu() if load.one_cpu else None,
    )
    with running(peer, settings) as server:
        result = call(pushload, [load.command, *load.options, *addresses(server, load)])
    result["log"] = server.log
    return result


def many_channels(pushload, count, publishes):
    """Publishing into a zone that holds `count` channels, against one that holds one: dictionaries by case."""
    peer = PEERS["compact"]
    # A channel with a message of 100 bytes takes 512 bytes; the second messages come on top.
    size = f"{(count * 512 + publishes * 300) // 1_000_000 + 40}m"
    load = Load("many", "", "publish", (), (), shm=size, one_cpu=True)
    settings = Settings(shm=size, cpu=one_cpu())
    one = ("--channels", 1, "--conns", 16, "--messages", publishes, "--warmup", publishes // 20)
    dealt = ("--channels", count, "--conns", 16, "--messages", publishes, "--warmup", publishes // 20)
    results = {}
    with running(peer, settings) as server:
        results["one"] = call(pushload, ["publish", *one, *addresses(server, load)])
    results["one"]["log"] = server.log
    with running(peer, settings) as server:
        before = server.memory()[1]
        results["fill"] = call(
            pushload,
            ["publish", "--channels", count, "--conns", 16, "--messages", count, "--run-id", "beef", *addresses(server, load)],
        )
        results["fill"]["zone_bytes"] = server.memory()[1] - before
        results["one_of_many"] = call(pushload, ["publish", *one, *addresses(server, load)])
        results["all_of_many"] = call(
            pushload, ["publish", *dealt, "--run-id", "beef", *addresses(server, load)]
        )
        results["fill"]["kept"] = kept(server, count)
    results["fill"]["log"] = server.log
    return results


def kept(server, count):
    """Of a sample of channels of the run `beef`, the share that still have a message."""
    from sizing import Connection

    sample = range(0, count, max(1, count // 2000))
    with Connection(server.port) as connection:
        statuses = connection.ask([f"GET /pub?id=plbeefx{i} HTTP/1.1\r\nHost: b\r\n\r\n" for i in sample])
    return sum(status == 200 and b"messages: 0" not in body for status, body in statuses) / len(sample)

