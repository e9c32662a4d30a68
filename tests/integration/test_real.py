"""What must hold in front of any ComfyUI: every case here uses nodes that each ComfyUI has and needs
no model. They run against both ages of the stand-in, and tests/real.py runs them against a real one:
so the stand-in is not merely what we imagine ComfyUI to be."""

import base64
import io
import itertools
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from world import REAL, World, ask, node, until

pytestmark = pytest.mark.real

LINKS = 20  # of the slow chain
UINT64_MAX = 18446744073709551615
colors = itertools.count(1)  # one never used before: nothing comes from ComfyUI's cache by accident


@pytest.fixture(scope="module", params=["real"] if REAL else ["0.33.0", "0.3.7"])
def served(request, tmp_path_factory):
    """One agent and its ComfyUI for all cases: a real one takes seconds to start."""
    world = World(tmp_path_factory.mktemp("served"), age=request.param)
    failed_before = request.session.testsfailed
    agent = world.agent()
    agent.world = world
    yield agent
    world.close(request.session.testsfailed > failed_before)


@pytest.fixture
def task(request):
    """A task id of this case's own."""
    return "".join(c if c.isalnum() else "-" for c in request.node.name)[:100]


def picture(size=16, batch=1, color=None):
    return {"1": node("EmptyImage", width=size, height=size, batch_size=batch,
                      color=next(colors) if color is None else color),
            "2": node("SaveImage", images=["1", 0], filename_prefix="real")}


def slow_chain(agent):
    """Pictures scaled up and down: seconds of work, with a place to stop at after each link."""
    size = 1024
    if not REAL:
        size = 32
        agent.comfy.control({"at": "node", "class": "ImageScale", "do": "sleep", "ms": 150, "times": LINKS})
    prompt = {"0": node("EmptyImage", width=size, height=size, batch_size=1, color=next(colors))}
    for i in range(1, LINKS + 1):
        side = size + size // 2 if i % 2 else size
        prompt[str(i)] = node("ImageScale", image=[str(i - 1), 0], upscale_method="lanczos", width=side,
                              height=side, crop="disabled")
    prompt["99"] = node("PreviewImage", images=[str(LINKS), 0])
    return prompt


def pngs(reply, node_id):
    return [Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
            for text in reply.json[node_id]["results"]]


def in_background(function, *args):
    return ThreadPoolExecutor(1).submit(function, *args)


def runs(agent, task):
    """It has been seen to execute a node and is not over."""
    reply = agent.record(task)
    if reply.status != 200 or reply.json["status"] != "running":
        return False
    return any(entry["start"] for entry in reply.json["nodes"].values())


def ask_comfy(agent, method, path, body=None):
    """ComfyUI itself, as somebody else would who shares it."""
    headers = {"content-type": "application/json"}
    return ask(agent.comfy.port, method, path, None if body is None else json.dumps(body), headers)


def said_last(agent, task):
    """What ComfyUI's own history says of how the task's prompt ended."""
    ours = agent.record(task).json["prompt_id"]
    name, data = ask_comfy(agent, "GET", f"/history/{ours}").json[ours]["status"]["messages"][-1]
    return {"event": name, **data}


def comfy_pid(agent):
    """The process that listens on ComfyUI's port: the agent is told of none by name."""
    wanted = f":{agent.comfy.port:04X} 00000000:0000 0A"
    (inode,) = {line.split()[9] for line in open("/proc/net/tcp") if wanted in line}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        if f"socket:[{inode}]" in links:
            return int(pid)
    raise AssertionError("nobody listens there")


def test_a_run_gives_the_picture_and_a_record_of_it(served, task):
    reply = served.run(picture(24, color=0xFF8000), task)
    assert reply.status == 200, reply
    assert (reply.headers["task-id"], reply.headers["task-status"]) == (task, "succeeded")
    nodes = reply.json
    assert set(nodes) == {"1", "2"} and nodes["1"]["images"] == []
    assert all((entry["value"], entry["max"]) == (1, 1) for entry in nodes.values())
    (image,) = pngs(reply, "2")
    assert image.size == (24, 24) and image.convert("RGB").getpixel((5, 5)) == (255, 128, 0)
    record = served.record(task).json
    assert (record["status"], record["attempt"], record["error"]) == ("succeeded", 1, None)
    (output,) = record["outputs"]
    assert (output["node_id"], output["type"], output["media_type"]) == ("2", "output", "image/png")
    assert nodes["2"]["images"] == [{name: output[name] for name in ("filename", "subfolder", "type")}]


