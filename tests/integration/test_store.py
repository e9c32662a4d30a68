"""What is in the store is what was said, and what happens when there is none."""

import concurrent.futures
import json
import re
import stat

import pytest

from test_http import resident_kib
from world import Peer, image_prompt, node, sleep_prompt, steps_prompt, until

ASYNC = {"x-fc-invocation-type": "Async"}


def test_after_a_restart_the_same_is_said_as_before(both):
    agent = both.agent("agent1")
    said = 'a "quoted" \u00e9\U0001f600 text'
    runs = {
        "picture": (image_prompt(1), 200),
        "text": ({"1": node("TestText", text=said)}, 200),
        "many": ({"1": node("TestMany", n=20, bytes=64)}, 200),
        "odd": ({"1": node("TestSurrogate")}, None),
        "nan": ({"1": node("TestNaN", seed=1)}, None),
        "steps": (steps_prompt(5, 1, seed=-1), 200),
        "raised": ({"1": node("TestRaise", message=said, kind="ValueError")}, 500),
        "refused": ({"1": node("SaveImage", filename_prefix="x")}, 422),
        "envelope": ({"prompt": image_prompt(1), "metadata": {"a": [1, 2.5e300, None, said]}}, 200),
    }
    for task_id, (prompt, status) in runs.items():
        reply = agent.run(prompt, task_id)
        assert reply.status == status or status is None, reply
    paths = [path.format(task_id) for task_id in runs for path in ("/api/status?id={}", "/api/tasks/{}")]
    paths += ["/api/tasks/picture/outputs/0", "/api/tasks/steps/prompt", "/api/tasks?limit=100"]

    def all_said(agent):
        replies = {path: agent.get(path) for path in paths}
        return {path: (reply.status, reply.headers["task-status"], reply.headers["etag"], reply.body)
                for path, reply in replies.items()}

    before = all_said(agent)
    assert all(status == 200 for status, *_ in before.values()), before
    agent.stop()
    after = all_said(both.agent("agent2"))
    for path in paths:
        assert after[path] == before[path], path


def test_the_documents_are_what_was_said(world):
    agent = world.agent()
    reply = agent.run(image_prompt(1), "t", query="?results=none")
    assert reply.json == agent.get("/api/status?id=t").json == world.document("t")
    record = agent.record("t")
    assert record.json == world.document("t~task")
    assert record.json["nodes"] == reply.json
    for path in world.store.iterdir():
        assert isinstance(json.loads(path.read_text()), dict), path


# --- a store that does not work --------------------------------------------------------------------


class Broken:
    """The store's directory, with a file in its place: root ignores modes."""

    def __init__(self, world):
        self.directory = world.store
        self.aside = world.directory / "aside"

    def __enter__(self):
        self.directory.rename(self.aside)
        self.directory.write_text("in the way")

    def __exit__(self, *_):
        self.directory.unlink()
        self.aside.rename(self.directory)


def test_what_is_stored_is_not_for_everybody(world):
    agent = world.agent()
    assert agent.run(image_prompt(1), "t").status == 200
    modes = {stat.S_IMODE(file.stat().st_mode) for file in world.store.iterdir()}
    assert modes and not any(mode & 0o137 for mode in modes), modes
    assert stat.S_IMODE(world.store.stat().st_mode) & 0o027 == 0


def test_without_a_store_runs_go_on_and_say_so(world):
    agent = world.agent()
    assert agent.run(image_prompt(1), "before").headers["task-stored"] is None
    with Broken(world):
        without = agent.run(image_prompt(2))
        assert without.status == 200 and without.json["2"]["results"]
        given = agent.run(image_prompt(3), "given")
        assert given.status == 200 and given.json["2"]["results"]
        assert given.headers["task-stored"] == "no"
        assert agent.get("/api/status?id=given").status == 200, "it is still here"
        ready = agent.get("/readyz")
        assert ready.status == 503 and ready.json["store"]["ok"] is False
        assert ready.json["store"]["detail"] and ready.json["tasks"]["unstored"] == 2
        assert agent.get("/api/status?id=before").status == 503, "not 404: it may be known"
        assert agent.get("/healthz").status == 200
    until("both ends to be written", lambda: agent.get("/readyz").json["tasks"]["unstored"] == 0)
    assert world.document("given~task")["status"] == "succeeded"
    assert world.document("given") == given.json | {"2": {key: value for key, value in given.json["2"].items()
                                                          if key != "results"}}
    assert world.document(without.headers["task-id"] + "~task")["status"] == "succeeded"
    until("it to be ready again", agent.is_ready)
    assert agent.get("/api/status?id=before").status == 200
    assert agent.run(image_prompt(3), "given").headers["task-stored"] is None


def test_a_store_that_is_not_there_at_the_start(world):
    world.store.write_text("in the way")
    agent = world.agent(ready=False)
    until("ComfyUI to be up", lambda: agent.answers() and agent.get("/readyz").json["comfyui"]["open"])
    reply = agent.run(image_prompt(1), "t")
    assert reply.status == 200 and reply.headers["task-stored"] == "no"
    assert agent.get("/readyz").status == 503
    world.store.unlink()
    until("the end to be written", lambda: world.document("t~task"))
    until("it to be ready", agent.is_ready)


