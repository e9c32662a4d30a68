"""One call of the system fails, the first, the second, the third …, over the whole life of a program that
takes a task, runs it, is asked for it, and is told to end. Whatever fails and when: it neither hangs nor
dies, what it says is true, and what is stored is what was said. Or it is killed there: then the next one goes
on with what is stored.

tests/faults/faults.c counts the calls and makes them fail. The first run of each test counts; then there is
a run for each call, or where there are many for the first ones and a choice of the others (FAULTS=all: for
each). A sanitized program could not be loaded so, hence the release program."""

import base64
import contextlib
import errno
import http.client
import io
import json
import os
import signal
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from world import ROOT, image_prompt, node, until

pytestmark = [pytest.mark.release, pytest.mark.timeout(1200)]

PATIENCE = 30
AT_ONCE = 8  # they wait more than they work
FIRST = 40 if os.environ.get("FAULTS") != "all" else 1 << 30
LARGE = 200_000  # smaller allocations are of sizes that no caller chooses: without them it ends, by design
STORE = {"open": errno.EMFILE, "write": errno.ENOSPC, "fsync": errno.EIO, "rename": errno.EIO, "link": errno.EIO}
CALLS = {**STORE, "log": errno.ENOSPC, "send": errno.EPIPE, "socket": errno.EMFILE, "connect": errno.EADDRNOTAVAIL,
         "accept": errno.EMFILE, "thread": errno.EAGAIN, "epoll": errno.ENOMEM, "malloc": errno.ENOMEM}
CHILD = {"fork": errno.EAGAIN, "exec": errno.ENOMEM}  # with a ComfyUI that it starts itself
KILL = 0
CUTS = ["send", "accept"]  # then a caller may be left without an answer
ABORTS = ["epoll", "thread"]  # libuv does, for whatever it was: a death like any other
ENDS = {"succeeded", "failed", "cancelled"}


def library():
    built = sorted(ROOT.glob("build/*/tests/faults/libfaults.so"), key=lambda path: path.stat().st_mtime)
    return built[-1] if built else pytest.skip("tests/faults is not built")


def large_prompt():
    """Its sender has made it large, and his picture too; what it leaves behind is a small node map."""
    picture = io.BytesIO()
    Image.effect_noise((400, 400), 99).save(picture, "PNG")
    return {"1": node("LoadImage", image=base64.b64encode(picture.getvalue()).decode()),
            "2": node("SaveImage", images=["1", 0], filename_prefix="x", nobody_reads_this="y" * 3 * LARGE)}


class Run:
    """One life of the program, with a fault or without."""

    def __init__(self, world, url, task, fault=None, number=0, prompt=None):
        self.world, self.url, self.task, self.prompt = world, url, task, prompt or large_prompt()
        self.store, self.table = world.directory / f"{task}.store", world.directory / f"{task}.counts"
        self.env = {"STORE_URL": f"file:{self.store}", "DRAIN_TIMEOUT": "1s", "LEASE_TIMEOUT": "1s"}
        faults = {"LD_PRELOAD": str(library()), "FAULT_COUNTS": str(self.table), "FAULT_MALLOC": str(LARGE)}
        if fault is not None:
            faults |= {"FAULT": fault, "FAULT_ERRNO": str(number)}
        self.agent = world.agent(task, ready=False, url=url, env=self.env | faults)

    def counts(self):
        """(calls, failed) of each."""
        rows = struct.iter_unpack("16sQQ", self.table.read_bytes())
        return {name.rstrip(b"\0").decode(): tuple(counts) for name, *counts in rows}

    def ask(self, method, path, prompt=None, task=None):
        """The answer; None: there was none, or not a whole one."""

        def answer():
            try:
                body = json.dumps(prompt) if prompt is not None else None
                return self.agent.ask(method, path, body, {"task-id": task or self.task}, PATIENCE)
            except ConnectionRefusedError:
                return not self.agent.lives and "gone"  # else not listening yet
            except TimeoutError as too_long:
                raise AssertionError(f"{method} {path} is not answered") from too_long
            except (OSError, http.client.HTTPException):
                return "broken"

        reply = until("an answer", answer, PATIENCE)
        return None if isinstance(reply, str) else reply

    def goes_on(self):
        reply = self.ask("POST", "/api/run", image_prompt(8), "next")
        return not self.agent.lives or (reply is not None and reply.status == 200)

    def play(self, once=True):
        self.reply = self.ask("POST", "/api/run", self.prompt)
        self.record = self.ask("GET", f"/api/tasks/{self.task}")
        if once:
            until("another task to be served", self.goes_on, PATIENCE)
        if self.agent.lives:
            self.agent.signal(signal.SIGTERM)
        self.code = self.agent.right_code = self.agent.wait(PATIENCE)
        self.began = "listening on" in self.agent.text()
        if self.code in (-signal.SIGABRT, -signal.SIGKILL):
            if once and self.reply is not None and self.reply.status == 200:
                assert self.stored()["status"] == "succeeded", "answered, and not stored"
            self.check_who_comes_after()
        return self

    def stored(self):
        """It is whole, or there is none."""
        with contextlib.suppress(FileNotFoundError):
            return json.loads((self.store / f"{self.task}~task").read_text())
        return {"status": None}

    def check_picture(self, reply):
        said = reply.json["2"]
        picture = (self.world.output / said["images"][0]["filename"]).read_bytes()
        assert base64.b64decode(said["results"][0]) == picture

    def check(self, once=True):
        """What was told, what is stored and what has happened are one."""
        stored, reply = self.stored(), self.reply
        if reply is not None and reply.status == 200:
            self.check_picture(reply)
            assert stored["status"] == "succeeded" or (not once and reply.headers["task-stored"] == "no"), stored
        elif reply is not None:
            assert reply.status >= 500 and reply.code, reply
            unbrought = stored["status"] == "succeeded" and reply.code == "comfyui_unavailable"
            assert unbrought and not once or stored["status"] not in ENDS or stored["error"] == reply.json["error"], stored
        if self.record is not None and self.record.status == 200:
            assert len({self.record.json["status"], stored["status"]} & ENDS) <= 1, (self.record, stored)
        if once and self.code == 0:
            assert not list(self.store.glob(".*.tmp"))

    def check_who_comes_after(self):
        """A death is no more than that: the task is gone on with."""
        self.agent = self.world.agent(f"{self.task}-after", ready=False, url=self.url, env=self.env)
        reply = self.ask("POST", "/api/run", self.prompt)
        assert reply is not None and reply.status == 200, reply
        self.check_picture(reply)
        self.agent.stop()
        documents = {path.name: json.loads(path.read_text()) for path in self.store.glob("[!.]*")}  # all are whole
        ends = [end for name, end in documents.items() if name.startswith(f"{self.task}~end.")]
        assert sum(not end.get("superseded") for end in ends) <= 1, ends
        assert documents[f"{self.task}~task"]["status"] == "succeeded"


