"""A ComfyUI that is not ours, at COMFYUI_URL: it comes and goes, outlives us, and cannot be killed. What it has of
ours is asked away when nobody wants it any more."""

import json
import signal
import time

import pytest

from stores import FaultProxy
from world import ask, free_port, image_prompt, later, node, running, sleep_prompt, steps_prompt, until


def long_run(world):
    comfy = world.comfyui()
    agent = world.agent(url=comfy.url, env={"DRAIN_TIMEOUT": "1s"})
    run = later(agent.run, steps_prompt(5000, 50), "t")
    until("the task to run", lambda: running(agent, "t"))
    return comfy, agent, run


def await_a_free_end(agent, run, comfy):
    """The agent was told to stop: it does, and leaves nothing behind."""
    assert run.result().code == "stopping"
    assert agent.wait() == 0
    until("it to be free", comfy.is_idle)


def test_a_comfyui_that_is_not_ours_comes_and_goes(world):
    comfy = world.comfyui()
    agent = world.agent(url=comfy.url)
    assert agent.run(image_prompt(1)).status == 200
    comfy.process.signal(signal.SIGKILL)
    comfy.process.wait()
    until("its absence to be seen", lambda: agent.get("/readyz").status == 503)
    assert int(agent.get("/readyz").headers["retry-after"]) > 0
    waiting = later(agent.run, image_prompt(2), "t")
    until("the task to wait", lambda: agent.get("/readyz").json["tasks"]["waiting"] == 1)
    again = world.comfyui(port=comfy.port)
    assert waiting.result().status == 200
    ready = agent.get("/readyz")
    assert ready.status == 200 and ready.headers["retry-after"] is None
    agent.stop()
    assert again.process.lives, "it is not ours to end"


def test_an_address_where_nobody_is_yet(world):
    port = free_port()
    agent = world.agent(url=f"http://127.0.0.1:{port}", ready=False)
    until("the agent to answer", agent.answers)
    assert agent.get("/readyz").status == 503
    world.comfyui(port=port)
    agent.wait_ready()
    assert agent.run(image_prompt(1)).status == 200


@pytest.mark.parametrize("waits", [True, False], ids=["stopped", "left to others"])
def test_a_comfyui_that_stays_does_not_work_on_for_nobody(both, waits):
    comfy = both.comfyui()
    agent = both.agent(url=comfy.url, env={"DRAIN_TIMEOUT": "1s", "MAX_CONCURRENCY": "5"})
    headers = {} if waits else {"prefer": "respond-async"}
    runs = [later(agent.run, steps_prompt(5000, 50), f"t{n}", headers) for n in range(5)]
    until("all of them to be there", lambda: len(comfy.state()["queue"]["pending"]) == 4)
    foreign = json.dumps({"prompt": image_prompt(9), "client_id": "somebody"})
    assert ask(comfy.port, "POST", "/prompt", foreign).status == 200
    agent.signal(signal.SIGTERM)
    assert {run.result().status for run in runs} == {503 if waits else 202}
    assert agent.wait() == 0
    until("it to be free", comfy.is_idle)
    assert comfy.state()["nodes_run"] == 1 + len(image_prompt(9)), "the first, and what is not ours"


@pytest.mark.parametrize("looks", [0, 1])
def test_a_comfyui_that_stays_and_does_not_answer_holds_up_no_stop(world, looks):
    comfy = world.comfyui()
    agent = world.agent(url=comfy.url, env={"DRAIN_TIMEOUT": "1s"})
    run = later(agent.run, {"1": node("TestHang", ms=600_000)}, "t")
    until("the task to run", lambda: running(agent, "t"))
    comfy.control({"at": "http", "route": "GET /queue", "do": "hang", "times": 0, "skip": looks},
                  {"at": "http", "route": "POST /interrupt", "do": "hang", "times": 0})
    told = time.monotonic()
    agent.signal(signal.SIGTERM)
    assert (run.result().status, run.result().code) == (503, "stopping")
    assert agent.wait() == 0
    assert time.monotonic() - told < 12, "not when all else is given up"


