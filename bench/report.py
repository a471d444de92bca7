"""Tables for the terminal, and bench/RESULTS.md with its charts."""

import datetime
import os
import re
from pathlib import Path
from statistics import median

import charts
from figures import TOO_FEW, at, compared, disturbed, figure, ratio, total, usable, worst
from servers import PEERS, ROOT, nchan_version, nginx_program, output

# The quantiles of pushload's "curve", in percent.
CURVE = [0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100]


def span(value, digits=2, suffix=""):
    """A figure as text: median and range."""
    if value is None:
        return "–"
    text = f"{value.middle:,.{digits}f}{suffix}"
    if value.count > 1:
        text += f" ({value.low:,.{digits}f}–{value.high:,.{digits}f})"
    return text + (" ~" if value.unsteady else "") + (" †" if value.disturbed else "")


def times(value):
    return "–" if value is None else f"{value:.2f}"


def over(value, floor):
    """What a figure has above the floor's."""
    return "–" if value is None or floor is None else f"{value.middle - floor.middle:+.2f}"


def by_peer(runs, load):
    """Results of a load, by peer, in the order they first came."""
    found = {}
    for run in runs:
        if run["load"] == load:
            found.setdefault(run["peer"], []).append(run["result"])
    return found


def state(results):
    """The last two columns: disturbed runs, and what went wrong."""
    noisy = sum(map(disturbed, results))
    known = any(at(r, "cpu.wall_s") for r in results)
    wrong = sorted({e for r in results for e in r["errors"]})
    lines = sum(len(r.get("log", [])) for r in results)
    if lines:
        wrong.append(f"{lines} lines in the error log")
    return [f"{noisy} of {len(results)}" if noisy else "no" if known else "–", "; ".join(wrong) or "–"]


FANOUT_HEAD = [
    "", "CPU µs per delivery", "over the floor", "× floor", "latency p50 ms", "p99 ms", "last has it, ms", "lost", "disturbed", "trouble",
]
LAST_HEAD = [
    "", "last has it, ms", "× floor", "longest of all ms", "not with all", "latency p50 ms", "CPU µs per delivery", "× floor", "lost",
    "disturbed", "trouble",
]
PUBLISH_HEAD = ["", "CPU µs per publish", "over the floor", "× floor", "× nginx", "per second", "ack p99 ms", "disturbed", "trouble"]
PARK_HEAD = ["", "private bytes per client", "kept for later ones when all have gone", "kernel's sockets, bytes", "disturbed", "trouble"]
WAIT_HEAD = [
    "", "worst per fan-out, ms", "p99 ms", "longest of all ms", "between fan-outs p99 ms", "last client has it, ms",
    "lost", "disturbed", "trouble",
]


def fanout_table(peers):
    floor = figure(peers.get("floor", []), "cpu.server_us_per_delivery")
    rows = [FANOUT_HEAD]
    for name, results in peers.items():
        cost = figure(results, "cpu.server_us_per_delivery")
        rows.append(
            [
                PEERS[name].title,
                span(cost),
                over(cost, floor),
                times(ratio(cost, floor)),
                span(figure(results, "latency_us.p50", 1e-3), 1),
                span(figure(results, "latency_us.p99", 1e-3), 1),
                span(figure(results, "completion_us.p50", 1e-3), 1),
                f"{total(results, 'delivery.lost'):,}",
                *state(results),
            ]
        )
    return rows


def until_last(results):
    """Milliseconds from publishing a message until its last client has it: each run's median over the messages all got."""
    timed = [r for r in results if at(r, "completion_us.count")]
    return figure(timed, "completion_us.p50", 1e-3)


def last_table(peers):
    floor = until_last(peers.get("floor", []))
    floor_cost = figure(peers.get("floor", []), "cpu.server_us_per_delivery")
    rows = [LAST_HEAD]
    for name, results in peers.items():
        last, cost = until_last(results), figure(results, "cpu.server_us_per_delivery")
        longest = worst(results, "completion_us.max", 1e-3)
        missing = total(results, "messages") - total(results, "completion_us.count")
        rows.append(
            [
                PEERS[name].title,
                span(last, 0) if last else "never",
                times(ratio(last, floor)),
                f"{longest:,.0f}" if longest else "–",
                f"{missing:,} of {total(results, 'messages'):,} messages",
                span(figure(results, "latency_us.p50", 1e-3), 0),
                span(cost),
                times(ratio(cost, floor_cost)),
                f"{total(results, 'delivery.lost'):,}",
                *state(results),
            ]
        )
    return rows


