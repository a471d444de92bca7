"""The servers that are compared: how each is configured, started and addressed.

Every server is an nginx of its own in a directory of its own, in the foreground, on a loopback port; it ends with
the run. The nginx that the system runs is not touched. The peer's module is unpacked from Debian's package, and not
installed: installing it would load it into the system's nginx as well.
"""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("PUSH_BUILD_DIR") or ROOT / "build")
WORK = BUILD / "bench"

NCHAN_PACKAGE = "libnginx-mod-nchan"
NCHAN_MODULE = "usr/lib/nginx/modules/ngx_nchan_module.so"

# What a browser of today sends with a request of a page's script, without the lines that pushload writes itself (Host;
# an EventSource's Accept; a WebSocket's Upgrade, Connection, version and key). With those and the request line a
# long-poll is between 478 and 500 bytes, which is what nginx has to keep of a parked request, an EventSource's between
# 490 and 512, and a WebSocket handshake between 415 and 440, as it comes without sec-ch-ua and Sec-Fetch lines.
USER_AGENT = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"
FETCH_HEADERS = [
    USER_AGENT,
    'sec-ch-ua: "Chromium";v="120"',
    "sec-ch-ua-mobile: ?0",
    'sec-ch-ua-platform: "Linux"',
    "Sec-Fetch-Site: same-origin",
    "Sec-Fetch-Mode: cors",
    "Sec-Fetch-Dest: empty",
    "Referer: http://localhost:8080/",
]
LANGUAGE_HEADERS = ["Accept-Encoding: gzip, deflate, br", "Accept-Language: en-US,en;q=0.9"]
# By pushload's kind of client.
BROWSER_HEADERS = {
    "longpoll": ["Connection: keep-alive", "Accept: text/plain, */*; q=0.01", *FETCH_HEADERS, *LANGUAGE_HEADERS],
    "sse": ["Connection: keep-alive", "Cache-Control: no-cache", *FETCH_HEADERS, *LANGUAGE_HEADERS],
    # Browsers offer compression, too; here all servers send the same bytes, so it is not offered.
    "ws": ["Pragma: no-cache", "Cache-Control: no-cache", USER_AGENT, "Origin: http://localhost:8080", *LANGUAGE_HEADERS],
}


class BenchError(Exception):
    """Something that the user has to know; the text is a sentence."""


@dataclass(frozen=True)
class Peer:
    """A server to compare."""

    name: str
    title: str
    module: str = ""
    http: str = ""
    locations: str = ""
    subscribe: str = ""
    # The page and the word before the number of waiting subscribers.
    ready: tuple = ()


PUSH_LOCATIONS = """
        location = /pub {{ push_publisher;  push_channel_id $arg_id; {pub} }}
        location = /sub {{ push_subscriber; push_channel_id $arg_id; {sub} }}"""

PEERS = {
    # pushload's own server, which needs no nginx: the least that a server can cost.
    "floor": Peer("floor", "floor"),
    "nginx": Peer(
        "nginx",
        "nginx alone",
        locations="""
        location = /pub { return 202 "queued messages: 1\\r\\nlast requested: 0 sec. ago\\r\\nactive subscribers: 0"; }""",
    ),
    "nchan": Peer(
        "nchan",
        "Nchan",
        module="nchan",
        http="nchan_shared_memory_size {shm};",
        locations="""
        location = /pub    { nchan_publisher; nchan_channel_id $arg_id; }
        location = /sub    { nchan_subscriber longpoll eventsource websocket; nchan_channel_id $arg_id; }
        location = /status { nchan_stub_status; }""",
        subscribe="/sub?id={chan}",
        ready=("/status", "subscribers"),
    ),
    "compact": Peer(
        "compact",
        "ours, compact",
        module="push",
        http="push_shared_memory_size {shm};",
        locations=PUSH_LOCATIONS.format(pub="{pub}", sub="push_park compact; {sub}"),
        subscribe="/sub?id={chan}",
        ready=("/pub?id={chan}", "active subscribers"),
    ),
    "plain": Peer(
        "plain",
        "ours, plain",
        module="push",
        http="push_shared_memory_size {shm};",
        locations=PUSH_LOCATIONS.format(pub="{pub}", sub="push_park plain; {sub}"),
        subscribe="/sub?id={chan}",
        ready=("/pub?id={chan}", "active subscribers"),
    ),
}

