"""The cases that an agent in front of ComfyUI must get right: the right end over HTTP and in the store, of
which the documents themselves are read, with both ages of ComfyUI."""

import base64
import pathlib

import pytest

from world import ask, image_prompt, later, node, running, sleep_prompt, until

SEED = 18446744073709551615
BIG = 64 << 20


def agrees(world, agent, task_id, reply):
    """HTTP and store tell the same end; the record."""
    record = world.document(f"{task_id}~task")
    nodes = world.document(task_id)
    assert agent.record(task_id).json == record
    assert agent.get(f"/api/status?id={task_id}").json == nodes == record["nodes"]
    assert reply.headers["task-id"] == task_id
    assert reply.headers.get("task-stored") is None
    if reply.status == 200:
        told = {name: {key: value for key, value in entry.items() if key != "results"}
                for name, entry in reply.json.items()}
        assert told == nodes
        assert record["status"] == reply.headers["task-status"] == "succeeded"
        assert record["error"] is None and record["progress"] == 1
        assert all(entry["value"] == entry["max"] for entry in nodes.values())
        assert len(record["outputs"]) == sum(len(entry["images"]) for entry in nodes.values())
    else:
        assert reply.json["error"] == record["error"]
        assert record["status"] in ("failed", "cancelled") and record["outputs"] == []
    assert record["created"] <= record["started"] <= record["finished"]
    return record


def results(reply, node_id):
    return [base64.b64decode(text, validate=True) for text in reply.json[node_id]["results"]]


def test_a_fully_cached_prompt(both):
    agent = both.agent()
    first = agent.run(image_prompt(1), "first")
    again = agent.run(image_prompt(1), "again")
    record = agrees(both, agent, "again", again)
    assert results(first, "2") == results(again, "2")
    assert record["outputs"][0]["filename"] == first.json["2"]["images"][0]["filename"]
    assert agent.comfy.state()["nodes_run"] == 2


def test_one_faster_than_5_ms(both):
    agent = both.agent()
    took = []
    for n in range(10):  # a loaded machine makes some of them slower
        reply = agent.run({"1": node("TestText", text=f"now {n}")}, f"t{n}")
        assert reply.status == 200 and reply.json["1"]["text"] == [f"now {n}"]
        took.append(comfy_ms(agent, agrees(both, agent, f"t{n}", reply)["prompt_id"]))
    assert min(took) < 5, took


def comfy_ms(agent, prompt_id):
    """How long ComfyUI took, between its own two time stamps."""
    messages = dict(ask(agent.comfy.port, "GET", f"/history/{prompt_id}").json[prompt_id]["status"]["messages"])
    return messages["execution_success"]["timestamp"] - messages["execution_start"]["timestamp"]


@pytest.mark.parametrize("concurrency", ["1", "2"])
def test_one_queued_behind_another(both, concurrency):
    agent = both.agent(env={"MAX_CONCURRENCY": concurrency})
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
    first = later(agent.run, sleep_prompt(1), "first")
    until("the first to run", lambda: running(agent, "first"))
    second = later(agent.run, image_prompt(1), "second")
    if concurrency == "1":
        until("the second to wait", lambda: agent.record("second").json.get("queue_position") == 0)
        assert both.document("second~task")["status"] == "queued"
    else:
        until("the second to wait in ComfyUI", lambda: agent.comfy.state()["queue"]["pending"])
        assert agent.comfy.state()["started"] == [agent.record("first").json["prompt_id"]]
    agent.comfy.release()
    one = agrees(both, agent, "first", first.result())
    two = agrees(both, agent, "second", second.result())
    assert first.result().status == second.result().status == 200
    assert one["finished"] <= two["finished"]
    assert len(agent.comfy.state()["started"]) == 2


