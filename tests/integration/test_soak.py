"""Mixed load on three agents that share a store, for SOAK_MINUTES (`./dev soak`: an hour), while agents and
ComfyUIs are killed, stopped, frozen and started again. Each client keeps what it did and what it was told;
afterwards that is held against the store: whoever was told yes has one end, the one that he was told, and
the picture that he asked for and nobody else's."""

import base64
import collections
import contextlib
import datetime
import http.client
import io
import itertools
import json
import os
import pathlib
import random
import re
import signal
import threading
import time

import pytest
import websockets
from PIL import Image

from live import Events, run_ws
from world import free_port, never_again, node, sleep_prompt, steps_prompt, until

SECONDS = 60 * float(os.environ.get("SOAK_MINUTES", "0.4"))
SETTINGS = {"LEASE_TIMEOUT": "3s", "MAX_ATTEMPTS": "4", "OUTPUT_FOLDER": "task", "LOG_LEVEL": "warn"}
CLIENTS = 10
PAUSE = 0.5  # seconds between two tasks of a client, on average
TROUBLE = 3  # seconds between two of the killer's, on average
PATIENCE = 120  # until a task has ended that others' deaths have delayed
SLOPE_SECONDS = 1200  # from here on it says something
SLOPE_MAX = 4096  # KiB an hour
LISTED_MAX, LISTED_KIB = 24000, 176 / 1024  # tasks in a list of the store, and the room of one: this does grow
GAVE_UP = 1  # exit code: ComfyUI was killed so often that a platform had better start all anew
ENDS = ("succeeded", "failed", "cancelled")
# What nobody's own fault is, and may befall a task that has lost all its attempts to deaths.
BAD_LUCK = {"owner_died", "comfyui_died", "comfyui_gave_up", "comfyui_starting", "stopping", "prompt_lost",
            "comfyui_error"}  # the last two: an attached ComfyUI came back without its history
OF_TASKS = {"node_error", "prompt_refused", "cancelled", "owner_died", "comfyui_died", "prompt_lost"}  # else also of calls
NOT_NOW = {429, 502, 503, 504}
LOST = (OSError, http.client.HTTPException, websockets.WebSocketException, TimeoutError)

pytestmark = pytest.mark.timeout(600 + 2 * SECONDS)


# --- agents and what befalls them -----------------------------------------------------------------


def catches(pid, signum):
    caught = re.search(r"SigCgt:\s*(\w+)", pathlib.Path(f"/proc/{pid}/status").read_text())
    return int(caught[1], 16) >> (signum - 1) & 1 == 1


class Seat:
    """Where there always is an agent, soon: after one that ended comes the next."""

    def __init__(self, world, name, url=None):
        self.world, self.name, self.url = world, name, url
        self.numbers = itertools.count(1)
        self.lock = threading.Lock()
        self.begin()

    def begin(self):
        self.agent = self.world.agent(f"{self.name}{next(self.numbers)}", ready=False, env=SETTINGS, url=self.url)

    def begin_again(self):
        with self.lock:
            if self.agent.lives:
                return
            if self.agent.child.returncode == GAVE_UP and "not started again" in self.agent.text():
                self.agent.right_code = GAVE_UP
            self.begin()

    def kill(self):
        self.agent.signal(signal.SIGKILL)
        self.agent.wait()
        time.sleep(random.uniform(0, 2))
        self.begin_again()

    def stop(self):
        ready = catches(self.agent.pid, signal.SIGTERM)
        self.agent.signal(signal.SIGTERM)
        if self.agent.wait() == -signal.SIGTERM and not ready:
            self.agent.right_code = -signal.SIGTERM  # it had only just begun
        self.begin_again()

    def freeze(self):
        """Some of them for longer than their lease."""
        self.agent.signal(signal.SIGSTOP)
        time.sleep(random.uniform(0.2, 5))
        self.agent.signal(signal.SIGCONT)

    def kill_comfyui(self):
        with contextlib.suppress(*LOST, ProcessLookupError):
            os.kill(self.agent.comfy.state()["pid"], signal.SIGKILL)


