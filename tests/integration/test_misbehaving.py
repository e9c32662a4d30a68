"""A ComfyUI that answers wrongly, late or never, and one that dies at any moment: an honest end, always."""

import contextlib
import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from world import ask, image_prompt, later, node, running, until

POST = {"at": "http", "route": "POST /prompt"}
DOUBT = {"at": "ws", "type": "executing", "do": "lose"}  # not a gap, but reason to ask the history
HISTORY = {"at": "http", "route": "GET /history/*"}
QUEUE = {"at": "http", "route": "GET /queue"}
NOISE = "\x00\x01 no JSON"
WHOLE_VIEW = {"at": "http", "route": "GET /view", "ranged": False}  # a result is being sent


def picture(reply, about=None):
    assert reply.status == 200, (about, reply)
    assert reply.json["2"]["results"], (about, reply)


def another_comfyui(agent, pid):
    """Until the agent has noticed that the process is gone, and has a new one."""
    def come():
        with contextlib.suppress(OSError, http.client.HTTPException):
            return agent.is_ready() and agent.comfy.state()["pid"] != pid

    until("another ComfyUI", come)


def blue(n=1):
    """Saves a picture in a few steps."""
    return {**image_prompt(n), "3": node("TestSteps", n=3, ms=1, seed=n)}


# --- POST /prompt ----------------------------------------------------------------------------------


IT_RAN = [
    {"do": "do_then_answer"},
    {"do": "do_then_answer", "finish": True},
    {"do": "do_then_close"},
    {"do": "do_then_close", "finish": True},
    {"do": "garble"},
    {"do": "do_then_answer", "status": 200, "body": NOISE},
    {"do": "do_then_answer", "status": 200, "body": {"prompt_id": "../../etc", "number": 1, "node_errors": {}}},
    {"do": "do_then_answer", "status": 200, "body": {"number": 1}},
    {"do": "do_then_answer", "status": 200, "body": ""},
    {"do": "do_then_answer", "status": 503, "body": "busy"},
    {"do": "do_then_answer", "status": 302, "headers": {"location": "/"}, "body": ""},
    {"do": "truncate"},
    {"do": "wrong_length"},
    {"do": "wrong_length", "by": 5},
    {"do": "slow", "bytes_per_s": 400},
    {"do": "chunked"},
]


def test_it_ran_whatever_the_answer_said(world):
    """A 500 or a lost connection does not mean that nothing happened. It is looked for, and run once."""
    agent = world.agent()
    for n, rule in enumerate(IT_RAN):
        agent.comfy.control({**POST, **rule})
        picture(agent.run(blue(n), f"t{n}"), rule)
        assert agent.record(f"t{n}").json["attempt"] == 1, rule
        assert len(agent.comfy.prompts) == n + 1, rule


DID_NOT_RUN = [
    ({"do": "answer"}, 502, "comfyui_error", 1),
    ({"do": "answer", "status": 200, "body": NOISE}, 502, "comfyui_garbage", 1),
    ({"do": "answer", "status": 200, "body": {"prompt_id": "other", "number": 0}}, 502, "prompt_lost", 1),
    ({"do": "answer", "status": 413}, 413, "prompt_too_large", 1),
    ({"do": "answer", "status": 404}, 502, "comfyui_error", 1),
    ({"do": "close"}, 200, None, 2),  # closed before it was taken: sent again
    ({"do": "close", "times": 0}, 502, "comfyui_error", 2),
    ({"do": "flood", "bytes": 70 << 20}, 502, "comfyui_error", 1),
]


def test_it_did_not_run(world):
    """What was never taken is not waited for."""
    agent = world.agent()
    for n, (rule, status, code, posts) in enumerate(DID_NOT_RUN):
        agent.comfy.control({**POST, **rule})
        reply = agent.run(blue(n), f"t{n}")
        assert (reply.status, reply.json.get("error", {}).get("code")) == (status, code), (rule, reply)
        assert (world.document(f"t{n}~task")["error"] or {}).get("code") == code
        assert agent.comfy.state()["requests"]["POST /prompt"] == posts, rule
        agent.comfy.reset()
    picture(agent.run(blue(100)))