def test_what_all_was_cached_still_has_its_outputs(served, task):
    """No node runs then, and on old versions no `executed` comes for it at all."""
    prompt = picture()
    first = served.run(prompt, task + "-1")
    again = served.run(prompt, task + "-2")
    assert first.status == again.status == 200, (first, again)
    assert again.json["2"]["results"] == first.json["2"]["results"]
    assert [entry["value"] for entry in again.json.values()] == [1, 1]


def test_a_batch_keeps_its_order(served, task):
    dark, light = next(colors), 0xFFFFFF - next(colors)
    prompt = {"1": node("EmptyImage", width=16, height=16, batch_size=2, color=dark),
              "2": node("EmptyImage", width=16, height=16, batch_size=1, color=light),
              "3": node("ImageBatch", image1=["1", 0], image2=["2", 0]),
              "4": node("SaveImage", images=["3", 0], filename_prefix="sub/batch")}
    reply = served.run(prompt, task)
    assert reply.status == 200, reply
    names = [image["filename"] for image in reply.json["4"]["images"]]
    assert names == sorted(names) and len(names) == 3
    assert {image["subfolder"] for image in reply.json["4"]["images"]} == {"sub"}
    seen = [image.convert("RGB").getpixel((0, 0)) for image in pngs(reply, "4")]
    assert seen == [tuple(color.to_bytes(3, "big")) for color in (dark, dark, light)]


def test_previews_and_animations_are_outputs_too(served, task):
    prompt = {"1": node("EmptyImage", width=16, height=16, batch_size=2, color=next(colors)),
              "2": node("PreviewImage", images=["1", 0]),
              "3": node("SaveAnimatedWEBP", images=["1", 0], filename_prefix="moving", fps=6.0, lossless=True,
                        quality=80, method="default")}
    reply = served.run(prompt, task)
    assert reply.status == 200, reply
    assert [image["type"] for image in reply.json["2"]["images"]] == ["temp"] * 2
    assert len(pngs(reply, "2")) == 2
    (animation,) = reply.json["3"]["results"]
    assert base64.b64decode(animation)[:4] == b"RIFF"
    kinds = {output["node_id"]: output["media_type"] for output in served.record(task).json["outputs"]}
    assert kinds == {"2": "image/png", "3": "image/webp"}


def test_progress_is_seen_while_it_runs(served, task):
    waiting = in_background(served.run, slow_chain(served), task)
    until("it to run", lambda: runs(served, task))

    def is_half_way():
        values = [entry["value"] for entry in served.get(f"/api/status?id={task}").json.values()]
        return 0 < sum(values) < LINKS

    assert is_half_way() or until("some nodes to be done", is_half_way)
    assert waiting.result().status == 200
    assert all(entry["value"] == 1 for entry in served.get(f"/api/status?id={task}").json.values())


def test_one_queued_behind_another_waits_and_runs(served, task):
    first = in_background(served.run, slow_chain(served), task + "-1")
    until("the first to run", lambda: runs(served, task + "-1"))
    second = in_background(served.run, picture(), task + "-2")

    def is_first_in_the_queue():  # it is not yet there while its id is being claimed in the store
        record = served.record(task + "-2")
        return record.status == 200 and record.json.get("queue_position") == 0 and record

    waiting = until("the second to wait", is_first_in_the_queue)
    assert waiting.json["status"] == "queued"
    assert first.result().status == second.result().status == 200
    ended = [served.record(f"{task}-{n}").json for n in (1, 2)]
    assert ended[1]["started"] >= ended[0]["started"]