class Attached(Seat):
    """Its agent lives through all of it, so that its memory can be watched; its ComfyUI does not."""

    def __init__(self, world):
        self.port = free_port()
        self.comfyui = world.comfyui(port=self.port)
        super().__init__(world, "attached", self.comfyui.url)
        self.memory = []

    def resident(self):
        with open(f"/proc/{self.agent.pid}/status") as status:
            return int(status.read().split("VmRSS:")[1].split()[0])

    def kill_comfyui(self):
        self.comfyui.process.signal(signal.SIGKILL)
        self.comfyui.process.wait()
        time.sleep(random.uniform(0, 2))
        self.comfyui = self.world.comfyui(port=self.port)


class Killer(threading.Thread):
    def __init__(self, seats, attached):
        super().__init__(daemon=True)
        mortal = [seat for seat in seats if seat is not attached]
        self.seats = seats
        self.deeds = [(3, lambda: random.choice(mortal).kill()), (1, lambda: random.choice(mortal).stop()),
                      (2, lambda: random.choice(seats).freeze()), (1, lambda: random.choice(mortal).kill_comfyui()),
                      (2, attached.kill_comfyui)]
        self.names = ["agents killed", "agents stopped", "agents frozen", "ComfyUIs killed", "attached ComfyUIs killed"]
        self.done = collections.Counter()
        self.over = threading.Event()
        self.failure = None
        self.start()

    def run(self):
        try:
            while not self.over.wait(random.expovariate(1 / TROUBLE)):
                which = random.choices(range(len(self.deeds)), [weight for weight, _ in self.deeds])[0]
                self.deeds[which][1]()
                self.done[self.names[which]] += 1
                for seat in self.seats:
                    seat.begin_again()  # who gave up
        except BaseException as failure:  # the test's, which would else end well
            self.failure = failure

    def stop(self):
        self.over.set()
        self.join()
        if self.failure is not None:
            raise self.failure
        for seat in self.seats:
            seat.begin_again()
            seat.agent.wait_ready()


# --- clients --------------------------------------------------------------------------------------


class Story:
    """One task: what was asked for, and all that was told of it."""

    def __init__(self, number):
        self.id = f"s{number}"
        self.color = number % 0xFFFFFF + 1
        self.kind, self.prompt = random.choices(
            [("picture", self.picture()), ("steps", steps_prompt(random.randint(1, 40), 10, number)),
             ("raises", {"1": node("TestRaise", message=self.id, kind="ValueError")}),
             ("refused", {"1": node("NoSuchNode")}), ("sleeps", sleep_prompt(random.randint(1, 400), number))],
            [8, 4, 2, 1, 2])[0]
        self.accepted = self.cancelled = False
        self.ends = set()  # told: (status, the error's code)
        self.wrong = []
        self.told = []  # (when, by whom, what): for whoever wants to know why

    def picture(self):
        size = random.choice((8, 64, 256))
        return {"1": node("EmptyImage", width=size, height=size, batch_size=1, color=self.color),
                "2": node("SaveImage", images=["1", 0], filename_prefix="p")}

    def note(self, what):
        now = datetime.datetime.now(datetime.UTC)
        self.told.append(f"{now:%H:%M:%S.%f} {threading.current_thread().asked}: {what}")

    def check(self, right, what):
        if not right:
            self.wrong.append(what)

    def saw_record(self, record):
        self.note({key: record[key] for key in ("status", "attempt", "rev", "instance")})
        self.accepted = True
        self.check(record["id"] == self.id, f"the record of {record['id']}")
        if record["status"] in ENDS:
            self.ends.add((record["status"], (record["error"] or {}).get("code")))
        else:
            self.check(not self.ends, f"{record['status']} after {self.ends}")

    def saw_picture(self, content):
        try:
            red, green, blue = Image.open(io.BytesIO(content)).convert("RGB").getpixel((0, 0))
        except OSError as broken:
            self.check(False, f"no picture: {broken}")
        else:
            self.check(red << 16 | green << 8 | blue == self.color, "another's picture")

    def saw_result(self, nodes):
        self.accepted = True
        self.ends.add(("succeeded", None))
        if self.kind == "picture":
            self.check(len(nodes["2"]["results"]) == 1, f"results: {nodes['2']}")
            for text in nodes["2"]["results"]:
                self.saw_picture(base64.b64decode(text))

    def saw_error(self, error):
        """On a WebSocket or an event stream."""
        self.note(error)
        if error["code"] in OF_TASKS:
            self.accepted = True
            self.ends.add(("cancelled" if error["code"] == "cancelled" else "failed", error["code"]))

    def saw_reply(self, reply, enqueued=False):
        """False: not now; the same may be asked for again."""
        self.check(reply.headers["task-id"] == self.id, f"task-id {reply.headers['task-id']}")
        status = reply.headers.get("task-status")
        self.note(f"{reply.status} {status}")
        if reply.status == 200 and status == "succeeded":
            self.saw_result(reply.json)
        elif enqueued and reply.status == 202:
            self.accepted = True
        elif status in ENDS:
            self.accepted = True
            self.ends.add((status, reply.code))
        else:
            self.check(reply.status in NOT_NOW, f"told {reply.status} {reply.body[:500]}")
            return False
        return True