CONFIG = """# Written by bench/servers.py for one run.
{load_module}
daemon off;
master_process on;
{user}
worker_processes {workers};
{affinity}
worker_rlimit_nofile {files};
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;

events {{
    worker_connections {connections};
    use epoll;
}}

http {{
    access_log {access_log};
    default_type text/plain;
    # The other settings are nginx's defaults, above all the sizes of pools and buffers.
    keepalive_requests 1000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {http}

    server {{
        listen 127.0.0.1:{port} backlog=4096{reuseport};
        location = /small {{ return 200 "ok"; }}
        location = /pid {{ return 200 "$pid"; }}
{locations}
    }}
}}
"""


def nginx_program():
    """The nginx that the module was built for: NGINX_BIN, or the installed one."""
    wanted = os.environ.get("NGINX_BIN") or "nginx"
    path = shutil.which(wanted, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    if not path:
        raise BenchError(f"{wanted} was not found; 'scripts/setup.sh bench' installs Debian's nginx.")
    return path


def push_module():
    """Our module, as `make` builds it."""
    path = Path(os.environ.get("PUSH_MODULE") or BUILD / "ngx_http_push_module.so")
    if not path.is_file():
        raise BenchError(f"{path} is not there: run 'make' first.")
    return path


def nchan_module():
    """The peer's module: the installed one, or unpacked from Debian's package under build/bench/."""
    installed = Path("/") / NCHAN_MODULE
    if installed.is_file():
        return installed
    unpacked = WORK / "peers" / NCHAN_MODULE
    if unpacked.is_file():
        return unpacked
    if not shutil.which("apt-get"):
        raise BenchError(f"Nchan is taken from Debian's package {NCHAN_PACKAGE}, and apt-get is not here.")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(WORK / "peers")
    (WORK / "peers").mkdir(parents=True)
    print(f"== fetching {NCHAN_PACKAGE}", flush=True)
    fetched = subprocess.run(
        ["apt-get", "download", "-q", NCHAN_PACKAGE], cwd=WORK / "peers", capture_output=True, text=True
    )
    packages = list((WORK / "peers").glob("*.deb"))
    if fetched.returncode != 0 or len(packages) != 1:
        last = (fetched.stderr.strip() or "no package came").splitlines()[-1]
        raise BenchError(f"apt-get download {NCHAN_PACKAGE} failed: {last}")
    subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(WORK / "peers")], check=True)
    return unpacked


def nchan_version():
    """Version of the peer's package, or an empty text."""
    for package in (WORK / "peers").glob("*.deb"):
        return output(["dpkg-deb", "-f", str(package), "Version"])
    return output(["dpkg-query", "-W", "-f", "${Version}", NCHAN_PACKAGE])


def output(command):
    """What a command prints, or an empty text if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


@dataclass
class Settings:
    """How a server runs."""

    workers: int = 1
    shm: str = "256m"
    # Above 18,000 clients by more than a sixteenth: with fewer to spare, nginx closes idle keep-alive connections.
    connections: int = 19900
    reuseport: bool = False
    access_log: bool = False
    # Keep all workers on this CPU; None leaves it to the kernel.
    cpu: int | None = None
    # More directives for the publisher and subscriber locations.
    pub: str = ""
    sub: str = ""


@dataclass
class Server:
    """A running nginx."""

    peer: Peer
    port: int
    directory: Path
    process: subprocess.Popen = None
    log: list = field(default_factory=list)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self):
        return self.process.pid

    def workers(self):
        """Pids of the worker processes."""
        text = output(["pgrep", "-P", str(self.pid)])
        return [int(pid) for pid in text.split()]

    def memory(self):
        """Sums over nginx's processes in bytes: (private memory, share of shared memory)."""
        private = shared = 0
        for pid in [self.pid, *self.workers()]:
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss_Anon:"):
                        private += int(line.split()[1]) * 1024
                    elif line.startswith("Pss_Shmem:"):
                        shared += int(line.split()[1]) * 1024
        return private, shared