def test_an_old_version_does_not_tell_its_id(both):
    """Versions that choose the id tell it in the answer only: what is lost with it cannot be found again,
    unless an event names it. It is an error then, never a wrong result."""
    agent = both.agent()
    for n, do in enumerate(("do_then_close", "do_then_answer", "answer", "close", "garble")):
        agent.comfy.control({**POST, "do": do})
        reply = agent.run(blue(n), f"t{n}")
        if reply.status == 200:
            picture(reply)
        else:
            assert (reply.status, reply.code) in ((502, "comfyui_error"), (502, "comfyui_garbage")), (do, reply)
        picture(agent.run(blue(n + 100), f"u{n}"), do)
        assert len(agent.comfy.prompts) <= 2, f"{do}: nothing runs twice"
        agent.comfy.reset()


def test_an_old_versions_event_names_the_prompt(both):
    """Where the answer is lost, execution_start has told the id, or does so while we look."""
    agent = both.agent()
    for n, rule in enumerate(({"do": "do_then_close", "finish": True}, {"do": "do_then_answer", "finish": True})):
        agent.comfy.control({**POST, **rule})
        picture(agent.run(blue(n), f"t{n}"))
    assert len(agent.comfy.prompts) == 2


def occupy(comfy):
    """With somebody else's prompt, until it is released."""
    comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
    foreign = json.dumps({"prompt": {"1": node("TestSleep", ms=1, seed=9)}, "client_id": "somebody"})
    assert ask(comfy.port, "POST", "/prompt", foreign).status == 200
    comfy.await_hold("node")


def delete_pending(comfy):
    """As somebody does in ComfyUI's own page."""
    (pending,) = json.loads(ask(comfy.port, "GET", "/queue").body)["queue_pending"]
    ask(comfy.port, "POST", "/queue", json.dumps({"delete": [pending[1]]}))


def test_what_was_seen_in_the_queue_and_then_deleted_is_not_sent_again(world):
    """The answer was lost, not the request: who deletes the prompt in ComfyUI has it deleted."""
    comfy = world.comfyui()
    comfy.control({**POST, "do": "do_then_close", "skip": 1})
    occupy(comfy)
    agent = world.agent(url=comfy.url)
    reply = later(agent.run, image_prompt(), "t")
    until("it to be looked for", lambda: comfy.state()["requests"].get("GET /queue", 0) > 1)
    until("it to be called running", lambda: agent.record("t").json["status"] == "running")
    delete_pending(comfy)
    assert (reply.result().status, reply.result().code) == (502, "prompt_lost"), reply.result()
    assert len(comfy.prompts) == 2
    comfy.release()


def test_what_was_taken_at_the_second_try_and_then_deleted_is_lost(world):
    """What the first try met does not explain it."""
    comfy = world.comfyui()
    comfy.control({**POST, "do": "close", "skip": 1})
    occupy(comfy)
    agent = world.agent(url=comfy.url)
    reply = later(agent.run, image_prompt(), "t")
    until("it to be running", lambda: agent.record("t").json.get("status") == "running")
    delete_pending(comfy)
    assert (reply.result().status, reply.result().code) == (502, "prompt_lost"), reply.result()
    assert comfy.state()["requests"]["POST /prompt"] == 3
    comfy.release()


@pytest.mark.release
def test_what_cannot_be_sent_again_to_this_comfyui_is_sent_to_the_next(world):
    """Its request was lost, and no WebSocket opens any more under which it could be sent again."""
    agent = world.agent(env={"STARTUP_TIMEOUT": "40s"})
    pid = agent.comfy.state()["pid"]
    agent.comfy.control({**POST, "do": "hold"}, {**POST, "do": "close"})
    reply = later(agent.run, image_prompt(), "t")
    until("it to be on its way", lambda: agent.comfy.state()["requests"].get("POST /prompt"))
    agent.comfy.control({"at": "http", "route": "GET /ws", "do": "answer", "times": 0}, {"at": "now", "do": "ws_drop"})
    agent.comfy.release()
    picture(reply.result())
    assert agent.comfy.state()["pid"] != pid and agent.record("t").json["attempt"] == 2