class Client(threading.Thread):
    def __init__(self, seats, numbers, over):
        super().__init__(daemon=True)
        self.seats, self.numbers, self.over = seats, numbers, over
        self.stories = []
        self.lost = self.hung = 0
        self.failure = None
        self.ways = [self.call, self.call, self.call_async, self.call_ws, self.follow, self.cancel, self.use_proxy]
        self.start()

    def run(self):
        try:
            while not self.over.wait(random.expovariate(1 / PAUSE)):
                story = Story(next(self.numbers))
                self.stories.append(story)
                random.choice(self.ways)(story)
        except BaseException as failure:
            self.failure = failure

    @property
    def agent(self):
        seat = random.choice(self.seats)
        self.asked = seat.name
        return seat.agent

    def again_and_again(self, deed):
        """Until it says that it is done, or the soak is over: agents come back."""
        while not self.over.is_set():
            try:
                if deed():
                    return
            except TimeoutError:
                self.hung += 1
            except LOST:
                pass
            self.lost += 1
            time.sleep(0.2)

    def call(self, story):
        self.again_and_again(lambda: story.saw_reply(self.agent.run(story.prompt, story.id)))

    def enqueue(self, story):
        headers = {"x-fc-invocation-type": "Async"}
        self.again_and_again(lambda: story.saw_reply(self.agent.run(story.prompt, story.id, headers), True))

    def look(self, story):
        reply = self.agent.record(story.id)
        if reply.status == 200:
            story.saw_record(reply.json)
        else:
            story.check(reply.status in NOT_NOW or (reply.status == 404 and not story.accepted),
                        f"a record told {reply.status}")
        return bool(story.ends)

    def call_async(self, story):
        self.enqueue(story)
        self.again_and_again(lambda: self.look(story) or not story.accepted)

    def call_ws(self, story):
        def talk():
            told = run_ws(self.agent, story.prompt, headers={"task-id": story.id}).messages
            if told and told[-1]["type"] == "result":
                story.saw_result(told[-1]["data"])
            if told and told[-1]["type"] == "error":
                story.saw_error(told[-1]["data"]["error"])
            return bool(story.ends)

        self.again_and_again(lambda: talk() or self.look(story))

    def follow(self, story):
        self.enqueue(story)

        def follow():
            if not story.accepted:
                return True
            events = Events(self.agent, story.id)
            try:
                for name, _, data in events if events.status == 200 else ():
                    if name == "error":
                        story.saw_error(data["error"])
            finally:
                events.close()
            return self.look(story)

        self.again_and_again(follow)

    def cancel(self, story):
        self.enqueue(story)
        time.sleep(random.uniform(0, 0.3))
        story.cancelled = True

        def cancel():
            reply = self.agent.ask("DELETE", f"/api/tasks/{story.id}")
            story.check(reply.status in (200, 202, *NOT_NOW), f"cancelling told {reply.status}")
            return self.look(story)

        if story.accepted:
            self.again_and_again(cancel)

    def use_proxy(self, story):
        """No task: what a page does."""
        self.stories.pop()
        with contextlib.suppress(*LOST):
            for path in ("/queue", "/object_info/EmptyImage", "/api/status?id=nobody", "/metrics", "/api/tasks?limit=5"):
                self.agent.get(path)