def test_a_cancelled_run_stops_and_the_next_one_runs(served, task):
    waiting = in_background(served.run, slow_chain(served), task)
    until("it to run", lambda: runs(served, task))
    assert served.ask("DELETE", f"/api/tasks/{task}").status in (200, 202)
    reply = waiting.result()
    assert (reply.status, reply.code) == (500, "cancelled")
    assert served.record(task).json["status"] == "cancelled"
    assert said_last(served, task)["event"] == "execution_interrupted", "it has stopped, not only been left"
    assert served.run(picture(), task + "-next").status == 200


def test_an_interrupt_by_somebody_else_is_told(served, task):
    waiting = in_background(served.run, slow_chain(served), task)
    until("it to run", lambda: runs(served, task))
    assert ask_comfy(served, "POST", "/interrupt", {}).status == 200
    reply = waiting.result()
    assert (reply.status, reply.code) == (500, "interrupted")
    assert said_last(served, task)["event"] == "execution_interrupted"
    assert served.record(task).json["status"] == "failed"


def test_a_prompt_that_somebody_else_deletes_from_the_queue_is_missed(served, task):
    """ComfyUI says nothing of it to anybody."""
    other = ask_comfy(served, "POST", "/prompt", {"prompt": slow_chain(served)})
    assert other.status == 200
    waiting = in_background(served.run, picture(), task)

    def waits_behind_it():
        queue = ask_comfy(served, "GET", "/queue").json
        return queue["queue_running"] and queue["queue_pending"]

    until("it to be in ComfyUI's queue", waits_behind_it)
    assert ask_comfy(served, "POST", "/queue", {"clear": True}).status == 200
    until("the other to be over", lambda: other.json["prompt_id"] in ask_comfy(served, "GET", "/history").json)
    reply = waiting.result()
    assert (reply.status, reply.code) == (502, "prompt_lost")


def test_a_run_of_somebody_else_is_left_alone_by_a_cancel(served, task):
    """Old versions interrupt whatever runs, whichever id they are given."""
    other = ask_comfy(served, "POST", "/prompt", {"prompt": slow_chain(served)}).json["prompt_id"]
    waiting = in_background(served.run, picture(), task)
    until("it to be in ComfyUI's queue", lambda: ask_comfy(served, "GET", "/queue").json["queue_pending"])
    served.ask("DELETE", f"/api/tasks/{task}")
    assert waiting.result().code == "cancelled"
    history = until("the other to be over", lambda: ask_comfy(served, "GET", f"/history/{other}").json)
    assert history[other]["status"]["status_str"] == "success"


def test_a_seed_keeps_its_digits_and_minus_one_gets_one(served, task):
    """2^64-1 is more than a double holds. ComfyUI keeps inputs that a node does not know."""
    text = json.dumps(picture()).replace('"batch_size"', f'"seed": {UINT64_MAX}, "noise_seed": -1, "batch_size"')
    assert served.run(text, task).status == 200
    record = served.record(task).json
    ours = record["prompt_id"]
    ran = ask_comfy(served, "GET", f"/history/{ours}")
    assert str(UINT64_MAX).encode() in ran.body
    inputs = ran.json[ours]["prompt"][2]["1"]["inputs"]
    assert inputs["seed"] == UINT64_MAX
    assert 0 <= inputs["noise_seed"] < 2**31
    assert record["seeds"] == {"1.noise_seed": inputs["noise_seed"]}


def test_a_picture_can_come_with_the_prompt(served, task):
    out = io.BytesIO()
    color = (next(colors), 200, 3)
    Image.new("RGB", (20, 30), color).save(out, "PNG")
    text = base64.b64encode(out.getvalue()).decode()
    for n, image in enumerate(("data:image/png;base64," + text, text)):
        prompt = {"1": node("LoadImage", image=image), "2": node("ImageInvert", image=["1", 0]),
                  "3": node("SaveImage", images=["2", 0], filename_prefix="inverted")}
        reply = served.run(prompt, f"{task}-{n}")
        assert reply.status == 200, reply
        (image,) = pngs(reply, "3")
        assert image.size == (20, 30)
        seen = image.convert("RGB").getpixel((7, 7))
        assert all(abs(255 - c - s) <= 1 for c, s in zip(color, seen)), "by one: floats, cut off on saving"


