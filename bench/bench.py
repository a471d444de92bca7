#!/usr/bin/env python3
"""The benchmark: `make bench` and `make bench-1m`.

    bench.py compare [--quick] [--rounds N] [--only LOAD,...] [--peers PEER,...]
                                     all servers in turn; writes RESULTS.md
    bench.py million [--clients N] [--workers N] [--connections N] [--messages N] [--peer compact|plain|nchan]
    bench.py report                  RESULTS.md again from the runs there are
    bench.py list                    the loads and peers by name

Needs only Python's own library. Everything stays on 127.0.0.0/8 and ends with this program.
"""

import argparse
import dataclasses
import json
import math
import signal
import sys
import time
from pathlib import Path

import report
import servers
import sizing
from figures import disturbed
from loads import build_pushload, call, client, loads, many_channels, run
from servers import PEERS, ROOT, WORK, BenchError, Settings, running

RESULTS = ROOT / "bench" / "RESULTS.md"
# What each client takes of the machine: sockets of both ends, nginx, pushload.
BYTES_PER_CLIENT = 12_500
# Clients that one worker gets on average, so that chance does not fill it: with a sixteenth to spare and the files that
# workers inherit (5 for each worker there is) it stays below 20,000 open files.
CLIENTS_PER_WORKER = 17_860
WORKERS = {500_000: 30}
MANY = 1_000_000
# What is measured besides the loads.
EXTRA = {"many": f"publishing with {MANY:,} channels in the zone", "sizing": "shared memory per channel and message"}
# The kernel gives each client to a worker by chance: how many standard deviations above the average a worker may get.
# Five are exceeded on one of 56 workers once in 60,000 runs, three once in 13.
DEVIATIONS = 5
# Slots for what is no waiting client: the listening socket, nginx's own channel, the publisher, status pages.
OTHER_CONNECTIONS = 16


def say(words):
    print(words, file=sys.stderr, flush=True)


