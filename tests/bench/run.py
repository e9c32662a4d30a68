#!/usr/bin/python3
"""./dev bench [--quick] [--rounds N] [--out FILE]: how fast it is, and how little it takes, as ratios
against something that does as much of the same in the same run: nginx, where a file or a server is
passed on, and a client without an agent ("direct") and one that only makes an agent's requests and files
("bare": bare_agent.c), where a prompt is run. Who of them goes first alternates; a figure is the median of
the rounds, or of the turns of all rounds, (least–most).

nginx keeps connections and files open, writes no access log and passes bodies on without storing them; its
buffers are as they come, and where bytes are many, there is a line beside one with larger ones, too.

Behind all of them stands a ComfyUI that takes no time (fake_comfy.c), in front of them a generator of
load (load.c). Everything lies in one temporary directory, in memory where there is /dev/shm, and listens on
ports of its own. It ends with this process, however that ends; only what is timed from its start ends with
what started it. A machine that does other things meanwhile shows in the spread. --quick proves only that all
of it can be measured.

Ends with 1 if a request failed or a figure is missing, with 77 if that is for want of nginx.
"""

import argparse
import contextlib
import ctypes
import datetime
import http.client
import json
import os
import pathlib
import platform
import random
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1 << 20
PATIENCE = 60  # seconds; only ever waited for when something is wrong
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
NO_NGINX = "nginx is not installed"
LARGE_BUFFERS = ("proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;"
                 " client_body_buffer_size 64k;")
LIBC = ctypes.CDLL(None)
NGINX_CONF = """daemon off; {user} worker_processes auto; worker_rlimit_nofile 8192;
pid nginx.pid; error_log error.log crit;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; tcp_nopush on; default_type application/json; client_max_body_size 0;
    {more}
    keepalive_requests 100000000; keepalive_timeout 600s;
    open_file_cache max=100 inactive=600s; open_file_cache_valid 600s;
    client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    upstream comfy {{ server 127.0.0.1:{comfy}; keepalive 128; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /api/status {{ alias {files}/$arg_id; }}
        location = /ws {{ proxy_pass http://comfy; proxy_http_version 1.1; proxy_read_timeout 600s;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}
        location / {{ proxy_pass http://comfy; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_request_buffering off; proxy_max_temp_file_size 0; }}
    }}
}}
"""


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        if time.monotonic() > end:
            raise RuntimeError(f"waited in vain for {what}")
        time.sleep(0.0002)
    return value