def chosen(calls):
    return [*range(1, min(calls, FIRST) + 1), *range(FIRST + 1, calls + 1, max(1, calls // FIRST))]


def faults(world, url, name, number, later="", prompt=None):
    """The runs with a fault in each chosen call of a whole run."""
    whole = Run(world, url, f"whole-{name}", prompt=prompt).play(once=not later)
    whole.check()
    assert whole.reply.status == 200 and whole.code == 0
    calls, _ = whole.counts()[name]
    assert calls > 0

    def with_fault(n):
        return Run(world, url, f"{name}-{n}", f"{name}:{n}{later}", number, prompt).play(once=not later)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = list(pool.map(with_fault, chosen(calls)))
    assert sum(run.counts()[name][1] > 0 for run in runs) > 0.7 * len(runs)  # no two runs are quite alike
    for run in runs:
        run.check(once=not later)
    return runs


@pytest.mark.parametrize("name", CALLS)
def test_one_call_fails(world, name):
    for run in faults(world, world.comfyui().url, name, CALLS[name]):
        if run.code == -signal.SIGABRT:
            assert name in ABORTS or not run.began  # what a start takes no caller chooses either
        elif run.code != 0:
            assert run.code == 69 and "cannot listen on" in run.agent.text()
        else:
            assert run.reply is not None or name in CUTS


@pytest.mark.parametrize("name", [*STORE, "send"])
def test_killed_at_each_call(world, name):
    for run in faults(world, world.comfyui().url, name, KILL):
        assert run.code == (-signal.SIGKILL if run.counts()[name][1] else 0)


@pytest.mark.parametrize("name", CHILD)
def test_comfyui_is_started_again_when_the_system_refuses(world, name):
    for run in faults(world, None, name, CHILD[name]):
        assert run.code == 0 and run.reply.status == 200 and run.counts()[name][1] == 1


def test_the_disk_fails_for_good(world):
    """All at once, since each end waits for as long as a store may take to come back."""
    url = world.comfyui().url
    names = [*STORE, "log"]
    with ThreadPoolExecutor(len(names)) as pool:
        for runs in pool.map(lambda name: faults(world, url, name, CALLS[name], later="+"), names):
            for run in runs:
                assert run.code == 0 and run.reply.status == 200


def test_a_node_map_for_which_there_is_no_memory(world):
    """Here it ends by design, as if killed: nothing it has said or stored is wrong then."""
    prompt = image_prompt(7) | {"3": node("TestText", text="y" * 3 * LARGE)}
    for run in faults(world, world.comfyui().url, "malloc", errno.ENOMEM, prompt=prompt):
        assert run.code in (0, -signal.SIGABRT) and (run.reply is None) == (run.code != 0)
