#!/usr/bin/python3
"""Runs what others wrote to judge HTTP servers against the program, with a server behind it that echoes bodies.

    tests/suites/run.py DIR [--at HOST:PORT]

DIR holds clones of what shall be run, under any name: dropseed/h1spec, uNetworking/h1spec (wants Deno, in PATH
or by `npm install deno` in DIR), defparam/smuggler, nodejs/llhttp (its vectors of requests), h2o/h2o (its corpus
of HTTP/1). What is not there is skipped, and told as such. --at: against that server instead, of which any answer will do that is not
refused. env AGENT names the program, default build/asan/src/comfy-agent. tests/README.md says what is expected.
The exit code is 1 if something else than a score is wrong: a hang or no proper answer in the corpus, a death, a
sanitizer's finding.
"""

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "integration"))

from answers import Odd, statuses  # noqa: E402
from upstream import Upstream, reply  # noqa: E402
from vectors import vectors  # noqa: E402
from world import World, until  # noqa: E402

PATIENCE = 10  # seconds until a server hangs
SILENCE = 0.3  # seconds after which nothing is said any more
COLOR = re.compile(r"\x1b\[\d+m")
MUTATION = re.compile(r"\[(\S+?)\s*\]\s*: (?!Checking)(.*)")
MAY_FAIL = {501, 502, 505}  # of 5xx: what we do not speak, and what ComfyUI did not understand


def echo(connection, request):
    reply(connection, b"" if request.method == "HEAD" else request.body)