def free_port():
    """Below those that the kernel gives to clients, of which there are many here."""
    while True:
        port = random.randrange(10000, 32000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def ask(port, method, path, body=None, headers=None):
    """(status, body)"""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def answer_of(process, path):
    """(status, body), or None if it does not answer yet."""
    if process.child.poll() is not None:
        raise RuntimeError(f"{process.child.args[0]} has ended with {process.child.returncode}")
    with contextlib.suppress(OSError, http.client.HTTPException):
        return ask(process.port, "GET", path)
    return None


def answers(process, path="/api/status?id=none", status=None):
    """Does it, and so?"""
    answer = answer_of(process, path)
    return answer is not None and status in (None, answer[0])


def keep_open(port, path, status, extra=""):
    """A connection on which one request was answered so."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n{extra}\r\n".encode())
    said = connection.recv(4096)
    if said.split()[1:2] != [status]:
        raise RuntimeError(f"GET {path}: {said[:300]}")
    return connection


def prompt(nodes, steps=20, image=1024, last="SaveImage"):
    """A chain of so many nodes, the last but one of which takes steps."""
    graph = {str(n): {"class_type": "CLIPTextEncode",
                      "inputs": {"text": f"a harbour in the morning, view {n}", "clip": [str(n - 1), 1]}}
             for n in range(1, nodes - 1)}
    graph[str(nodes - 1)] = {"class_type": "KSampler", "inputs": {
        "seed": 7, "steps": steps, "cfg": 7.5, "sampler_name": "euler", "model": [str(nodes - 2), 0]}}
    graph[str(nodes)] = {"class_type": last, "inputs": {"filename_prefix": f"bench_{image}",
                                                        "images": [str(nodes - 1), 0]}}
    return json.dumps(graph)


# --- processes --------------------------------------------------------------------------------


class Process:
    """Dies with us, unless it is timed."""

    def __init__(self, argv, end=signal.SIGKILL, timed=False, **kwargs):
        """timed: began where the exec is, and not before a fork of all this (and does not die with us)."""
        self.end = end
        self.began = time.monotonic()
        self.child = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL,
                                      preexec_fn=None if timed else lambda: LIBC.prctl(1, end), **kwargs)

    def stop(self):
        self.child.send_signal(self.end)
        try:
            self.child.wait(PATIENCE)
        finally:
            self.child.kill()

    def pids(self):
        """Its own and its children's."""
        found = [self.child.pid]
        for tasks in pathlib.Path(f"/proc/{self.child.pid}/task").iterdir():
            found += (tasks / "children").read_text().split()
        return found

    def threads(self, file):
        """What that file of /proc says of each thread."""
        return [task.joinpath(file).read_text() for pid in self.pids()
                for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]

    def cpu_us(self):
        return sum(int(text.split()[0]) for text in self.threads("schedstat")) / 1e3

    def wakeups(self):
        return sum(int(line.split()[1]) for text in self.threads("status")
                   for line in text.splitlines() if line.startswith("voluntary_ctxt_switches"))

    def kib(self, file, *names):
        return sum(int(line.split()[1]) for pid in self.pids()
                   for line in pathlib.Path(f"/proc/{pid}/{file}").read_text().splitlines()
                   if line.split(":")[0] in names)

    def private_kib(self):
        return self.kib("smaps_rollup", "Private_Dirty")


class Lab:
    """What the suites have in common: the machine, and the table that they fill."""

    def __init__(self, build, directory, quick, stack):
        self.build, self.directory, self.quick, self.stack = build, directory, quick, stack
        self.lines = {}  # name → {"unit", "beside", "who": {name: a figure a round}}
        self.failures = []
        self.round = 0
        (directory / "files").mkdir()
        self.fake = Process([build / "tests/bench/fake_comfy"], stdout=subprocess.PIPE, text=True)
        stack.callback(self.fake.stop)
        self.comfy = int(self.fake.child.stdout.readline())

    @contextlib.contextmanager
    def agent(self, ready=True, store=None, command=(), timed=False, **env):
        """The program in front of the fake, or with a command that it starts, and a store of its own."""
        port, name = free_port(), f"agent{time.monotonic_ns()}"
        settings = dict(PATH=os.environ["PATH"], PLATFORM="none", LISTEN_HOST="127.0.0.1",
                        STORE_URL=f"file:{store or self.directory / name}", **env)
        if not command:
            settings["COMFYUI_URL"] = f"http://127.0.0.1:{self.comfy}"
        with open(self.directory / "agent.log", "wb") as log:
            process = Process([self.build / "src/comfy-agent", "--port", port, "--", *command], env=settings,
                              stdout=log, stderr=log, end=signal.SIGTERM if command else signal.SIGKILL, timed=timed)
        process.port = port
        try:
            if ready:
                until("the agent to be ready", lambda: answers(process, "/readyz", 200))
            yield process
        finally:
            process.stop()

    @contextlib.contextmanager
    def nginx(self, ready=True, more="", timed=False):
        """With more settings. None where there is none."""
        if NGINX is None:
            yield None
            return
        port = free_port()
        place = self.directory / f"nginx{port}"
        place.mkdir(exist_ok=True)
        conf = place / "nginx.conf"
        conf.write_text(NGINX_CONF.format(user="user root;" if os.geteuid() == 0 else "", port=port, more=more,
                                          comfy=self.comfy, files=self.directory / "files"))
        process = Process([NGINX, "-p", place, "-c", conf], end=signal.SIGTERM, timed=timed,
                          stderr=subprocess.DEVNULL)
        process.port = port
        try:
            if ready:
                until("nginx to answer", lambda: answers(process))
            yield process
        finally:
            process.stop()

    def sides(self, turn=0, **sides):
        """Those that are there, as (name, it): the other way round in every other round, or turn of one."""
        there = [(name, it) for name, it in sides.items() if it is not None]
        return there if (self.round + turn) % 2 == 0 else there[::-1]

    def compare(self, line, agent, nginx, connections, **options):
        """Requests to both by turns: one that is long is one sample of how busy the machine's host is."""
        line += f", {connections} connection{'s' * (connections > 1)}"
        for turn in range(1 if self.quick else 3):
            for who, process in self.sides(turn, agent=agent, nginx=nginx):
                cpu, warmup = process.cpu_us(), 20 * connections
                said = self.load(process.port, connections=connections, warmup=warmup,
                                 seconds=0.1 if self.quick else 0.6, **options)
                self.note(line, "1/s", who, said["rate"], "nginx")
                self.note(line + ": p99", "µs", who, said["p99_us"], "nginx")
                self.note(line + ": processor time a request", "µs", who,
                          (process.cpu_us() - cpu) / (said["good"] + warmup), "nginx")

    def note(self, line, unit, who, figure, beside=None):
        entry = self.lines.setdefault(line, {"unit": unit, "beside": beside, "who": {}})
        entry["who"].setdefault(who, []).append(figure)

    def note_both(self, line, unit, who, figure):
        """Beside nginx as it comes, and in a line of its own beside the one with larger buffers ("large")."""
        if who != "large":
            self.note(line, unit, who, figure, "nginx")
        if who != "nginx":
            self.note(f"{line}: nginx with buffers of 64 KiB", unit, "agent" if who == "agent" else "nginx", figure,
                      "nginx")

    def load(self, port, **options):
        """What tests/bench/load.c says."""
        argv = [self.build / "tests/bench/load", "--port", port]
        for name, value in options.items():
            argv += ["--" + name.replace("_", "-")] + ([] if value is True else [value])
        said = json.loads(subprocess.run([str(word) for word in argv], check=True, capture_output=True,
                                         timeout=10 * PATIENCE).stdout)
        if said["failed"] or not said["good"]:
            self.failures.append(f"{' '.join(str(word) for word in argv[1:])}: {said}")
        return said

    def check_news(self, line, who, said, least):
        """Without its news a run would be the faster."""
        if said["texts"] < least * said["good"]:
            self.failures.append(f"{line}, {who}: fewer than {least} messages a run: {said}")

    def run(self, who, port, graph, **options):
        """Runs of a prompt, by an agent or without one."""
        file = self.directory / "prompt.json"
        file.write_text(graph)
        if who == "direct":
            return self.load(port, direct=True, body=file, **options)
        if who == "watched":
            return self.load(port, watch=True, path="/api/run/ws", body=file, expect='"results"', **options)
        return self.load(port, path="/api/run", body=file, task_id=f"run{time.monotonic_ns()}",
                         expect='"results"', **options)


# --- suites -----------------------------------------------------------------------------------


def start(lab):
    """The first answer counts, whatever it is."""
    took = []
    for _ in range(2 if lab.quick else 7):
        began = time.monotonic()
        subprocess.run([lab.build / "src/comfy-agent", "--version"], check=True, stdout=subprocess.DEVNULL)
        took.append((time.monotonic() - began) * 1e3)
    lab.note("to compare: it is loaded with its libraries, and says its version", "ms", "agent", statistics.median(took))
    for who, make in lab.sides(agent=lab.agent, nginx=lab.nginx if NGINX else None):
        took = []
        for _ in range(2 if lab.quick else 7):
            with make(ready=False, timed=True) as process:
                until("the first answer", lambda: answers(process))
                took.append((time.monotonic() - process.began) * 1e3)
        lab.note("start: exec to the first answer", "ms", who, statistics.median(took), "nginx")


def child(lab):
    """How long ComfyUI is there and nobody gets to it: at the start, and after a death, less the time it boots."""
    port, boot_ms = free_port(), 50 if lab.quick else 300
    command = [lab.build / "tests/bench/fake_comfy", port, boot_ms]

    def times():
        answer = answer_of(agent, "/times")
        return answer and answer[0] == 200 and json.loads(answer[1]) | {"told_ns": time.monotonic_ns()}

    for _ in range(1 if lab.quick else 5):
        with lab.agent(ready=False, command=command, COMFYUI_PORT=str(port)) as agent:
            until("the agent to answer", lambda: answers(agent))
            first = until("the first answer of a child", times)
            lab.note("ComfyUI's port open to the first proxied answer", "ms", "agent",
                     (first["told_ns"] - first["listened_ns"]) / 1e6)
            killed = time.monotonic_ns()
            os.kill(first["pid"], signal.SIGKILL)
            second = until("the first answer of its successor",
                           lambda: (said := times()) and said["pid"] != first["pid"] and said)
            lab.note("ComfyUI killed to its successor's first answer, less its boot", "ms", "agent",
                     (second["began_ns"] - killed + second["told_ns"] - second["listened_ns"]) / 1e6)


def idle(lab):
    with lab.agent() as agent, lab.nginx() as nginx:
        time.sleep(0.5)
        for who, process in lab.sides(agent=agent, nginx=nginx):
            cpu, wakeups, began = process.cpu_us(), process.wakeups(), time.monotonic()
            time.sleep(1 if lab.quick else 5)
            seconds = time.monotonic() - began
            lab.note("idle: processor time", "µs/s", who, (process.cpu_us() - cpu) / seconds)
            lab.note("idle: wake-ups", "1/s", who, (process.wakeups() - wakeups) / seconds)
            lab.note("idle: private memory (dirty)", "MiB", who, process.private_kib() / 1024, "nginx")
            lab.note("idle: proportional memory (PSS)", "MiB", who, process.kib("smaps_rollup", "Pss") / 1024,
                     "nginx")


def holding(lab):
    """Memory per what is held."""

    def keep_alive(port, _):
        return keep_open(port, "/api/status?id=none", b"404")

    def websocket(port, n):
        return keep_open(port, f"/ws?clientId=held-{n}", b"101", "connection: upgrade\r\nupgrade: websocket\r\n"
                         "sec-websocket-version: 13\r\nsec-websocket-key: bm8gc2VjcmV0IGhlcmUhIQ==\r\n")

    def task(port, n):
        status, body = ask(port, "POST", "/api/run", graph, {"prefer": "respond-async", "task-id": f"held-{n}"})
        if status != 202:
            lab.failures.append(f"a task to be held: {status} {body[:200]}")

    graph = prompt(10, last="Hold")
    for what, hold, count in (("keep-alive connection", keep_alive, 1000), ("proxied WebSocket", websocket, 200),
                              ("task in flight", task, 200)):
        count = count // 10 if lab.quick else count
        with lab.agent(MAX_CONCURRENCY="256") as agent, lab.nginx() as nginx:
            for who, process in lab.sides(agent=agent, nginx=nginx if hold != task else None):
                hold(process.port, "first")
                before = process.private_kib()
                held = [hold(process.port, n) for n in range(count)]
                time.sleep(0.3)
                lab.note(f"memory per {what}", "KiB", who, (process.private_kib() - before) / count,
                         None if hold == task else "nginx")
                for connection in filter(None, held):
                    connection.close()


def status(lab):
    store = lab.directory / f"store{lab.round}"
    with lab.agent(store=store) as agent:
        for nodes in (3, 64):
            name = f"status-{nodes}"
            ask(agent.port, "POST", "/api/run", prompt(nodes), {"task-id": name})
            (lab.directory / "files" / name).write_bytes(ask(agent.port, "GET", f"/api/status?id={name}")[1])
    with lab.agent(store=store) as agent, lab.nginx() as nginx:
        for nodes in (3, 64):
            for n in (1, 16, 128):
                lab.compare(f"/api/status, {nodes} nodes", agent, nginx, n,
                            path=f"/api/status?id=status-{nodes}", expect=f'"{nodes}":')


@contextlib.contextmanager
def bare_agent(lab):
    """What a run takes at least: its requests, hops and files (bare_agent.c)."""
    folder = lab.directory / f"bare{lab.round}"
    folder.mkdir()
    with open(lab.directory / "bare.log", "wb") as log:
        process = Process([lab.build / "tests/bench/bare_agent", lab.comfy, folder], stdout=subprocess.PIPE, stderr=log,
                          text=True)
    try:
        process.port = int(process.child.stdout.readline())
        until("the bare agent to be ready", lambda: answers(process, "/", 200))
        yield process
    finally:
        process.stop()


def runs(lab):
    graph = prompt(10)
    said = lab.load(lab.comfy, path="/system_stats", count=100 if lab.quick else 5000, warmup=20)
    lab.note("to compare: one request and its answer between two processes, p50", "ms", "agent", said["p50_us"] / 1e3)
    with lab.agent(MAX_CONCURRENCY="64", MAX_QUEUE="1024") as agent, bare_agent(lab) as bare:
        processes = {"agent": agent, "bare": bare}
        for n, count in ((1, 300), (4, 600), (16, 800), (64, 960)):
            count, warmup, p50 = count // 15 if lab.quick else count, max(20, 2 * n), {}
            line = f"run, {n} at once"
            for who, port in lab.sides(agent=agent.port, direct=lab.comfy, bare=bare.port):
                process = processes.get(who)
                cpu = process.cpu_us() if process else 0
                said = lab.run(who, port, graph, connections=n, count=count, warmup=warmup)
                p50[who] = said["p50_us"] / 1e3
                if who != "bare":
                    lab.note(f"{line}: rate", "1/s", who, said["rate"], "direct")
                    lab.note(f"{line}: p99", "ms", who, said["p99_us"] / 1e3, "direct")
                if process:
                    lab.note(f"{line}: rate, beside the bare hops", "1/s", who, said["rate"], "bare")
                    lab.note(f"{line}: processor time a run", "µs", who, (process.cpu_us() - cpu) / (count + warmup),
                             "bare")
            for who in processes:
                lab.note(f"{line}: p50, added to direct", "ms", who, p50[who] - p50["direct"])


def proxy(lab):
    upload = lab.directory / "upload"
    upload.write_bytes(bytes(32 * MIB))
    seconds, count = (0.1, 2) if lab.quick else (1.5, 20)
    with lab.agent() as agent, lab.nginx() as nginx, lab.nginx(more=LARGE_BUFFERS) as large_nginx:
        for n in (1, 16, 128):
            lab.compare("proxy, small JSON", agent, nginx, n, path="/system_stats")
        for line, factor, options in (
            ("1 MiB down", 1, dict(path=f"/view?filename=bench_{MIB}_.png", seconds=seconds, warmup=5)),
            ("32 MiB up", 32, dict(path="/upload/image", body=upload, count=count, warmup=1)),
        ):
            for who, process in lab.sides(agent=agent, nginx=nginx, large=large_nginx):
                said = lab.load(process.port, **options)
                lab.note_both(f"proxy, {line}", "MiB/s", who, said["rate"] * factor)


def large(lab):
    size, count = 64 * MIB, 1 if lab.quick else 4
    graph = prompt(10, 1, size)
    with lab.agent() as agent:
        for who, port in lab.sides(agent=agent.port, direct=lab.comfy):
            before = agent.kib("status", "VmRSS")
            said = lab.run(who, port, graph, count=count)
            lab.note("a result of 64 MiB: last byte", "ms", who, said["p50_us"] / 1e3, "direct")
            if said["bytes"] < size * count * (4 / 3 if who == "agent" else 1):
                lab.failures.append(f"a result of 64 MiB: {said}")
            if who == "agent":
                lab.note("a result of 64 MiB: peak memory over idle", "MiB", who,
                         (agent.kib("status", "VmHWM") - before) / 1024)


def growth(lab):
    with lab.agent() as agent:
        took = {}
        for nodes, steps, count in ((10, 20, 40), (5000, 20, 6), (10, 20000, 6)):
            count = 1 + count // 10 if lab.quick else count
            for who, port in lab.sides(agent=agent.port, direct=lab.comfy):
                said = lab.run(who, port, prompt(nodes, steps), count=count, warmup=2)
                took[who, nodes, steps] = said["p50_us"] / 1e3
        for who in ("agent", "direct"):
            base = took[who, 10, 20] or float("nan")
            for what, ms in (("5,000 nodes", took[who, 5000, 20]), ("20,000 steps", took[who, 10, 20000])):
                lab.note(f"run of {what}", "ms", who, ms, "direct")
                lab.note(f"run of {what} over one of 10 nodes, 20 steps", "×", who, ms / base, "direct")


ENOUGH_US = 200e3  # of runs that take longer a quarter, at the very least, is told of on their way


def flood(lab):
    """News as fast as they come: through /api/run/ws, which tells the newest of many (ten times a second, so that
    a run has to take longer), and through /ws, which tells all. What stands behind is as busy as a processor can be:
    with all of it passed on, the processor time tells more than the rate."""
    with lab.agent(MAX_CONCURRENCY="64") as agent, lab.nginx() as nginx, lab.nginx(more=LARGE_BUFFERS) as large_nginx:
        for n, count, steps in ((1, 6, 200_000), (4, 8, 60_000), (16, 32, 30_000)):
            if lab.quick:
                count, steps = n, steps // 5
            graph = prompt(10, steps)
            options = dict(connections=n, count=count, warmup=n)
            line = f"run of {steps:,} steps over /api/run/ws, {n} at once"
            for who, (how, port) in lab.sides(agent=("watched", agent.port), direct=("direct", lab.comfy)):
                said = lab.run(how, port, graph, **options)
                # Of the agent: the beginning and the end, and where there was time for it a step. Not of each: at
                # many at once a run can wait long before it is told of at all, and end soon after.
                least = 2.25 if said["p50_us"] > ENOUGH_US else 2
                lab.check_news(line, who, said, steps if who == "direct" else least)
                lab.note(line, "ms", who, said["p50_us"] / 1e3, "direct")
            line = f"proxied /ws, {steps:,} steps, {n} at once"
            for who, process in lab.sides(agent=agent, nginx=nginx, large=large_nginx):
                cpu = process.cpu_us()
                said = lab.run("direct", process.port, graph, **options)
                lab.check_news(line, who, said, steps)
                lab.note_both(line, "1/s", who, said["rate"])
                lab.note_both(f"{line}: processor time a run", "ms", who,
                              (process.cpu_us() - cpu) / 1e3 / (said["good"] + n))


SUITES = (start, child, idle, holding, status, runs, proxy, large, growth, flood)


# --- the table --------------------------------------------------------------------------------


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cell(figures):
    if len(figures) == 1:
        return number(figures[0])
    return f"{number(statistics.median(figures))} ({number(min(figures))}–{number(max(figures))})"


def row(name, line):
    """And whether all of it was measured."""
    agent, beside = line["who"].get("agent"), line["beside"]
    ratio, other = "", ""
    if beside is None:  # no ratio: it may be of nothing
        other = ", ".join(f"{who}: {cell(figures)}" for who, figures in line["who"].items() if who != "agent")
    elif beside == "nginx" and NGINX is None:
        other = NO_NGINX
    elif beside is not None:
        figures = line["who"].get(beside)
        other = f"{beside}: {cell(figures)}"
        ratio = cell([a / b if b else float("nan") for a, b in zip(agent, figures)])
    return f"| {name} | {line['unit']} | {cell(agent)} | {other} | {ratio} |"


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def stolen():
    """Ticks that the machine's host gave to others, and all: cpu user nice system idle iowait irq softirq steal …"""
    ticks = [int(word) for word in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[7], sum(ticks)


def table(lab, rounds, load, steal):
    version = subprocess.run([str(lab.build / "src/comfy-agent"), "--version"], capture_output=True, text=True)
    return "\n".join([
        f"{version.stdout.strip()}, {datetime.date.today()}, {cpu_model()}, {os.cpu_count()} cores, "
        f"Linux {platform.release()}; {rounds} round{'s' * (rounds > 1)}{', quick: not to be cited' if lab.quick else ''}; "
        f"load average at the start {load:.2f}, {steal:.1%} of the processors' time taken by the machine's host"
        f"{': others were at work, not to be cited' if load > 0.5 or steal > 0.01 else ''}.",
        "",
        "| | unit | agent | beside it | agent / beside |",
        "|---|---|---|---|---|",
        *(row(name, line) for name, line in lab.lines.items()),
        "",
    ])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--out", type=pathlib.Path, help="file for the table, else it is printed")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release", help="where the programs are")
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 3)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384) if hard > 0 else 16384, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    average, before = os.getloadavg()[0], stolen()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="comfy-agent-bench-", dir=memory))
        lab = Lab(options.build.resolve(), pathlib.Path(directory), options.quick, stack)
        for lab.round in range(rounds):
            for suite in SUITES:
                print(f"round {lab.round + 1}: {suite.__name__}", file=sys.stderr, flush=True)
                suite(lab)
        steal, ticks = (now - then for now, then in zip(stolen(), before))
        text = table(lab, rounds, average, steal / ticks)
    if options.out:
        options.out.write_text(text)
    else:
        print(text)
    for failure in lab.failures:
        print(f"failed: {failure}", file=sys.stderr)
    if NGINX is None:
        print(f"{NO_NGINX}: what is compared with it was not", file=sys.stderr)
    return 1 if lab.failures else 77 if NGINX is None else 0


if __name__ == "__main__":
    sys.exit(main())