def test_a_prompt_that_was_heard_of_and_hangs_costs_its_comfyui(world):
    """Its request was never answered, and no look shows it; but that it began was told."""
    agent = world.agent(env={"PLATFORM": "fc", "STALL_TIMEOUT": "3s"})
    pid = agent.comfy.state()["pid"]
    agent.comfy.control({**POST, "do": "do_then_hang"}, {"at": "http", "route": "GET /queue", "do": "answer", "times": 0})
    assert agent.run({"1": node("TestHang", ms=600_000)}, "t", {"X-Fc-Function-Timeout": "2"}).code == "run_timeout"
    until("it to be killed", lambda: "a prompt that was to stop did not stop" in agent.log.read_text())
    picture(agent.run(image_prompt(1)))
    assert agent.comfy.state()["pid"] != pid


def test_a_prompt_whose_sender_had_to_stop_is_not_taken_for_the_next(both):
    """Its task ends while the answer is waited for, and an old version never tells the id."""
    comfy = both.comfyui()
    occupy(comfy)
    agent = both.agent(url=comfy.url, env={"PLATFORM": "fc"})
    comfy.control({**POST, "do": "do_then_hang"})
    assert agent.run(image_prompt(1, prefix="left"), "left", {"X-Fc-Function-Timeout": "2"}).code == "run_timeout"
    comfy.control({**POST, "do": "do_then_close", "finish": True})
    second = later(agent.run, image_prompt(2, prefix="next"), "next")
    until("the next to be there", lambda: len(comfy.prompts) == 3)
    comfy.release()
    reply = second.result()
    if reply.status == 200:
        assert reply.json["2"]["images"][0]["filename"].startswith("next_"), reply
    else:
        assert both.age == "0.3.7" and (reply.status, reply.code) == (502, "comfyui_error"), reply


def test_a_prompt_left_behind_is_not_taken_for_the_next(both):
    """An old version's prompt whose id was never told runs later, while the answer for the next is lost too:
    the result of the one is never given for the other."""
    comfy = both.comfyui()
    occupy(comfy)
    agent = both.agent(url=comfy.url, env={"RUN_TIMEOUT": "8s"})
    comfy.control({**POST, "do": "do_then_close"})
    left = later(agent.run, image_prompt(1, prefix="left"), "left")
    if both.age == "0.3.7":
        assert (left.result().status, left.result().code) == (502, "comfyui_error")
        assert len(comfy.prompts) == 2, "it is not sent again: it may be there"
    else:
        until("it to be there", lambda: comfy.state()["queue"]["pending"])
    comfy.control({**POST, "do": "do_then_close", "finish": True})
    second = later(agent.run, image_prompt(2, prefix="next"), "next")
    if both.age == "0.3.7":
        until("the next to be there", lambda: len(comfy.state()["queue"]["pending"]) == 2)
    comfy.release()
    reply = second.result()
    if reply.status == 200:
        assert reply.json["2"]["images"][0]["filename"].startswith("next_"), reply
    else:
        assert (reply.status, reply.code) == (502, "comfyui_error"), reply


def test_never_answered(world):
    """POST /prompt is waited for, but not for ever: 60 s, or what RUN_TIMEOUT leaves. Whether it ran is then
    looked up."""
    agent = world.agent(env={"RUN_TIMEOUT": "2s"})
    agent.comfy.control({**POST, "do": "hang"})
    reply = agent.run(blue(), "t", timeout=30)
    assert (reply.status, reply.code) == (504, "run_timeout"), reply
    agent.comfy.control({**POST, "do": "do_then_hang"})
    reply = agent.run({"1": node("TestSteps", n=5000, ms=5, seed=0)}, "u", timeout=30)
    assert (reply.status, reply.code) == (504, "run_timeout"), reply
    until("it to be stopped", agent.comfy.is_idle)
    picture(agent.run(blue(2)))


def late_post(agent, task_id):
    """The request that somebody between us and ComfyUI refused and delivers after all."""
    prompt_id = agent.record(task_id).json["prompt_id"]
    late = json.dumps({"prompt": {"1": node("TestSteps", n=5000, ms=50, seed=0)}, "prompt_id": prompt_id})
    assert ask(agent.comfy.port, "POST", "/prompt", late).status == 200
    until("it to run", lambda: agent.comfy.state()["queue"]["running"])


def free_again(agent):
    until("it to be stopped", agent.comfy.is_idle)