def publish_table(peers):
    floor = figure(peers.get("floor", []), "cpu.server_us_per_publish")
    # Without a floor the kernel placed the processes, and then a ratio would be one of placements.
    nginx = floor and figure(peers.get("nginx", []), "cpu.server_us_per_publish")
    rows = [PUBLISH_HEAD]
    for name, results in peers.items():
        cost = figure(results, "cpu.server_us_per_publish")
        rows.append(
            [
                "ours" if name == "compact" else PEERS[name].title,
                span(cost),
                over(cost, floor),
                times(ratio(cost, floor)),
                times(ratio(cost, nginx)),
                span(figure(results, "publish.per_second"), 0),
                span(figure(results, "publish.ack_us.p99", 1e-3), 2),
                *state(results),
            ]
        )
    return rows


def left_over(results):
    """Private bytes per client that the server keeps when all have gone."""
    shown = []
    for r in results:
        before, after = at(r, "memory.server.base.pss_anon"), at(r, "memory.server.closed.pss_anon")
        if before is not None and after is not None:
            shown.append({"notes": r["notes"], "left": max(after - before, 0) / max(r["subs"], 1)})
    return figure(shown, "left")


def park_table(peers):
    rows = [PARK_HEAD]
    for name, results in peers.items():
        rows.append(
            [
                PEERS[name].title,
                span(figure(results, "memory.per_conn.user_anon"), 0),
                span(left_over(results), 0),
                span(figure(results, "memory.per_conn.kernel_sockets"), 0),
                *state(results),
            ]
        )
    return rows


def wait_table(peers):
    rows = [WAIT_HEAD]
    for name, results in peers.items():
        longest = worst(results, "probe.during_us.max", 1e-3)
        rows.append(
            [
                PEERS[name].title,
                span(figure(results, "probe.worst_p50_us", 1e-3), 1),
                span(figure(results, "probe.during_us.p99", 1e-3), 1),
                "–" if longest is None else f"{longest:.1f}",
                span(figure(results, "probe.between_us.p99", 1e-3), 2),
                span(figure(results, "completion_us.p50", 1e-3), 0),
                f"{total(results, 'delivery.lost'):,}",
                *state(results),
            ]
        )
    return rows


CASES = [
    ("one", "a zone with this channel only"),
    ("one_of_many", "a zone with {count:,} channels, all publishes to one of them"),
    ("all_of_many", "a zone with {count:,} channels, each publish to another of them"),
]


def many_table(rounds):
    """Publishing into a full zone. `rounds`: results of loads.many_channels."""
    rows = [["", "CPU µs per publish", "× one channel", "disturbed", "trouble"]]
    if not rounds:
        return rows
    one = figure([r["one"] for r in rounds], "cpu.server_us_per_publish")
    for key, title in CASES:
        results = [r[key] for r in rounds]
        cost = figure(results, "cpu.server_us_per_publish")
        rows.append(
            [title.format(count=rounds[0]["fill"]["channels"]), span(cost), times(ratio(cost, one)), *state(results)]
        )
    return rows


def sizing_table(sizes):
    rows = [["", "bytes, measured", "blocks × 128", "fit into the two zones"]]
    for case in sizes:
        zones = " and ".join(f"{n:,} in {size // 1024}k" for n, size in zip(case["fit"], case["zones"]))
        rows.append([case["title"], f"{case['bytes']:.1f}", str(case["formula"]), zones])
    return rows


def slot_memory(result):
    """Bytes of the connection slots that nginx allocates when it starts, or None if the run does not tell."""
    size, connections = at(result, "slot_bytes"), at(result, "connections")
    return result["workers"] * connections * size if size and connections else None


def gigabytes(size):
    return "–" if size is None else f"{size / 1e9:.2f}"


def million_table(results):
    rows = [
        ["clients", "server", "workers", "messages", "lost", "last has it, s", "CPU µs per delivery", "private memory of nginx, GB",
         "before the first client, GB", "its connection slots, GB", "without these, GB", "growth per client, bytes",
         "kernel's sockets per client, bytes", "disturbed", "trouble"]
    ]  # fmt: skip
    for r in results:
        private, before = at(r, "memory.server.parked.pss_anon"), at(r, "memory.server.base.pss_anon")
        slots = slot_memory(r)
        rows.append(
            [
                f"{r['subs']:,}",
                PEERS[r["label"]].title,
                str(r["workers"]),
                str(r["messages"]),
                f"{at(r, 'delivery.lost'):,} of {at(r, 'delivery.expected'):,}",
                last_has_it(r),
                f"{at(r, 'cpu.server_us_per_delivery') or 0:.1f}",
                gigabytes(private),
                gigabytes(before),
                gigabytes(slots),
                gigabytes(private - slots if private and slots else None),
                f"{at(r, 'memory.per_conn.user_anon') or 0:,.0f}",
                f"{at(r, 'memory.per_conn.kernel_sockets') or 0:,.0f}",
                *state([r]),
            ]
        )
    return rows