def test_what_begins_before_it_can_be_deleted_is_interrupted(world):
    comfy = world.comfyui()
    comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
    foreign = json.dumps({"prompt": sleep_prompt(1), "client_id": "somebody"})
    assert ask(comfy.port, "POST", "/prompt", foreign).status == 200
    comfy.await_hold("node")
    agent = world.agent(url=comfy.url, env={"DRAIN_TIMEOUT": "1s"})
    run = later(agent.run, steps_prompt(5000, 50), "t")
    until("it to wait there", lambda: comfy.state()["queue"]["pending"])
    comfy.control({"at": "http", "route": "POST /queue", "do": "hold", "name": "delete"})
    agent.signal(signal.SIGTERM)
    comfy.await_hold("http")
    comfy.release()
    until("it to run", lambda: not comfy.state()["queue"]["pending"])
    comfy.release("delete")
    await_a_free_end(agent, run, comfy)


@pytest.mark.parametrize("status", [500, 200], ids=["fails", "is_lost"])
def test_an_interrupt_is_sent_again_that(world, status):
    comfy, agent, run = long_run(world)
    comfy.control({"at": "http", "route": "POST /interrupt", "do": "answer", "status": status})
    agent.signal(signal.SIGTERM)
    await_a_free_end(agent, run, comfy)


def test_who_is_frozen_at_a_stop_asks_away_what_he_has_all_the_same(world):
    comfy, agent, run = long_run(world)
    comfy.control({"at": "http", "route": "GET /queue", "do": "hold"})
    agent.signal(signal.SIGTERM)
    comfy.await_hold("http")
    agent.signal(signal.SIGSTOP)
    time.sleep(4)
    agent.signal(signal.SIGCONT)
    time.sleep(0.6)
    comfy.release()
    await_a_free_end(agent, run, comfy)


def test_what_was_heard_of_but_not_answered_is_asked_away_at_a_stop(both):
    """An old version tells its id by its news before it answers."""
    comfy = both.comfyui()
    agent = both.agent(url=comfy.url, env={"DRAIN_TIMEOUT": "1s"})
    comfy.control({"at": "http", "route": "POST /prompt", "do": "do_then_hang"})
    run = later(agent.run, steps_prompt(5000, 50), "t")
    until("it to be heard of", lambda: running(agent, "t"))
    agent.signal(signal.SIGTERM)
    await_a_free_end(agent, run, comfy)


def test_who_waits_behind_what_hangs_in_a_comfyui_that_stays_is_not_sent_again(world):
    """It cannot be killed, so what hangs is asked away, and whoever waits there need not begin anew."""
    comfy = world.comfyui()
    agent = world.agent(url=comfy.url, env={"STALL_TIMEOUT": "2s", "MAX_CONCURRENCY": "2"})
    hangs = later(agent.run, {"1": node("TestHang", ms=12_000)}, "a")
    until("it to run", lambda: running(agent, "a"))
    behind = later(agent.run, image_prompt(1), "b")
    assert hangs.result().code == "stalled"
    assert behind.result().status == 200
    assert agent.record("b").json["attempt"] == 1
    assert comfy.state()["nodes_run"] == 1 + len(image_prompt(1))
    assert comfy.state()["interrupts"]


def test_what_does_not_stop_in_a_comfyui_that_stays_is_asked_away_further(world):
    comfy = world.comfyui()
    agent = world.agent(url=comfy.url, env={"PLATFORM": "fc", "STALL_TIMEOUT": "3s"})
    hangs = {"1": node("TestHang", ms=600_000)}
    assert agent.run(hangs, "a", {"X-Fc-Function-Timeout": "2"}).code == "run_timeout"
    until("it to be given up", lambda: "is not ours to kill" in agent.log.read_text(), 30)
    asked = len(comfy.state()["interrupts"])
    until("it to be asked again", lambda: len(comfy.state()["interrupts"]) > asked)
    assert agent.run(image_prompt(1), "b", {"X-Fc-Function-Timeout": "2"}).code == "run_timeout"
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0
    assert comfy.state()["queue"]["pending"] == []