def slot_bytes():
    """What nginx allocates for each of a worker's `worker_connections`, used or not, in bytes: measured."""
    few, many = 1_000, 17_000
    taken = {}
    for count in (few, many):
        with running(PEERS["nginx"], Settings(connections=count)) as server:
            taken[count] = server.memory()[0]
    return (taken[many] - taken[few]) / (many - few)


def one_cpu():
    """The CPU for loads that keep server and clients on one."""
    return min(os.sched_getaffinity(0))


def free_port():
    """A port that nobody listens on at the moment."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def raise_file_limit():
    """Raises the soft limit of open files to the hard one and returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextlib.contextmanager
def running(peer, settings):
    """Starts a fresh nginx for a peer, and stops it at the end; `log` then has what it complained of."""
    port = free_port()
    directory = WORK / "run" / f"{peer.name}-{port}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    module = {"push": push_module, "nchan": nchan_module}.get(peer.module, lambda: "")()
    locations = peer.locations
    if peer.module == "push":
        locations = locations.replace("{pub}", settings.pub).replace("{sub}", settings.sub)
    (directory / "nginx.conf").write_text(
        CONFIG.format(
            load_module=f"load_module {module};" if module else "",
            user="user root;" if os.geteuid() == 0 else "",
            workers=settings.workers,
            affinity="" if settings.cpu is None else f"worker_cpu_affinity 1{'0' * settings.cpu};",
            files=min(raise_file_limit(), 1 << 20),
            connections=settings.connections,
            directory=directory,
            access_log=f"{directory}/access.log" if settings.access_log else "off",
            http=peer.http.format(shm=settings.shm),
            port=port,
            reuseport=" reuseport" if settings.reuseport else "",
            locations=locations,
        )
    )
    server = Server(peer, port, directory)
    with open(directory / "stderr.txt", "w") as stderr:
        environment = {k: v for k, v in os.environ.items() if k != "NGINX"}
        server.process = subprocess.Popen(
            [nginx_program(), "-p", f"{directory}/", "-c", f"{directory}/nginx.conf"],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            env=environment,
        )
    try:
        wait_until_listening(server)
        wait_for_workers(server, settings.workers)
        yield server
    finally:
        stop(server)
        server.log = complaints(directory)
        if not server.log:
            shutil.rmtree(directory, ignore_errors=True)


def wait_until_listening(server):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if server.process.poll() is not None:
            lines = (server.directory / "stderr.txt").read_text().strip().splitlines()
            raise BenchError(f"{server.peer.title} did not start: {lines[-1] if lines else 'no reason given'}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 1):
            return
        time.sleep(0.02)
    raise BenchError(f"{server.peer.title} does not listen on port {server.port}.")


def wait_for_workers(server, count):
    """The master listens before its workers are there."""
    end = time.monotonic() + 20
    while len(server.workers()) < count and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.2)


def stop(server):
    """Ends the server, and its workers, by their pids."""
    workers = server.workers()
    server.process.send_signal(signal.SIGTERM)
    try:
        server.process.wait(60)
    except subprocess.TimeoutExpired:
        for pid in [server.pid, *workers]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.process.wait(10)


def complaints(directory):
    """Lines of the error log that say that something is wrong."""
    found = []
    for name in ("error.log", "stderr.txt"):
        with contextlib.suppress(OSError), open(directory / name, errors="replace") as f:
            for line in f:
                if any(level in line for level in ("[warn]", "[error]", "[crit]", "[alert]", "[emerg]")):
                    found.append(line.strip())
    return found