def test_an_interrupted_one(both):
    agent = both.agent()
    prompt = {**image_prompt(1), "3": node("TestSteps", n=5000, ms=5, seed=0)}
    waiting = later(agent.run, prompt, "t")
    until("it to run", lambda: running(agent, "t"))
    assert agent.ask("DELETE", "/api/tasks/t").status == 202
    reply = waiting.result()
    assert (reply.status, reply.code) == (500, "cancelled")
    assert agrees(both, agent, "t", reply)["status"] == "cancelled"
    assert list(agent.comfy.state()["ended"].values()) == ["interrupted"]
    assert agent.run(image_prompt(2)).status == 200


def test_one_that_raises(both):
    agent = both.agent()
    prompt = {"1": node("EmptyImage", width=16, height=16, batch_size=1, color=1),
              "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
              "7": node("TestRaise", message="the reason\nin two lines", kind="ValueError")}
    reply = agent.run(prompt, "t")
    assert (reply.status, reply.json["message"], reply.code) == (500, "CallComfyUIPromptError", "node_error")
    error = agrees(both, agent, "t", reply)["error"]
    assert (error["node_id"], error["class_type"]) == ("7", "TestRaise")
    assert error["detail"] == "the reason\nin two lines"
    assert "ValueError" in error["exception_type"] and isinstance(error["traceback"], list)


def test_one_with_the_largest_seed(both):
    agent = both.agent()
    sent = ('{"4": {"inputs": {"n": 1, "ms": 1.0, "seed": %d}, "class_type": "TestSteps"},'
            ' "5": {"inputs": {"value": {"a":[%d, 1e400, -0, 0.10]}}, "class_type": "TestEcho"}}' % (SEED, SEED))
    reply = agent.run(sent, "t")
    assert reply.status == 200, reply
    record = agrees(both, agent, "t", reply)
    assert record["seeds"] == {}
    assert b'{"prompt":' + sent.encode() + b"," in agent.comfy.body(0)
    assert str(SEED).encode() in results(reply, "5")[0]


def test_one_with_a_video_and_a_text(both):
    agent = both.agent()
    reply = agent.run({"1": node("TestVideo", bytes=5000), "2": node("TestText", text="Grüße \"\\\n\0 雪"),
                       "3": node("TestAudio", seconds=0.1)}, "t")
    record = agrees(both, agent, "t", reply)
    (video,) = results(reply, "1")
    (file,) = reply.json["1"]["images"]
    assert (file["subfolder"], file["filename"][-4:]) == ("video", ".mp4")
    assert video == (both.output / "video" / file["filename"]).read_bytes() and len(video) == 5000
    assert reply.json["2"]["text"] == ["Grüße \"\\\n\0 雪"]
    assert reply.json["2"]["images"] == [] and "results" not in reply.json["2"]
    assert results(reply, "3")[0].startswith(b"RIFF")
    assert [output["media_type"] for output in record["outputs"]][0] == "video/mp4"
    assert [output["size"] for output in record["outputs"]][0] == 5000


def run_big(world, agent, name):
    reply = agent.run({"1": node("TestBigImage", bytes=BIG, filename_prefix=name)}, name)
    record = agrees(world, agent, name, reply)
    (file,) = reply.json["1"]["images"]
    assert results(reply, "1") == [(world.output / file["filename"]).read_bytes()]
    assert record["outputs"][0]["size"] == BIG


def test_one_with_a_picture_of_64_mb(both):
    run_big(both, both.agent(), "big")


def memory(pid, what):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(what)) * 1024


@pytest.mark.release
def test_a_picture_of_64_mb_passes_through_in_little_memory(both):
    agent = both.agent()
    run_big(both, agent, "warm")  # what is allocated once is no cost of this one
    idle = memory(agent.pid, "VmRSS")
    pathlib.Path(f"/proc/{agent.pid}/clear_refs").write_text("5")
    run_big(both, agent, "big")
    peak = memory(agent.pid, "VmHWM")
    assert peak - idle < 4 << 20, f"{(peak - idle) >> 10} KiB above idle"