def save(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def load_json(path, default=None):
    return json.loads(path.read_text()) if path.is_file() else default


def attempt(what, action):
    """A run, and another one if the first was disturbed: the list of their results."""
    results = []
    for _ in range(2):
        say(f"{time.strftime('%T')} {what}{' again (it was disturbed)' if results else ''}")
        try:
            results.append(action())
        except BenchError as error:
            say(f"  no result: {error}")
            break
        if not disturbed(results[-1]):
            break
    return results


def names(text, known, what):
    """The names of a list with commas, or None for no list."""
    if not text:
        return None
    wanted = set(text.split(","))
    if unknown := wanted - set(known):
        raise BenchError(f"There is no {what} {', '.join(sorted(unknown))}: {', '.join(known)}.")
    return wanted


def choose(quick, only, peers):
    """The loads that were asked for, each with the peers that were asked for; and whether 'many' and 'sizing' were."""
    everything = loads(quick)
    wanted = names(only, [*(load.key for load in everything), *EXTRA], "load")
    among = names(peers, PEERS, "peer")
    chosen = [load for load in everything if not wanted or load.key in wanted]
    if among:
        chosen = [dataclasses.replace(load, peers=tuple(p for p in load.peers if p in among)) for load in chosen]
    # The extra ones measure our module alone.
    extra = [key for key in EXTRA if (not wanted or key in wanted) and (not among or "compact" in among)]
    chosen = [load for load in chosen if load.peers]
    if not chosen and not extra:
        raise BenchError("None of these loads has one of these peers.")
    return chosen, extra


def compare(arguments):
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    chosen, extra = choose(arguments.quick, arguments.only, arguments.peers)
    partial = arguments.quick or arguments.only or arguments.peers
    pushload = build_pushload()
    modules = {PEERS[name].module for load in chosen for name in load.peers}
    if extra or "push" in modules:
        servers.push_module()
    if "nchan" in modules:
        servers.nchan_module()
    data = {"runs": [], "many": [], "sizing": [], "rounds": rounds, "machine": report.machine()}
    for load in chosen:
        for number in range(1, rounds + 1):
            for name in load.peers:
                what = f"{load.key}, round {number} of {rounds}: {PEERS[name].title}"
                for result in attempt(what, lambda: run(pushload, load, name)):
                    data["runs"].append({"load": load.key, "round": number, "peer": name, "result": result})
        print(f"\n{load.title}\n\n{report.plain_text(report.table_of(load)(report.by_peer(data['runs'], load.key)))}\n", flush=True)
    if "many" in extra:
        count, publishes = (20_000, 5_000) if arguments.quick else (MANY, 200_000)
        for number in range(1, rounds + 1):
            say(f"{time.strftime('%T')} {count:,} channels, round {number} of {rounds}")
            data["many"].append(many_channels(pushload, count, publishes))
        print(f"\n{count:,} channels in the zone\n\n{report.plain_text(report.many_table(data['many']))}\n", flush=True)
    if "sizing" in extra:
        for case in sizing.CASES[:: 5 if arguments.quick else 1]:
            say(f"{time.strftime('%T')} shared memory: {case.title}")
            data["sizing"].append(sizing.measure(case, arguments.quick))
        print(f"\nshared memory\n\n{report.plain_text(report.sizing_table(data['sizing']))}\n", flush=True)
    if partial:
        write(data, loads(arguments.quick), WORK / "partial")
        print("This was a short or partial run, to see that everything works: its figures are not results.")
        print(f"They are in {WORK / 'partial'}.")
    else:
        save(WORK / "compare.json", data)
        rewrite()


def show(_):
    """Lists what --only and --peers understand."""
    for load in loads(False):
        print(f"{load.key:18} {load.title} ({', '.join(load.peers)})")
    for key, title in EXTRA.items():
        print(f"{key:18} {title} (compact)")


def write(data, chosen, directory):
    """Writes RESULTS.md and the charts."""
    (directory / "charts").mkdir(parents=True, exist_ok=True)
    for name, text in report.chart_files(data["runs"]).items():
        (directory / "charts" / name).write_text(text)
    (directory / "RESULTS.md").write_text(report.results_md(chosen, data))


def rewrite(_=None):
    """RESULTS.md from what is there of `make bench` and `make bench-1m`."""
    data = load_json(WORK / "compare.json")
    if data is None:
        raise BenchError("There is no run to report on: 'make bench' first.")
    data["million"] = [load_json(path) for path in sorted(WORK.glob("million-*.json"))]
    data["million"].sort(key=lambda r: (r["subs"], r["label"]))
    write(data, loads(False), RESULTS.parent)
    print(f"written: {RESULTS}")


def free_memory():
    """Bytes that are free, caches included."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def check_machine(clients, files):
    """Refuses what this machine cannot hold."""
    needed, free = clients * BYTES_PER_CLIENT, free_memory()
    if needed > free:
        fits = int(free / BYTES_PER_CLIENT * 0.95) // 10_000 * 10_000
        raise BenchError(
            f"{clients:,} clients need about {needed / 1e9:.1f} GB of memory for both ends, and {free / 1e9:.1f} GB are free. "
            f"CLIENTS={fits} would fit."
        )
    if files < 20_000:
        raise BenchError(f"A process may open {files:,} files here, and 20,000 are needed: raise 'ulimit -Hn'.")
    whole = int(Path("/proc/sys/fs/file-max").read_text())
    if whole < 2 * clients + 50_000:
        raise BenchError(f"The kernel allows {whole:,} open files in all (fs.file-max), and {2 * clients + 50_000:,} are needed.")


def connections_for(clients, workers):
    """The smallest `worker_connections` with which nothing is closed that should stay.

    With a sixteenth free or less nginx closes, at each new connection, up to 32 of those that idle between requests or
    have not sent one yet. Parked clients are not among them, but those are that have just come, or just got their reply.
    """
    share = 1 / workers
    deviation = math.sqrt(clients * share * (1 - share))
    used = clients * share + DEVIATIONS * deviation + OTHER_CONNECTIONS
    return int(used * 16 / 15) + 1


def million(arguments):
    clients, peer = arguments.clients, PEERS[arguments.peer]
    check_machine(clients, servers.raise_file_limit())
    workers = arguments.workers or WORKERS.get(clients) or -(-clients // CLIENTS_PER_WORKER)
    messages = arguments.messages or (4 if clients <= 500_000 else 1)
    pushload = build_pushload()
    connections = arguments.connections or connections_for(clients, workers)
    settings = Settings(workers=workers, connections=connections, reuseport=True, shm="512m")
    slot = servers.slot_bytes()
    say(
        f"{clients:,} long-polls on one channel of {peer.title}, {workers} workers with {connections:,} connections each "
        f"({slot:.0f} bytes for each of these), {messages} message(s) to all"
    )
    with running(peer, settings) as server:
        path, word = peer.ready
        result = call(
            pushload,
            ["fanout", *client("longpoll"), "--subs", clients, "--messages", messages, "--rate", "0.05",
             "--sub", server.url + peer.subscribe, "--pub", f"{server.url}/pub?id={{chan}}",
             "--ready-url", server.url + path, "--ready-key", word, "--server-master", server.pid,
             "--connect-rate", 12_000, "--connect-timeout", 900, "--settle", 3, "--drain", 60, "--timeout", 1700,
             "--label", arguments.peer],
            timeout=1800,
            quiet=False,
        )  # fmt: skip
    result.update(workers=workers, connections=connections, slot_bytes=slot, log=server.log)
    save(WORK / f"million-{arguments.peer}-{clients}.json", result)
    print()
    print("\n".join(f"{head}: {value}" for head, value in zip(*report.million_table([result]))))
    for line in [*result["errors"], *result["notes"], *server.log[:5]]:
        print(f"note: {line}")
    if (WORK / "compare.json").is_file():
        rewrite()
    return 0 if result["ok"] else 1


def main():
    # Ends through `finally` blocks, so that servers do not stay behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("compare")
    one.add_argument("--quick", action="store_true", help="small and once, to see that everything works")
    one.add_argument("--rounds", type=int, default=0, help="3, or 1 with --quick")
    one.add_argument("--only", help="loads by name, with commas (see 'list')")
    one.add_argument("--peers", help="only these servers, with commas (see 'list')")
    one.set_defaults(act=compare)
    one = commands.add_parser("million")
    one.add_argument("--clients", type=int, default=1_000_000)
    one.add_argument("--workers", type=int, default=0, help="default: one for 17,860 clients, 30 for 500,000")
    one.add_argument("--connections", type=int, default=0, help="worker_connections; default: the fewest that are safe")
    one.add_argument("--messages", type=int, default=0, help="default: 4 up to 500,000 clients, else 1")
    one.add_argument("--peer", choices=["compact", "plain", "nchan"], default="compact")
    one.set_defaults(act=million)
    commands.add_parser("report").set_defaults(act=rewrite)
    commands.add_parser("list").set_defaults(act=show)
    arguments = parser.parse_args()
    try:
        return arguments.act(arguments) or 0
    except BenchError as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