def test_a_request_that_arrives_when_its_task_has_ended_is_for_nobody(world):
    agent = world.agent()
    agent.comfy.control({**POST, "do": "answer", "status": 502})
    assert agent.run(blue(), "t").code == "comfyui_error"
    asked = agent.comfy.state()["requests"]["GET /queue"]
    until("looks that show nothing", lambda: agent.comfy.state()["requests"]["GET /queue"] >= asked + 3)
    late_post(agent, "t")
    free_again(agent)


def test_a_request_that_arrives_when_its_task_was_cancelled_is_for_nobody(world):
    agent = world.agent()
    agent.comfy.control({**POST, "do": "answer", "status": 502}, {**HISTORY, "do": "answer", "times": 0})
    reply = later(agent.run, blue(), "t")
    until("it to be looked for", lambda: agent.comfy.state()["requests"].get("GET /history/*"))
    assert ask(agent.port, "DELETE", "/api/tasks/t").status == 202
    until("it to be asked away", lambda: agent.comfy.state()["requests"].get("POST /queue"))
    agent.comfy.reset()
    assert reply.result().code == "cancelled"
    late_post(agent, "t")
    free_again(agent)


def test_a_prompt_that_nobody_has_seen_costs_no_comfyui(world):
    """Whether it is there is asked for a while; that the queue cannot be read is no sign that it is."""
    agent = world.agent(env={"STALL_TIMEOUT": "1s"})
    pid = agent.comfy.state()["pid"]
    agent.comfy.control({**POST, "do": "answer", "status": 502})
    assert agent.run(blue(), "t").code == "comfyui_error"
    asked = agent.comfy.state()["requests"]["GET /queue"]
    agent.comfy.control({**QUEUE, "do": "answer", "status": 500, "times": 0})
    until("it to be asked for", lambda: agent.comfy.state()["requests"]["GET /queue"] > asked + 2)
    picture(agent.run(blue(2)))
    assert agent.comfy.state()["pid"] == pid


# --- history and queue -----------------------------------------------------------------------------


WRONG_HISTORY = [
    {"do": "answer", "status": 500},
    {"do": "answer", "status": 200, "body": NOISE},
    {"do": "answer", "status": 200, "body": []},
    {"do": "answer", "status": 200, "body": "{}"},
    {"do": "answer", "status": 200, "body": {"another": {}}},
    {"do": "close"},
    {"do": "garble"},
    {"do": "truncate"},
    {"do": "wrong_length"},
    {"do": "slow", "bytes_per_s": 20000},
    {"do": "chunked"},
]


def test_history_is_wrong_for_a_while(both):
    agent = both.agent()
    for n, rule in enumerate(WRONG_HISTORY):
        agent.comfy.control({**HISTORY, **rule}, {"at": "ws", "type": "execution_success", "do": "lose"})
        picture(agent.run(blue(n), f"t{n}"), rule)
        agent.comfy.control({**HISTORY, **rule})
        reply = agent.run({"1": node("TestRaise", message="no", kind="ValueError")}, f"u{n}")
        assert (reply.status, reply.code, reply.json["error"]["node_id"]) == (500, "node_error", "1"), (rule, reply)
    assert len(agent.comfy.prompts) == 2 * len(WRONG_HISTORY)


def test_history_is_late(both):
    """The end was announced, the entry comes later: neither queue nor history knows the prompt meanwhile."""
    agent = both.agent()
    agent.comfy.control({"at": "success", "do": "delay_entry", "ms": 300}, DOUBT)
    picture(agent.run(blue(), "t"))
    assert len(agent.comfy.prompts) == 1


@pytest.mark.parametrize("attempts", [1, 2])
def test_history_is_lost(both, attempts):
    """What the socket told in one piece is as good; with a gap in it, the prompt is lost, not successful."""
    agent = both.agent(env={"MAX_ATTEMPTS": str(attempts)})
    agent.comfy.control({"at": "success", "do": "lose_entry"}, DOUBT)
    picture(agent.run(blue(), "told"))
    agent.comfy.control({"at": "success", "do": "lose_entry"})
    reply = agent.run({"1": node("TestRaise", message="no", kind="ValueError")}, "raised")
    assert (reply.status, reply.code) == (500, "node_error")
    agent.comfy.control({"at": "success", "do": "lose_entry"}, {"at": "ws", "type": "executed", "do": "drop"})
    reply = agent.run(blue(2), "gap")
    record = both.document("gap~task")
    if attempts == 1:
        assert (reply.status, reply.code) == (502, "prompt_lost"), reply
        assert record["error"]["code"] == "prompt_lost"
    else:  # as if ComfyUI had been restarted
        picture(reply)
        assert record["attempt"] == 2