# --- afterwards -----------------------------------------------------------------------------------


def judge(world, agent, story):
    """Holds one story against the record, the documents and the files."""
    threading.current_thread().asked = "afterwards"
    reply = agent.record(story.id)
    if reply.status == 404:
        story.check(not story.accepted, "told yes, and lost")
        return None
    until(f"the end of {story.id}", lambda: agent.record(story.id).json["status"] in ENDS, PATIENCE)
    record = agent.record(story.id).json
    story.saw_record(record)
    story.check(len(story.ends) == 1, f"more than one end: {sorted(story.ends, key=str)}")
    story.check(world.document(f"{story.id}~task") == record, "the store has another record")
    *before, last = (world.document(f"{story.id}~end.{n}") or {} for n in range(1, record["attempt"] + 1))
    story.check(last.get("status") == record["status"], f"the last attempt's end: {last}")
    story.check(all(end.get("superseded") or end.get("status") in ("failed", "cancelled") for end in before),
                f"the ends of attempts before: {before}")  # who asks again for one that failed gets another
    status, code = record["status"], (record["error"] or {}).get("code")
    right = {"picture": ("succeeded", None), "steps": ("succeeded", None), "sleeps": ("succeeded", None),
             "raises": ("failed", "node_error"), "refused": ("failed", "prompt_refused")}[story.kind]
    story.check((status, code) == right or code in BAD_LUCK or (story.cancelled and status == "cancelled"),
                f"{story.kind} ended as {status} {record['error']}")
    if (status, story.kind) == ("succeeded", "picture"):
        story.saw_picture(agent.get(record["outputs"][0]["url"]).body)
    return code if code in BAD_LUCK else status


def slope(memory):
    """KiB an hour, of the least squares' line through the second half."""
    half = memory[len(memory) // 2:]
    times, sizes = [at for at, _ in half], [size for _, size in half]
    middle, mean = sum(times) / len(times), sum(sizes) / len(sizes)
    return 3600 * sum((at - middle) * (size - mean) for at, size in half) / sum((at - middle) ** 2 for at in times)


def watch(attached, clients, killer):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        time.sleep(1)
        listed = min(sum(len(client.stories) for client in clients), LISTED_MAX) * LISTED_KIB
        attached.memory.append((time.monotonic(), attached.resident() - listed))
        for thread in (*clients, killer):
            if thread.failure is not None:
                raise thread.failure


@pytest.mark.long
def test_nothing_is_lost_whoever_dies(world):
    random.seed(os.environ.get("SOAK_SEED"))
    attached = Attached(world)
    seats = [attached, Seat(world, "a"), Seat(world, "b")]
    for seat in seats:
        seat.agent.wait_ready()
    over, numbers = threading.Event(), itertools.count()
    clients = [Client(seats, numbers, over) for _ in range(CLIENTS)]
    killer = Killer(seats, attached)
    watch(attached, clients, killer)
    over.set()
    killer.stop()
    for client in clients:
        client.join()
        if client.failure is not None:
            raise client.failure
    stories = [story for client in clients for story in client.stories]
    agent = attached.agent
    ends = collections.Counter(judge(world, agent, story) for story in stories)
    print(f"\n{SECONDS / 60:.1f} min: {len(stories)} tasks, ended: {dict(ends)}; "
          f"{sum(client.lost for client in clients)} calls lost or put off, {sum(client.hung for client in clients)} "
          f"hung; {dict(killer.done)}; memory of the agent that "
          f"lived, without its list of the store: {attached.memory[0][1]:.0f} KiB first, "
          f"{attached.memory[-1][1]:.0f} last, {slope(attached.memory):+.0f} an hour")
    wrong = {story.id: [what[:500] for what in (*story.wrong, *story.told)] for story in stories if story.wrong}
    if wrong:
        never_again()
    assert not wrong, json.dumps(wrong, indent=1)[:6000]
    assert sum(ends[code] for code in BAD_LUCK) < len(stories) / 20 + 3
    assert ends["succeeded"] > 0 and sum(killer.done.values()) > 0
    assert not any(client.hung for client in clients)
    if SECONDS >= SLOPE_SECONDS:
        assert slope(attached.memory) < SLOPE_MAX