class Talk:
    """One connection: `said` goes out, `heard` is what came back, `ended` whether the server ended it."""

    def __init__(self, address, said):
        self.heard = b""
        self.ended = False
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):  # it may have heard enough
            self.socket.sendall(said)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def finish(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def hear(self, seconds):
        """Until the server ends it or is silent for so long."""
        self.socket.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            try:
                while (part := self.socket.recv(65536)):
                    self.heard += part
            except ConnectionResetError:
                pass
            self.ended = True

    def hear_answers(self):
        """Their statuses. The first is waited for, then a silence."""
        end = time.monotonic() + PATIENCE
        while not (self.ended or self.heard) and time.monotonic() < end:
            self.hear(SILENCE)
        return statuses(self.heard)


# --- what was written to be run ----------------------------------------------------------------------------


def run_python_h1spec(directory, address):
    target = "{}:{}".format(*address)
    return judged([sys.executable, "-c", "import h1spec; h1spec.main()", "--strict", target], directory, "✗")


def run_deno_h1spec(directory, address):
    beside = directory.parent / "node_modules" / ".bin" / "deno"
    deno = shutil.which("deno") or (beside if beside.exists() else None)
    if deno is None:
        return None
    return judged([deno, "run", "--no-check", "--allow-net", "http_test.ts", address[0], str(address[1])],
                  directory, "❌")


def run_smuggler(directory, address):
    url = "http://{}:{}/".format(*address)
    lines = output_of([sys.executable, "smuggler.py", "--no-color", "-u", url], directory)
    results = [found for found in map(MUTATION.search, lines) if found]
    misses = [found[0] for found in results if not found[2].startswith("OK")]
    return len(results) - len(misses), len(results), misses


def output_of(argv, directory):
    env = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
    done = subprocess.run([str(arg) for arg in argv], cwd=directory, env=env, capture_output=True, text=True,
                          timeout=600, check=False)
    return COLOR.sub("", done.stdout + done.stderr).splitlines()


def judged(argv, directory, mark):
    """(tests passed, of how many, what is said of each that failed)"""
    lines = output_of(argv, directory)
    for line in lines:
        score = re.search(r"(\d+)(?:/| out of )(\d+)(?: tests)? passed", line)
        if score:
            return int(score[1]), int(score[2]), [line.strip() for line in lines if mark in line]
    raise SystemExit("\n".join(lines) or f"{argv[0]} said nothing")


# --- what is replayed --------------------------------------------------------------------------------------


def took(address, vector):
    """(whether the server agrees, what it said)"""
    with Talk(address, vector.said) as talk:
        if vector.refused or vector.messages:
            heard = talk.hear_answers()
        else:
            talk.hear(SILENCE)
            heard = statuses(talk.heard)
        told = " ".join(map(str, heard)) or ("ended without an answer" if talk.ended else "silence")
    if vector.refused:
        return (heard[-1] >= 400 if heard else talk.ended), told
    answers = [status for status in heard if status >= 200]
    if vector.messages:  # what stands behind them is not judged
        answers = answers[:vector.messages]
        return len(answers) == vector.messages and max(answers) < 400, told
    return not talk.ended and all(status < 400 for status in answers), told


def run_vectors(directory, address, refused):
    passed, misses = 0, []
    several = [vector for vector in vectors(directory / "test" / "request") if vector.refused == refused]
    for vector in several:
        try:
            agrees, told = took(address, vector)
        except Odd as odd:
            agrees, told = False, f"no answer: {odd}"
        passed += agrees
        if not agrees:
            misses.append(f"{vector.name}: {told}")
    return passed, len(several), misses


def run_corpus(directory, address):
    """Each is sent whole and nothing after it, so that the server has nothing to wait for."""
    passed, misses, codes = 0, [], Counter()
    inputs = sorted((directory / "fuzz" / "http1-corpus").iterdir())
    for file in inputs:
        with Talk(address, file.read_bytes()) as talk:
            talk.finish()
            talk.hear(PATIENCE)
            try:
                heard = statuses(talk.heard)
                codes.update(heard or ["nothing"])
                fault = "" if talk.ended else "hangs"
                fault = fault or " ".join(str(code) for code in heard if code >= 500 and code not in MAY_FAIL)
            except Odd as odd:
                fault = f"no answer: {odd.args[0]}"
        passed += not fault
        if fault:
            misses.append(f"{file.name}: {fault}")
    misses.append("answers: " + ", ".join(f"{code} {times} times" for code, times in sorted(codes.items(), key=str)))
    return passed, len(inputs), misses


# --- all of them -------------------------------------------------------------------------------------------

# title, a file by which its directory is known, what runs it, whether less than all of it is a fault
SUITES = [
    ("dropseed/h1spec --strict", "h1spec/runner.py", run_python_h1spec, False),
    ("uNetworking/h1spec", "http_test.ts", run_deno_h1spec, False),
    ("defparam/smuggler", "smuggler.py", run_smuggler, False),
    ("llhttp's vectors to be accepted", "test/request/sample.md",
     lambda directory, address: run_vectors(directory, address, False), False),
    ("llhttp's vectors to be refused", "test/request/sample.md",
     lambda directory, address: run_vectors(directory, address, True), False),
    ("h2o's corpus of HTTP/1", "fuzz/http1-corpus", run_corpus, True),
]


def directory_with(name, within):
    return next((each for each in sorted(within.iterdir()) if (each / name).exists()), None)


def run_all(within, address):
    """Whether there is nothing but scores to tell."""
    right = True
    for title, name, run, must in SUITES:
        directory = directory_with(name, within)
        started = time.monotonic()
        result = directory and run(directory, address)
        if result is None:
            print(f"{title}: skipped, {'without Deno' if directory else f'no {name} in {within}/*'}", flush=True)
            continue
        passed, total, notes = result
        print(f"{title}: {passed} of {total} in {time.monotonic() - started:.0f} s", flush=True)
        for note in notes:
            print(f"    {note}", flush=True)
        right = right and (passed == total or not must)
    return right


def run_against_us(within):
    upstream = Upstream(echo)
    with tempfile.TemporaryDirectory() as scratch:
        world = World(scratch)
        right = False
        try:
            agent = world.agent(ready=False, url=upstream.url)
            until("the way to the echo to be open", lambda: agent.answers() and agent.get("/up").status == 200)
            right = run_all(within, ("127.0.0.1", agent.port))
            right = right and agent.lives
        finally:
            world.close(failed=False)
            upstream.close()
    return right


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("directory", type=pathlib.Path)
    options.add_argument("--at", metavar="HOST:PORT")
    given = options.parse_args()
    within = given.directory.resolve()
    if not within.is_dir():
        print(f"no directory {given.directory}: all is skipped")
        return 0
    if given.at is None:
        return 0 if run_against_us(within) else 1
    host, port = given.at.rsplit(":", 1)
    return 0 if run_all(within, (host, int(port))) else 1


if __name__ == "__main__":
    sys.exit(main())