def test_the_queue_is_garbage_for_a_while(both):
    agent = both.agent()
    bodies = [NOISE, [], {"queue_running": 1, "queue_pending": {}},  # each look waits longer than the one before
              {"queue_running": [1, [], [0], ["x", None]]}]
    agent.comfy.control(*({**QUEUE, "do": "answer", "status": 200, "body": body, "skip": n}
                          for n, body in enumerate(bodies)), {"at": "node", "do": "hold", "class": "TestSteps"})
    waiting = later(agent.run, blue(), "t")
    agent.comfy.await_hold("node")
    agent.comfy.control({"at": "now", "do": "ws_drop"})
    until("the queue to be read", lambda: agent.comfy.state()["requests"].get("GET /queue", 0) > len(bodies))
    assert running(agent, "t")
    agent.comfy.release()
    picture(waiting.result())
    assert len(agent.comfy.prompts) == 1


@pytest.mark.long
def test_history_and_queue_are_garbage_for_good(world):
    """It cannot be told how it ended, and that is what is said."""
    agent = world.agent()
    agent.comfy.control({**HISTORY, "do": "answer", "status": 500, "times": 0},
                        {**QUEUE, "do": "answer", "status": 500, "times": 0},
                        {"at": "ws", "type": "executed", "do": "garble", "times": 0})
    reply = agent.run(blue(), "t")  # some 20 s: ten looks
    assert (reply.status, reply.code) == (502, "comfyui_garbage"), reply
    agent.comfy.reset()
    picture(agent.run(blue(2)))


# --- outputs ---------------------------------------------------------------------------------------


def test_an_output_that_is_not_there(both):
    agent = both.agent()
    agent.comfy.control({"at": "http", "route": "/view", "do": "answer", "status": 404, "body": ""})
    reply = agent.run(blue(), "t")
    assert (reply.status, reply.json["message"], reply.code) == (502, "MarshalResultError", "output_missing")
    error = reply.json["error"]
    assert (error["node_id"], error["type"]) == ("2", "output") and error["filename"].startswith("x_")
    assert both.document("t~task")["status"] == "failed"


def test_an_output_that_cannot_be_had(world):
    agent = world.agent()
    for status in (204, 206, 302, 403, 500):
        agent.comfy.control({"at": "http", "route": "/view", "do": "answer", "status": status, "body": "", "times": 0})
        reply = agent.run(blue(status))
        assert (reply.status, reply.code) == (502, "output_missing"), (status, reply)
        agent.comfy.reset()


def test_an_output_that_is_asked_for_again(world):
    agent = world.agent()
    for n, rule in enumerate(({"do": "close"}, {"do": "answer", "status": 200, "body": "",
                                               "headers": {"content-length": "x"}})):
        agent.comfy.control({"at": "http", "route": "/view", **rule})
        picture(agent.run(blue(n)), rule)


def broken(agent, prompt, task_id):
    """An error, or a 200 whose body does not come to its end: never a whole 200. Returns the status."""
    try:
        reply = agent.run(prompt, task_id)
    except (http.client.IncompleteRead, ConnectionError, http.client.HTTPException):
        return 200
    assert reply.status in (410, 502, 503), reply
    return reply.status


def large(n, name="large"):
    """One output that does not come along when it is asked for."""
    return {"1": node("TestBigImage", bytes=20_000 + n, filename_prefix=name)}


def test_an_output_of_another_length_than_was_told(both):
    agent = both.agent()
    agent.comfy.control({"at": "http", "route": "HEAD /view", "do": "answer", "status": 200, "body": ""})
    assert agent.run(blue(), "t", {"X-Fc-Invocation-Type": "Async"}).status == 202
    until("its end", lambda: agent.record("t").json["status"] == "succeeded")
    assert broken(agent, blue(), "t") == 410
    part = {"do": "answer", "status": 206, "body": "part", "headers": {"content-range": "bytes 0-3/17000"}}
    agent.comfy.control({"at": "http", "route": "GET /view", "ranged": True, **part})
    assert broken(agent, large(0), "u") == 410