def test_what_does_not_stop_in_a_comfyui_that_stays_holds_nobody_up_for_ever(world):
    comfy = world.comfyui()
    agent = world.agent(url=comfy.url, env={"PLATFORM": "fc", "STALL_TIMEOUT": "3s", "STARTUP_TIMEOUT": "2s"})
    hangs = {"1": node("TestHang", ms=600_000)}
    assert agent.run(hangs, "a", {"X-Fc-Function-Timeout": "2"}).code == "run_timeout"
    until("it to be given up", lambda: "is not ours to kill" in agent.log.read_text(), 30)
    comfy.control({"at": "http", "route": "GET /ws", "do": "answer", "times": 0}, {"at": "now", "do": "ws_drop"})
    until("its socket to be lost", lambda: agent.get("/readyz").status == 503)
    assert (agent.run(image_prompt(1), "b").code) == "comfyui_starting"


def test_what_a_comfyui_that_was_out_of_reach_goes_on_with_is_asked_away(world):
    comfy = world.comfyui()
    with FaultProxy(comfy.port) as line:
        agent = world.agent(url=f"http://127.0.0.1:{line.port}")
        run = later(agent.run, steps_prompt(5000, 50), "t")
        until("it to run", lambda: running(agent, "t"))
        line.refuse()
        until("it to be missed", lambda: "backoff, was ready" in agent.log.read_text())
        line.accept()
        until("the first to be asked away", lambda: comfy.prompts[0]["prompt_id"] in comfy.state()["ended"])
        until("the second to run", lambda: comfy.state()["queue"]["running"] == [comfy.prompts[1]["prompt_id"]])
        assert agent.ask("DELETE", "/api/tasks/t").status == 202
        assert run.result().code == "cancelled"


def test_who_waits_for_one_that_is_away_waits_no_longer_for_what_it_had(world):
    comfy = world.comfyui()
    agent = world.agent(url=comfy.url, env={"STALL_TIMEOUT": "2s", "STARTUP_TIMEOUT": "6s"})
    run = later(agent.run, steps_prompt(5000, 50), "t")
    until("it to run", lambda: running(agent, "t"))
    comfy.process.signal(signal.SIGKILL)
    comfy.process.wait()
    assert run.result().code == "comfyui_starting"
    assert "is not ours to kill" not in agent.log.read_text(), "it was not even asked"


def test_who_was_held_up_has_the_time_of_a_start_from_when_it_went_away(world):
    comfy = world.comfyui()
    with FaultProxy(comfy.port) as line:
        agent = world.agent(url=f"http://127.0.0.1:{line.port}",
                            env={"PLATFORM": "fc", "STALL_TIMEOUT": "60s", "STARTUP_TIMEOUT": "4s"})
        hangs = {"1": node("TestHang", ms=600_000)}
        assert agent.run(hangs, "a", {"X-Fc-Function-Timeout": "2"}).code == "run_timeout"
        comfy.control({"at": "http", "route": "GET /ws", "do": "answer", "times": 0}, {"at": "now", "do": "ws_drop"})
        until("its socket to be lost", lambda: agent.get("/readyz").status == 503)
        waits = later(agent.run, image_prompt(1), "b")
        time.sleep(6)
        assert not waits.done(), "it is held up"
        line.refuse()
        until("it to be missed", lambda: "backoff, was ready" in agent.log.read_text())
        time.sleep(2)
        assert not waits.done(), "it may be back"
        assert waits.result().code == "comfyui_starting"


def test_what_was_on_its_way_when_the_line_was_cut_is_asked_away_however_long_that_takes(world):
    comfy = world.comfyui()
    comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
    foreign = json.dumps({"prompt": sleep_prompt(1), "client_id": "somebody"})
    assert ask(comfy.port, "POST", "/prompt", foreign).status == 200
    comfy.await_hold("node")
    with FaultProxy(comfy.port) as line:
        agent = world.agent(url=f"http://127.0.0.1:{line.port}", env={"STALL_TIMEOUT": "2s"})
        comfy.control({"at": "http", "route": "POST /prompt", "do": "do_then_hang"})
        run = later(agent.run, image_prompt(1), "t")
        until("it to wait there", lambda: comfy.state()["queue"]["pending"])
        line.refuse()
        until("it to be missed", lambda: "backoff, was ready" in agent.log.read_text())
        time.sleep(12)
        line.accept()
        until("the first to be deleted", lambda: comfy.state()["deleted"] == [comfy.prompts[1]["prompt_id"]])
        comfy.release()
        assert run.result().status == 200