def last_has_it(result):
    """Seconds until the last client had a message: median and longest over the messages that all got."""
    done = at(result, "completion_us.count") or 0
    if not done:
        return "never"
    middle, longest = at(result, "completion_us.p50") / 1e6, at(result, "completion_us.max") / 1e6
    return f"{middle:.1f}" + (f" (up to {longest:.1f}, {done} messages)" if done > 1 else "")


def plain_text(rows):
    """A table for the terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)


def markdown(rows):
    """A table for RESULTS.md."""
    lines = ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


TABLES = {"fanout": fanout_table, "publish": publish_table, "park": park_table, "wait": wait_table, "last": last_table}


def table_of(load):
    """The function that makes a load's table."""
    return TABLES["wait" if load.probe else "last" if load.until_last else load.command]


def machine():
    """What the figures depend on: (what, value)."""

    def read(path):
        try:
            return Path(path).read_text()
        except OSError:
            return ""

    def first(pattern, words):
        found = re.search(pattern, words, re.MULTILINE)
        return found.group(1).strip() if found else "unknown"

    version = first(r'^version = "(.*)"', read(ROOT / "Cargo.toml"))
    commit = output(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"])
    if commit and output(["git", "-C", str(ROOT), "status", "--porcelain", "--", "src", "comet", "Cargo.toml"]):
        commit += " with changes"
    model = first(r"^model name\s*:(.*)", read("/proc/cpuinfo"))
    system = first(r'^PRETTY_NAME="(.*)"', read("/etc/os-release"))
    memory = int(first(r"^MemTotal:\s+(\d+) kB", read("/proc/meminfo"))) / 1024 / 1024
    return [
        ("Date", datetime.date.today().isoformat()),
        ("CPU", f"{os.cpu_count()} × {model}"),
        ("Memory", f"{memory:.0f} GiB"),
        ("System", f"{system}, Linux {os.uname().release}"),
        ("TCP congestion control", read("/proc/sys/net/ipv4/tcp_congestion_control").strip()),
        ("nginx", output(["sh", "-c", f"{nginx_program()} -v 2>&1"]).rpartition("/")[2]),
        ("Nchan", f"{nchan_version() or 'not there'} (Debian)"),
        ("This module", version + (f", commit {commit}" if commit else "")),
        ("Compiler", output(["rustc", "--version"])),
    ]


def verdicts(runs):
    """Sentences on what the rounds show."""
    both = ("compact", "plain")
    cost, private = "cpu.server_us_per_delivery", "memory.per_conn.user_anon"
    lines = []
    for load, path, what, mine in (
        ("fanout-1", cost, "CPU per delivery, 1 worker", both),
        ("fanout-1-cpu", cost, "CPU per delivery, 1 worker, all on one CPU", both),
        ("fanout-4", cost, "CPU per delivery, 4 workers", both),
        ("fanout-1-sse", cost, "CPU per delivery, EventSource, 1 worker", both),
        ("fanout-1-cpu-sse", cost, "CPU per delivery, EventSource, 1 worker, all on one CPU", both),
        ("fanout-1-ws", cost, "CPU per delivery, WebSocket, 1 worker", both),
        ("fanout-1-cpu-ws", cost, "CPU per delivery, WebSocket, 1 worker, all on one CPU", both),
        ("last-4-sse", None, "time until the last EventSource client has a message, 4 workers", ("compact",)),
        ("publish-full", "cpu.server_us_per_publish", "CPU per publish, as fast as it goes", ("compact",)),
        ("publish-paced", "cpu.server_us_per_publish", "CPU per publish, 20,000 a second", ("compact",)),
        ("park", private, "private memory per parked client", both),
        ("park-sse", private, "private memory per idle EventSource client", both),
        ("park-ws", private, "private memory per idle WebSocket client", both),
        ("wait", "probe.worst_p50_us", "worst wait of another request during a fan-out", both),
    ):
        peers = by_peer(runs, load)
        for name in mine:
            ours, theirs = (figure(r, path) if path else until_last(r) for r in (peers.get(name, []), peers.get("nchan", [])))
            said = compared(ours, theirs)
            if said:
                title = PEERS[name].title if len(mine) > 1 else "ours"
                lines.append((f"* {what}, {title} against Nchan: {said}.", said))
    if lines and all(said == TOO_FEW for _, said in lines):
        return ["Nothing for certain: the tables have what was measured, in too few rounds to tell one range from another."]
    return [line for line, said in lines if said != TOO_FEW]


def chart_rows(runs, groups, path, label):
    """Rows of bars for the loads there are runs of, each under its heading. `label`: a figure and the floor's as text."""
    rows = []
    for load, heading in groups:
        peers = by_peer(runs, load)
        floor = figure(peers.get("floor", []), path)
        found = [(name, figure(results, path)) for name, results in peers.items()]
        found = [(name, f) for name, f in found if f]
        if found:
            rows.append((heading,))
        for name, f in found:
            rows.append((name, PEERS[name].title, f.middle, f.low, f.high, label(f, None if name == "floor" else floor)))
    return rows


def cost_label(cost, floor):
    by = ratio(cost, floor)
    return f"{cost.middle:.2f} µs" + (f" = {by:.2f} × floor" if by else "") + (" †" if cost.disturbed else "")


def memory_label(size, _):
    return f"{size.middle:,.0f} bytes" + (" †" if size.disturbed else "")


ONE_CPU = "1 worker, server and clients on one CPU"
# File, title, subtitle, loads with their headings, figure, label. Streams have a chart of their own, as they cost less.
BARS = [
    (
        "memory.svg",
        "Private memory per waiting client",
        "bytes of the server's own memory at nginx's default settings",
        [("park", "long-poll"), ("park-sse", "EventSource"), ("park-ws", "WebSocket")],
        "memory.per_conn.user_anon",
        memory_label,
    ),
    (
        "cpu.svg",
        "CPU per delivery of a long-poll",
        "microseconds of the server's CPU, the client's next request included",
        [("fanout-1", "1 worker"), ("fanout-1-cpu", ONE_CPU), ("fanout-4", "4 workers")],
        "cpu.server_us_per_delivery",
        cost_label,
    ),
    (
        "cpu-streams.svg",
        "CPU per delivery to EventSource and WebSocket clients",
        "microseconds of the server's CPU",
        [
            ("fanout-1-sse", "EventSource, 1 worker"),
            ("fanout-1-cpu-sse", f"EventSource, {ONE_CPU}"),
            ("fanout-1-ws", "WebSocket, 1 worker"),
            ("fanout-1-cpu-ws", f"WebSocket, {ONE_CPU}"),
        ],
        "cpu.server_us_per_delivery",
        cost_label,
    ),
]


def chart_files(runs):
    """The charts there are runs for: name -> SVG text."""
    files = {}
    for name, title, subtitle, groups, path, label in BARS:
        rows = chart_rows(runs, groups, path, label)
        if rows:
            marked = "; †: other programs used the CPU" if any(row[-1].endswith("†") for row in rows) else ""
            files[name] = charts.bars(title, f"{subtitle}; line: range over rounds{marked}", rows)
    rows = []
    for name, results in by_peer(runs, "fanout-1").items():
        found = [at(r, "latency_us.curve") for r in usable(results)]
        found = [c for c in found if c]
        if found:
            rows.append((name, PEERS[name].title, [median(v) / 1e3 for v in zip(*found)]))
    if rows:
        files["latency.svg"] = charts.curves(
            "How long until a long-poll has its message",
            "milliseconds from publishing to reading, one channel, 1 worker; median over rounds",
            CURVE,
            rows,
            "ms",
        )
    return files


# What each chart shows.
CHARTS = {**{name: title for name, title, *_ in BARS}, "latency.svg": "Latency of a long-poll"}

HOW = """## How it is taken

Each load runs against one server after the other, in rounds (A B C A B C), each time against a freshly started nginx
with default settings (but `keepalive_requests 1000000` and a large `worker_connections`). Client and server share the
machine, so **only ratios between servers of the same table mean something elsewhere**. A figure is the median over
rounds, with the range in brackets.

* **disturbed**: other programs used more than a tenth of the time on a CPU during the run. Such a run is repeated once;
  it counts only if no round was left alone. `~` marks figures whose rounds lie more than a quarter of the median apart:
  do not lean on them; `†` marks figures for which there was no undisturbed run at all: they are not results.
* **floor**: a program that answers with prepared bytes from an epoll loop with `send`: the least a server can cost here.
  **nginx alone** answers a publish with `return 202`. **compact** and **plain** are the values of `push_park`.
* **On one CPU** keeps server and clients on the same CPU; otherwise the kernel places them. Placement decides how many
  requests a server finds each time it wakes up, and so what one costs: left free, the floor itself was seen at 1.5 and at
  4.9 µs per publish, and a median does not help. What a server takes *over the floor* hardly depends on this; **× floor**
  does, so it is lower at 20,000 publishes a second (a wake-up for each) than as fast as it goes (one for up to 16). Neither
  is the right one for every use. With 4 workers the
  kernel places them, and there is no floor: that table says that nothing is lost or stalls, and no ratios.
* **CPU** is what the kernel's scheduler counted for all of the server's processes (`/proc/PID/schedstat`), from the first
  publish until the server is quiet after the last delivery. On loopback the kernel does the receiver's TCP work inside the
  sender's system call, for the floor as for the others.
* **Clients** send the headers that browsers send: 478 to 500 bytes for a long-poll, 490 to 512 for an EventSource, 415 to
  440 for a WebSocket. WebSocket clients offer no compression, so all servers send the same bytes. Each client checks that
  it gets every message once and in order. Messages are 100 bytes. What surrounds them is each server's own: the floor sends
  an EventSource no chunks and a shorter id.
* **latency**: from publishing until the client has read the message. **last has it**: the same for the last client.
* **Until the last of many EventSource clients has it**: one message a second, four client processes, a listening socket for
  each worker (`reuseport`), so that the workers get nearly the same number of clients; the floor's get exactly the same.
  The clients use the same CPUs as the server, and their reading is in the time. Messages that did not reach all clients
  have no such time: they are counted beside it.
* **Memory**: growth of the processes' private memory (`Pss_Anon`) from before the first client until all wait. The
  kernel's sockets are counted for both ends of a connection. What is kept 3 seconds after all have gone lies in the
  process's heap and serves the next clients: it does not grow with a second crowd of the same size. For EventSource and
  WebSocket the access log is on, as it is by default, since a stream has to remember its request for the line at its end;
  in the other loads it is off. nginx allocates its connection slots when it starts, so they are not in the growth; in the table of
  hundreds of thousands of clients they are shown beside it (`workers × worker_connections`, with a size that is measured).
* **A small request beside fan-outs**: a client asks for a two-byte page of the same worker every millisecond; its wait ends
  when the reply is in its socket. Requests that a long wait held up count with the wait they would have had.
* **Shared memory**: channels are added to zones of two sizes until one does not fit; the difference between the zones,
  divided by the difference of the counts, is what one takes. The share of the hash table (2 bytes for each block of 128)
  is in it.

`bench/pushload/README.md` says how the load generator itself was checked.
"""


def results_md(loads, data):
    """The text of RESULTS.md. `data`: runs, many, sizing, million, machine, rounds."""
    runs = data["runs"]
    out = [
        "# Benchmark results",
        "",
        "Made by `make bench` and `make bench-1m` on the machine below; do not edit. Run them to check.",
        "",
        markdown([["", ""], *map(list, data["machine"]), ["Rounds", str(data["rounds"])]]),
        "",
        *(f"![{CHARTS[name]}](charts/{name})" for name in chart_files(runs)),
        "",
        "## What the rounds show",
        "",
        *(verdicts(runs) or ["Nothing: there were too few rounds."]),
        "",
    ]
    for load in loads:
        peers = by_peer(runs, load.key)
        if peers:
            out += [f"## {load.title[0].upper()}{load.title[1:]}", "", markdown(table_of(load)(peers)), ""]
    if data.get("many"):
        fill = data["many"][0]["fill"]
        kept = min(r["fill"]["kept"] for r in data["many"])
        size = median(r["fill"]["zone_bytes"] for r in data["many"])
        out += [
            f"## Publishing with {fill['channels']:,} channels in the zone, 16 connections, 1 worker",
            "",
            markdown(many_table(data["many"])),
            "",
            f"The zone was filled with one message of 100 bytes for each channel: {size / 1e6:,.0f} MB of shared memory, "
            f"{size / fill['channels']:.0f} bytes for a channel with its message. A sample of the channels was asked for at "
            f"the end: {kept:.1%} still had their message.",
            "",
        ]
    if data.get("sizing"):
        out += ["## Shared memory per channel and message", "", markdown(sizing_table(data["sizing"])), ""]
    if data.get("million"):
        out += [
            "## Hundreds of thousands of clients",
            "",
            "All wait on one channel; each message goes to all of them (`make bench-1m`, one run each).",
            "",
            markdown(million_table(data["million"])),
            "",
        ]
    return "\n".join([*out, HOW])