def test_an_output_can_be_had_in_part(served, task):
    assert served.run(picture(), task, query="?results=none").status == 200
    (output,) = served.record(task).json["outputs"]
    whole = served.get(output["url"])
    assert (whole.status, whole.headers["content-type"]) == (200, "image/png")
    assert len(whole.body) == output["size"]
    part = served.get(output["url"], range="bytes=8-15")
    assert part.status == 206 and part.body == whole.body[8:16]
    assert served.get(output["url"], range=f"bytes={output['size']}-").status == 416


def test_what_comfyui_refuses_is_told_in_its_words(served, task):
    prompt = picture()
    del prompt["2"]["inputs"]["images"]
    reply = served.run(prompt, task + "-missing")
    assert (reply.status, reply.code) == (422, "prompt_refused")
    (error,) = reply.json["error"]["node_errors"]["2"]["errors"]
    assert error["type"] == "required_input_missing"
    unknown = served.run({"1": node("NoSuchNode")}, task + "-unknown")
    assert (unknown.status, unknown.code) == (422, "prompt_refused")
    no_output = served.run({"1": picture()["1"]}, task + "-nothing")
    assert (no_output.status, no_output.code) == (422, "prompt_refused")
    assert no_output.json["error"]["type"] == "prompt_no_outputs"


def test_a_prompt_of_which_comfyui_would_run_a_part_is_refused(served, task):
    """It drops the output whose inputs are wrong and runs the others, as if nothing had been asked."""
    prompt = {**picture(), "3": node("SaveImage", images=["1", 0])}
    reply = served.run(prompt, task)
    assert (reply.status, reply.code) == (422, "outputs_dropped")
    assert "3" in reply.json["error"]["node_errors"]
    assert served.record(task).json["status"] == "failed"


def test_a_node_that_raises_is_named(served, task):
    (served.world.input / "not-a-picture.png").write_bytes(b"this is text")
    prompt = {"7": node("LoadImage", image="not-a-picture.png"),
              "8": node("SaveImage", images=["7", 0], filename_prefix="x")}
    reply = served.run(prompt, task)
    assert (reply.status, reply.code) == (500, "node_error")
    error = reply.json["error"]
    assert (error["node_id"], error["class_type"]) == ("7", "LoadImage")
    said = said_last(served, task)
    assert said["exception_type"], "which one it is, depends on what this version reads pictures with"
    assert error["exception_type"] == said["exception_type"]
    assert error["traceback"] == said["traceback"]
    assert served.run(picture(), task + "-next").status == 200


def test_an_id_is_one_run(served, task):
    prompt = picture()
    first = served.run(prompt, task)
    assert served.run(prompt, task).body == first.body
    assert served.record(task).json["attempt"] == 1
    other = served.run(picture(), task)
    assert (other.status, other.code) == (409, "other_prompt")


def test_the_store_says_the_same_to_another_agent(served, task):
    """What was answered does not live in the memory of the one who answered it."""
    assert served.run(picture(), task + "-1").status == 200
    bad = picture()
    del bad["2"]["inputs"]["images"]
    assert served.run(bad, task + "-2").status == 422
    other = served.world.agent(task, url=f"http://127.0.0.1:{served.comfy.port}")
    for n in (1, 2):
        for path in (f"/api/tasks/{task}-{n}", f"/api/status?id={task}-{n}"):
            assert other.get(path).body == served.get(path).body
    other.stop()


def test_a_run_outlives_its_comfyui(served, task):
    """Killed half way: a new ComfyUI starts and the prompt goes to it once more."""
    waiting = in_background(served.run, slow_chain(served), task)
    until("it to run", lambda: runs(served, task))
    os.kill(comfy_pid(served), signal.SIGKILL)
    reply = waiting.result()
    assert reply.status == 200, reply
    assert served.record(task).json["attempt"] == 2
    assert served.run(picture(), task + "-next").status == 200