def test_a_request_on_its_way_when_it_was_lost_is_waited_for_from_its_return(world):
    """While it was away looks, one in 2 s, have shown nothing for longer than a request is waited for."""
    comfy = world.comfyui()
    agent = world.agent(url=comfy.url)
    comfy.control({"at": "http", "route": "POST /prompt", "do": "hang"})
    run = later(agent.run, image_prompt(1), "t")
    until("it to be sent", lambda: comfy.state()["requests"].get("POST /prompt"))
    prompt_id = until("its id", lambda: (world.document("t~task") or {}).get("prompt_id"))
    comfy.control({"at": "http", "route": "GET /system_stats", "do": "answer", "status": 503, "times": 0})
    until("it to be missed", lambda: "backoff, was ready" in agent.log.read_text())
    looks = comfy.state()["requests"].get("GET /queue", 0)
    until("many looks that show nothing", lambda: comfy.state()["requests"].get("GET /queue", 0) >= looks + 7)
    comfy.reset()
    assert run.result().status == 200
    looks = comfy.state()["requests"].get("GET /queue", 0)
    until("looks that show nothing", lambda: comfy.state()["requests"].get("GET /queue", 0) >= looks + 2)
    late = json.dumps({"prompt": steps_prompt(5000, 50), "prompt_id": prompt_id})
    assert ask(comfy.port, "POST", "/prompt", late).status == 200
    until("it to be asked away", lambda: comfy.state()["interrupts"] or comfy.state()["deleted"])


def test_what_runs_is_interrupted_as_soon_as_what_waits_is_deleted(world):
    comfy = world.comfyui()
    agent = world.agent(url=comfy.url, env={"PLATFORM": "fc", "MAX_CONCURRENCY": "2"})
    comfy.control({"at": "http", "route": "POST /queue", "do": "answer", "times": 0},
                  {"at": "http", "route": "POST /interrupt", "do": "answer", "times": 0})
    both = [later(agent.run, {"1": node("TestHang", ms=600_000, seed=n)}, f"t{n}", {"X-Fc-Function-Timeout": "2"})
            for n in range(2)]
    assert {one.result().code for one in both} == {"run_timeout"}
    comfy.reset()
    until("one to be deleted", lambda: comfy.state()["deleted"])
    deleted = time.monotonic()
    until("the other to be interrupted", lambda: comfy.state()["interrupts"])
    assert time.monotonic() - deleted < 1.5, "a look more is 2 s"


def test_a_request_on_its_way_at_a_stop_is_waited_for(world):
    """Its prompt comes into the queue when the first looks have shown nothing."""
    comfy = world.comfyui()
    agent = world.agent(url=comfy.url, env={"DRAIN_TIMEOUT": "1s"})
    comfy.control({"at": "http", "route": "POST /prompt", "do": "hang"})
    run = later(agent.run, image_prompt(1), "t")
    until("it to be sent", lambda: comfy.state()["requests"].get("POST /prompt"))
    agent.signal(signal.SIGTERM)
    assert run.result().code == "stopping"
    until("looks that show nothing", lambda: comfy.state()["requests"].get("GET /queue", 0) >= 4)
    prompt_id = world.document("t~task")["prompt_id"]
    late = json.dumps({"prompt": steps_prompt(5000, 50), "prompt_id": prompt_id})
    assert ask(comfy.port, "POST", "/prompt", late).status == 200
    assert agent.wait() == 0
    until("it to be free", comfy.is_idle)


def test_what_was_given_up_and_does_not_stop_holds_up_no_stop(world):
    comfy = world.comfyui()
    agent = world.agent(url=comfy.url, env={"PLATFORM": "fc"})
    assert agent.run({"1": node("TestHang", ms=600_000)}, "t", {"X-Fc-Function-Timeout": "2"}).code == "run_timeout"
    comfy.control({"at": "http", "route": "GET /queue", "do": "hang", "times": 0})
    told = time.monotonic()
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0
    assert time.monotonic() - told < 20, "which is not DRAIN_TIMEOUT"
