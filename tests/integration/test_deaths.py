"""ComfyUI is killed, and there is no second attempt, or there are several tasks: what is told then, to
the caller, in the record and in the store, is one and the same, and it is what happened. (That a second
attempt succeeds whenever it dies is in test_misbehaving.py.)"""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from world import image_prompt, later, node, until

MOMENTS = ["prompt_received", "before_reply", "node", "progress", "executed", "success", "history"]
SECONDS = 20  # from the death to the answer: a restart takes less than one


def whole_prompt(color=1):
    """A picture, and steps after it: every message there is comes on the way."""
    return {**image_prompt(color), "3": node("TestSteps", n=3, ms=1, seed=color)}


def die_at(agent, moment, **more):
    agent.comfy.control({"at": moment, "do": "signal", "signal": "KILL", **more})


def pid_of(agent):
    return agent.comfy.state()["pid"]


def check_told_and_stored_alike(world, agent, task, reply):
    """One end, the same for whoever asks, and told as what it was."""
    record = agent.record(task).json
    assert world.document(f"{task}~task") == record
    assert record["status"] == reply.headers["task-status"]
    assert (reply.status == 200) == (record["status"] == "succeeded")
    if reply.status == 200:
        assert record["error"] is None and reply.json["2"]["results"]
        assert len(record["outputs"]) == 1
    else:
        assert record["error"] == reply.json["error"]
    return record


def check_goes_on(agent, died):
    reply = agent.run(whole_prompt(99), "after")
    assert reply.status == 200, reply
    assert pid_of(agent) != died


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_when_there_is_no_second_attempt(both, moment):
    """Then it has failed, and the answer says of what. Unless it had been told to have succeeded: the
    pictures are on the disk then, and whoever comes after serves them."""
    agent = both.agent(env={"MAX_ATTEMPTS": "1"})
    died = pid_of(agent)
    die_at(agent, moment)
    reply = agent.run(whole_prompt(), "t", timeout=SECONDS)
    record = check_told_and_stored_alike(both, agent, "t", reply)
    assert record["attempt"] == 1
    if reply.status != 200:
        assert (reply.status, reply.code) == (502, "comfyui_died")
        assert reply.json["error"]["exit"]["signal"] == 9
    else:
        assert moment in ("success", "history")
    check_goes_on(agent, died)


def test_two_in_its_hands_and_one_waiting(both):
    """All that ran are run again, what waited is no attempt further, and nobody is forgotten."""
    agent = both.agent(env={"MAX_CONCURRENCY": "2"})
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    with ThreadPoolExecutor(3) as pool:
        replies = [pool.submit(agent.run, whole_prompt(n), f"t{n}") for n in range(3)]
        until("two to be submitted", lambda: len(agent.comfy.prompts) == 2)
        until("the third to wait", lambda: agent.get("/readyz").json["tasks"]["waiting"] == 1)
        os.kill(pid_of(agent), signal.SIGKILL)
        replies = [reply.result() for reply in replies]
    assert [reply.status for reply in replies] == [200] * 3, replies
    attempts = [check_told_and_stored_alike(both, agent, f"t{n}", reply)["attempt"]
                for n, reply in enumerate(replies)]
    assert sorted(attempts) == [1, 2, 2]


def test_a_prompt_that_never_reached_an_attached_comfyui_is_sent_again(world):
    """It is killed with the request in its hands, and its successor answers for a second before its socket opens."""
    comfy = world.comfyui()
    agent = world.agent(url=comfy.url)
    comfy.control({"at": "prompt_received", "do": "hold"})
    reply = later(agent.run, image_prompt(), "t")
    comfy.await_hold("prompt_received")
    comfy.process.signal(signal.SIGKILL)
    comfy.process.wait()
    slow = [{"at": "http", "route": "GET /ws", "do": "sleep", "ms": 1000}]
    successor = world.comfyui(env={"STANDIN_MISBEHAVE": json.dumps(slow)}, port=comfy.port)
    assert reply.result().status == 200, reply.result()
    assert agent.record("t").json["attempt"] == 1
    assert len(successor.prompts) == 1