BROKEN_VIEW = [
    {"do": "truncate"},
    {"do": "truncate", "bytes": 0},
    {"do": "chunked", "bytes": 40},
    {"do": "wrong_length", "by": -1},
    {"do": "wrong_length", "by": 1},
    {"do": "answer", "status": 404, "body": "gone"},
    {"do": "answer", "status": 200, "body": "another file"},
    {"do": "answer", "status": 200, "body": "x" * 100_000},
    {"do": "answer", "status": 206, "body": "part"},
    {"do": "close"},
]


def test_an_output_that_breaks_while_it_is_sent(both):
    """Before a byte of it is here the status can tell. Later the framing breaks, so that nobody takes it for whole."""
    agent = both.agent()
    for n, rule in enumerate(BROKEN_VIEW):
        agent.comfy.control({**WHOLE_VIEW, "times": 4, **rule})
        said = broken(agent, large(n), f"t{n}")
        assert (said == 200) == (rule in ({"do": "truncate"}, {"do": "chunked", "bytes": 40})), (rule, said)
        agent.comfy.reset()
        assert agent.run(large(n), f"t{n}").status == 200, "it did succeed, and can be had once ComfyUI is sane"
    assert agent.comfy.prompts == []


def test_another_output_of_the_same_length(both):
    """Somebody overwrites the file between our first look at it and its sending; or it is a refusal of that length."""
    agent = both.agent()
    agent.comfy.control({**WHOLE_VIEW, "do": "hold"})
    waiting = later(broken, agent, large(0, "big"), "t")
    agent.comfy.await_hold("http")
    (file,) = both.output.glob("big*")
    file.with_suffix(".new").write_bytes(b"x" * 20_000)
    os.utime(file.with_suffix(".new"), (1, 1))
    file.with_suffix(".new").rename(file)
    agent.comfy.release()
    assert waiting.result()
    for status in (404, 500):
        agent.comfy.control({**WHOLE_VIEW, "do": "answer", "status": status, "body": "x" * (20_000 + status)})
        assert broken(agent, large(status), f"u{status}"), status


def test_comfyui_dies_while_a_result_is_sent(both):
    agent = both.agent()
    pid = agent.comfy.state()["pid"]
    agent.comfy.control({"at": "view", "do": "exit", "code": 3})
    prompt = {"1": node("TestBigImage", bytes=8 << 20, filename_prefix="big")}
    assert broken(agent, prompt, "t")
    another_comfyui(agent, pid)
    reply = agent.run(prompt, "t")
    assert reply.status == 200 and len(reply.json["1"]["results"][0]) > 8 << 20
    assert agent.comfy.prompts == [], "it has not run again"


# --- death -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["prompt_received", "before_reply", "node", "progress", "executed", "success",
                                    "history"])
def test_comfyui_dies_at(both, moment):
    """Whatever state the task is in: it is run again, or was over already. The new process runs it once."""
    agent = both.agent()
    pid = agent.comfy.state()["pid"]
    agent.comfy.control({"at": moment, "do": "signal"})
    picture(agent.run(blue(), "t"))
    record = agent.record("t").json
    assert record["status"] == "succeeded" and record["attempt"] in (1, 2)
    assert agent.comfy.state()["pid"] != pid
    assert len(agent.comfy.prompts) == record["attempt"] - 1 or moment == "prompt_received"


def test_comfyui_dies_at_its_boot(both):
    """A task that waits for it meanwhile goes on waiting."""
    agent = both.agent(ready=False, comfy_env={"STANDIN_BOOT_MS": "100", "STANDIN_MISBEHAVE": json.dumps(
        {"at": "boot", "do": "sleep", "ms": 600})})
    until("the agent to answer", agent.answers)
    waiting = later(agent.run, blue(), "t")
    until("it to wait", lambda: agent.record("t").status == 200)
    group = until("ComfyUI to start", lambda: standin_pids(agent))
    os.kill(group[0], signal.SIGKILL)
    picture(waiting.result())
    assert agent.record("t").json["attempt"] == 1


def test_comfyui_dies_while_a_task_waits_and_while_one_is_collected(both):
    agent = both.agent()
    agent.comfy.control({"at": "http", "route": "/view", "do": "signal"})
    first = later(agent.run, blue(1), "first")
    second = later(agent.run, blue(2), "second")
    picture(first.result())
    picture(second.result())
    assert agent.record("first").json["attempt"] == 1 or agent.record("second").json["attempt"] == 1