# --- what others have left there -------------------------------------------------------------------


def test_bare_node_maps_of_older_agents_are_read(world):
    old = {"9": {"max": 1, "value": 1, "start": 1732366000, "last_updated": 1732366003,
                 "images": [{"filename": "a.png", "subfolder": "", "type": "output"}]},
           "3": {"max": 17, "value": 17, "start": 1732366000, "last_updated": 1732366002, "images": None}}
    world.store.mkdir()
    (world.store / "old").write_text(json.dumps(old, indent=1))
    agent = world.agent()
    reply = agent.get("/api/status?id=old")
    assert (reply.status, reply.json) == (200, old)
    assert reply.headers["task-status"] is None
    assert agent.record("old").status == 404
    assert [task["id"] for task in agent.get("/api/tasks").json["tasks"]] == []
    # a run under that id takes its place
    assert agent.run(image_prompt(1), "old").status == 200
    assert agent.get("/api/status?id=old").json.keys() == {"1", "2"}


def documents_read(agent):
    text = agent.get("/metrics").body.decode()
    return int(re.search(r"^\S*store_documents_read_total (\d+)$", text, re.M)[1])


def test_who_polls_together_is_told_what_was_read_once(world):
    comfy = world.comfyui()
    first = world.agent("first", url=comfy.url)
    assert first.run(image_prompt(1), "t").status == 200
    record = first.record("t").body
    first.stop()
    agent = world.agent(url=comfy.url)
    before = documents_read(agent)
    peers = [Peer(agent.port, b"GET /api/tasks/t HTTP/1.1\r\nhost: x\r\n\r\n" * 50) for _ in range(10)]
    for peer in peers:
        for _ in range(50):
            assert peer.hear().body == record
    assert documents_read(agent) - before < 250, "500 polls in a short time"


def test_what_was_found_missing_is_found_as_soon_as_it_is_there(world):
    agent = world.agent()
    for n in range(20):
        assert agent.get(f"/api/status?id=t{n}").status == 404
        assert agent.run({"1": node("TestText", text="x")}, f"t{n}").status == 200
        assert agent.get(f"/api/status?id=t{n}").status == 200


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\0" * 100, b"{}x", b'{"a":' * 500],
                         ids=["empty", "cut", "array", "zeros", "tail", "deep"])
def test_documents_that_are_broken_are_no_answer(world, content):
    world.store.mkdir()
    for name in ("map", "record~task"):
        (world.store / name).write_bytes(content)
    agent = world.agent()
    for path in ("/api/status?id=map", "/api/status?id=record", "/api/tasks/record"):
        reply = agent.get(path)
        assert (reply.status, reply.code) == (503, "store_failed"), reply
    assert agent.get("/api/tasks").status == 200
    assert agent.run(image_prompt(1)).status == 200


# --- many ------------------------------------------------------------------------------------------


def send_async(agent, count, name="t"):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda n: agent.run(sleep_prompt(0, n), f"{name}{n}", headers=ASYNC), range(count)))


def test_what_does_not_fit_into_the_queue_is_429(world):
    agent = world.agent(env={"MAX_QUEUE": "64"})
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
    replies = send_async(agent, 100)
    taken = [reply for reply in replies if reply.status == 202]
    refused = [reply for reply in replies if reply.status == 429]
    assert (len(taken), len(refused)) == (65, 35), "one runs, 64 wait"
    assert all(reply.code == "queue_full" and reply.headers["retry-after"] for reply in refused)
    for reply in refused:
        assert agent.get("/api/status?id=" + reply.headers["task-id"]).status == 404
    agent.comfy.release()
    for reply in taken:
        until("its end", lambda: agent.record(reply.headers["task-id"]).json["status"] == "succeeded")


@pytest.mark.release
def test_a_thousand_tasks_wait_and_end(world):
    agent = world.agent(env={"MAX_QUEUE": "1000"})
    idle = {"waiting": 0, "active": 0, "unstored": 0}
    sizes = []
    for wave, count in enumerate((1000, 500)):
        agent.comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
        send_async(agent, 1, f"first{wave}-")
        until("it to run", lambda: len(agent.comfy.state()["queue"]["running"]) == 1)
        before = resident_kib(agent.pid)
        assert {reply.status for reply in send_async(agent, count, f"t{wave}-")} == {202}
        if wave == 0:
            each = (resident_kib(agent.pid) - before) / count
            print(f"{each:.1f} KiB for a waiting task")
            assert each < 32
        agent.comfy.release()
        until("all to end", lambda: agent.get("/readyz").json["tasks"] == idle)
        sizes.append(resident_kib(agent.pid))
        for n in range(count):
            reply = agent.record(f"t{wave}-{n}")
            assert reply.status == 200 and reply.json["status"] == "succeeded", reply
    print(f"resident after each wave: {sizes} KiB")
    assert sizes[1] < sizes[0] + 2048, "what has ended is forgotten"
    assert len(agent.comfy.prompts) == 1502