def standin_pids(agent):
    """The stand-ins that this agent has started: those with its port in their command line."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            line = open(f"/proc/{int(name)}/cmdline", "rb").read().split(b"\0")
            if str(agent.comfy.port).encode() in line and b"--age" in line and b"comfy-agent" not in line[0]:
                found.append(int(name))
    return found


TASKS, ROUNDS, KILLS = 500, 5, 3  # in each round: more kills in a row would make the agent wait between starts


def killed_prompt(n):
    """Fast ones; every tenth raises."""
    if n % 10 == 0:
        return {"1": node("TestRaise", message=f"{n}", kind="ValueError")}
    return {**image_prompt(n, prefix=f"own{n}"), "3": node("TestSleep", ms=n % 7, seed=n)}


def pid_at_work(agent):
    """None where ComfyUI is not ready, or has ended and the agent does not know it yet."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return agent.comfy.state()["pid"] if agent.is_ready() else None


def kill_at_random(agent, dice, over):
    """Kills ComfyUI a few times, each time some moments after it began to work."""
    for _ in range(KILLS):
        pid = until("ComfyUI to work", lambda: over.is_set() or pid_at_work(agent))
        if over.wait(dice.uniform(0, 0.25)):
            return
        os.kill(pid, signal.SIGKILL)
        until("its end to be noticed", lambda: not os.path.exists(f"/proc/{pid}"))


def right_end(world, n, reply):
    """The caller was told the truth, the store says the same; the attempt that counts."""
    record = world.document(f"t{n}~task")
    if n % 10 == 0:
        assert (reply.status, reply.code, reply.json["error"]["detail"]) == (500, "node_error", f"{n}"), reply
    else:
        assert reply.status == 200, reply
        (file,) = reply.json["2"]["images"]
        assert file["filename"].startswith(f"own{n}_") and (world.output / file["filename"]).exists()
        assert reply.json["3"]["text"] == ["slept"]
    assert record["status"] == reply.headers["task-status"]
    assert world.document(f"t{n}~end.{record['attempt']}")["status"] == record["status"]
    ends = [each for each in range(1, record["attempt"] + 1) if "status" in world.document(f"t{n}~end.{each}")]
    assert ends == [record["attempt"]], "one end"
    return record["attempt"]


@pytest.mark.release
def test_500_tasks_with_comfyui_killed_at_random_moments(both):
    """Every task ends once and rightly, and none is given to ComfyUI more often than its attempts say."""
    began = time.monotonic()
    attempts = Counter()
    kills = taken = 0
    for number in range(ROUNDS):
        agent = both.agent(f"agent{number}", env={"MAX_CONCURRENCY": "4", "MAX_QUEUE": "600", "MAX_ATTEMPTS": "100"})
        over = threading.Event()
        killer = later(kill_at_random, agent, random.Random(number), over)
        mine = range(number, TASKS, ROUNDS)
        with ThreadPoolExecutor(32) as pool:
            replies = list(pool.map(lambda n: agent.run(killed_prompt(n), f"t{n}", query="?results=none"), mine))
        over.set()
        killer.result()
        attempts.update(right_end(both, n, reply) for n, reply in zip(mine, replies))
        taken += agent.text().count("got prompt")
        kills += agent.text().count("was killed by signal 9")
        agent.stop()
    took = time.monotonic() - began
    most = sum(attempt * count for attempt, count in attempts.items())
    print(f"\nComfyUI {both.age}: {TASKS} tasks, {kills} kills, {took:.1f} s\n"
          f"  ended in attempt  {dict(sorted(attempts.items()))}\n"
          f"  given to ComfyUI  {taken} times, at most {most} by the records")
    assert sum(attempts.values()) == TASKS
    assert kills >= ROUNDS
    assert taken <= most
    assert took < 60


def test_a_run_that_was_over_at_once_asks_again_for_its_outputs(both):
    """Its timer still stands at RUN_TIMEOUT: the next try must not wait for that."""
    agent = both.agent()
    agent.comfy.control({"at": "http", "route": "POST /prompt", "do": "finish"},
                        {"at": "http", "route": "/view", "do": "close", "times": 4})
    reply = agent.run(image_prompt(1), "t", timeout=20)
    assert reply.status == 200, reply
