"""What may happen between two steps: an end that is half stored, a ComfyUI that dies while a file is
sent to it, a caller who leaves just now, a stop in the middle."""

import http.client
import json
import os
import signal
import socket
import time


from test_trust import LEASE, later, running, two_agents
from world import image_prompt, node, sleep_prompt, steps_prompt, until

PIXEL = ("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
         "AABJRU5ErkJggg==")


def load(image):
    return {"1": node("LoadImage", image=image), "2": node("SaveImage", images=["1", 0], filename_prefix="in")}


def leave(agent, prompt, headers):
    """Sends a run and is gone when it runs."""
    connection = http.client.HTTPConnection("127.0.0.1", agent.port)
    connection.request("POST", "/api/run", json.dumps(prompt), headers)
    until("the prompt to be there", lambda: agent.comfy.prompts)
    connection.close()


def follow(agent, path):
    """The statuses that somebody hears who polls until the end."""
    heard, headers = [], {}
    while not heard or heard[-1] not in ("succeeded", "failed", "cancelled"):
        reply = agent.get(path, **headers)
        assert reply.status in (200, 304), reply
        heard.append(reply.headers["task-status"])
        headers = {"if-none-match": reply.headers["etag"]}
    return heard


# --- half stored -----------------------------------------------------------------------------------


def test_an_end_that_the_record_does_not_tell_is_told_again(world):
    comfy, agents = two_agents(world)
    agents[0].run(image_prompt(1), "t")
    agents[0].stop()
    agents[1].stop()
    ended = world.document("t~task")
    stale = {**ended, "status": "running", "rev": ended["rev"] - 1, "outputs": [], "finished": 0}
    (world.store / "t~task").write_text(json.dumps(stale))
    again = world.agent("agent3", url=comfy.url, env=LEASE)
    until("the record to tell the end", lambda: again.record("t").json["status"] == "succeeded")
    until("the stored one as well", lambda: world.document("t~task") == ended)
    assert len(comfy.prompts) == 1


def test_an_older_end_never_replaces_a_newer_record(world):
    comfy, agents = two_agents(world)
    comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    first = later(agents[0].run, steps_prompt(3), "t")
    until("the task to run", lambda: running(agents[0], "t"))
    agents[0].signal(signal.SIGSTOP)
    record = world.document("t~task")
    (world.store / "t~end.1").write_text(json.dumps({**record, "status": "failed", "error": {
        "code": "owner_died", "detail": "x"}}))
    newer = {**record, "attempt": 2, "rev": record["rev"] + 100, "status": "failed", "error": {
        "code": "node_error", "detail": "y"}}
    (world.store / "t~task").write_text(json.dumps(newer))
    comfy.release()
    time.sleep(2.2)
    agents[0].signal(signal.SIGCONT)
    assert first.result().code == "node_error"
    assert world.document("t~task") == newer


def test_who_was_frozen_changes_no_end_of_a_task_that_nobody_claimed(world):
    comfy = world.comfyui()
    frozen = world.agent("agent1", url=comfy.url, env=LEASE)
    comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    later(frozen.run, steps_prompt(3))
    until("the prompt to be there", lambda: comfy.prompts)
    (task,) = until("the task to be listed", lambda: frozen.get("/api/tasks").json["tasks"])
    until("the task to run", lambda: running(frozen, task["id"]))
    frozen.signal(signal.SIGSTOP)
    world.agent("agent2", url=comfy.url, env=LEASE)
    until("it to be ended", lambda: world.document(task["id"] + "~task")["status"] == "failed")
    ended = world.document(task["id"] + "~task")
    comfy.release()
    time.sleep(0.2)
    frozen.signal(signal.SIGCONT)
    until("it to answer", frozen.answers)
    until("it to know", lambda: frozen.record(task["id"]).json == ended)
    time.sleep(0.5)
    assert world.document(task["id"] + "~task") == ended


def test_an_accepted_task_outlives_a_store_that_is_away_when_comfyui_dies(world):
    agent = world.agent()
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
    reply = agent.run(sleep_prompt(1), "t", {"X-Fc-Invocation-Type": "Async"})
    assert reply.status == 202
    until("the task to run", lambda: running(agent, "t"))
    away = world.directory / "away"
    world.store.rename(away)
    world.store.write_text("in the way")
    os.kill(agent.comfy.state()["pid"], signal.SIGKILL)
    until("the second attempt to have been run", lambda: agent.record("t").json["status"] == "succeeded")
    world.store.unlink()
    away.rename(world.store)
    until("its end to be stored", lambda: world.document("t~task")["status"] == "succeeded")
    assert world.document("t~task")["attempt"] == 2


def test_an_end_that_was_told_stays_though_another_took_the_task_over(world):
    """Its store is away when it ends, its results are being sent, and its lease runs out."""
    agent = world.agent(env=LEASE)
    agent.comfy.control({"at": "http", "route": "GET /view", "ranged": False, "do": "hold", "name": "view"},
                        {"at": "node", "do": "hold", "class": "TestBigImage"})
    run = later(agent.run, {"1": node("TestBigImage", bytes=100_000, filename_prefix="b")}, "t")
    until("the task to run", lambda: running(agent, "t"))
    record = world.document("t~task")
    away = world.directory / "away"
    world.store.rename(away)
    world.store.write_text("in the way")
    agent.comfy.release()
    agent.comfy.await_hold("http")
    (away / "t~end.1").write_text(json.dumps({"superseded": {"instance": "other", "at": 1}}))
    newer = {**record, "attempt": 2, "rev": 1000, "instance": "other"}
    (away / "t~task").write_text(json.dumps(newer))
    world.store.unlink()
    away.rename(world.store)
    until("it to be seen", lambda: "its end is not stored" in agent.text())
    agent.comfy.release("view")
    reply = run.result()
    assert (reply.status, reply.headers["task-stored"]) == (200, "no")
    assert agent.record("t").json == newer, "who asks from now on is told what is stored"


def test_an_end_with_more_outputs_than_a_record_takes_is_stored_and_says_so(world):
    agent = world.agent()
    texts = {str(n): node("TestText", text=f"{n}" * 450_000) for n in range(10, 30)}
    assert agent.run({str(n): node("TestText", text="x" * 900_000) for n in range(9)}, "most").status == 200
    reply = agent.run(texts, "t")
    assert (reply.status, reply.headers.get("task-stored")) == (200, None), reply
    assert agent.record("t").json["truncated"] is True
    assert world.document("t~end.1") == agent.record("t").json


def test_who_polls_an_owner_that_was_superseded_hears_the_other(world):
    comfy, (owner, other) = two_agents(world)
    comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    first = later(owner.run, steps_prompt(3), "t")
    until("the task to run", lambda: running(owner, "t"))
    second = later(other.run, steps_prompt(3), "t")
    polls = [later(follow, owner, "/api/status?id=t&wait=30"), later(follow, owner, "/api/tasks/t?wait=30")]
    time.sleep(0.3)
    owner.signal(signal.SIGSTOP)
    until("the other to take over", lambda: world.document("t~run.2") is not None)
    owner.signal(signal.SIGCONT)
    time.sleep(1)
    comfy.release()
    comfy.release()
    for poll in polls:
        assert set(poll.result()) <= {"queued", "preparing", "running", "succeeded"}, poll.result()
    assert first.result().status == second.result().status == 200


def test_an_end_that_was_stored_though_no_answer_said_so_is_ours(world):
    agent = world.agent(env=LEASE)
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    run = later(agent.run, steps_prompt(3), "t")
    until("the task to run", lambda: running(agent, "t"))
    away = world.directory / "away"
    world.store.rename(away)
    world.store.write_text("in the way")
    agent.comfy.release()
    assert run.result().headers["task-stored"] == "no"
    ended = agent.get("/api/tasks/t")
    assert ended.json["status"] == "succeeded"
    (away / "t~end.1").write_bytes(ended.body)
    world.store.unlink()
    away.rename(world.store)
    until("its copies to be stored", lambda: world.document("t~task") == ended.json)


def test_what_is_read_of_a_dead_owners_prompt_can_be_looked_at_at_once(world):
    """Claimed, and its owner died before it wrote a record; the next cannot fence it yet."""
    comfy = world.comfyui()
    donor = world.agent("donor", url=comfy.url, env=LEASE)
    comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    later(donor.run, steps_prompt(3), "x")
    until("the task to run", lambda: running(donor, "x"))
    donor.signal(signal.SIGKILL)
    donor.wait()
    comfy.release()
    for name in ("x", "x~task", "x~ctl"):
        (world.store / name).unlink(missing_ok=True)
    (world.store / "x~end.1").mkdir()
    agent = world.agent(url=comfy.url, env=LEASE)
    waiting = later(agent.run, steps_prompt(3), "x")
    until("the claim to be read", lambda: "store_documents_read_total 0" not in agent.get("/metrics").body.decode())
    look = agent.get("/api/status?id=x")
    assert look.status == 200 and list(look.json) == ["1"], look
    (world.store / "x~end.1").rmdir()
    assert waiting.result().status == 200


# --- ComfyUI goes ----------------------------------------------------------------------------------


def test_comfyui_dies_while_an_input_is_sent_to_it(world):
    agent = world.agent()
    agent.comfy.control({"at": "http", "route": "POST /upload/image", "do": "signal"})
    reply = agent.run(load(PIXEL), "t")
    assert reply.status == 200, reply
    assert agent.record("t").json["attempt"] == 1, "nothing of it was lost"


def test_an_input_is_sent_again_when_its_connection_breaks(world):
    agent = world.agent()
    agent.comfy.control({"at": "http", "route": "POST /upload/image", "do": "close", "times": 2})
    reply = agent.run(load(PIXEL))
    assert reply.status == 200, reply


def test_outputs_that_cannot_be_asked_for_end_the_task_in_time(world):
    comfy = world.comfyui()
    agent = world.agent(url=comfy.url, env={"STARTUP_TIMEOUT": "2s"})
    comfy.control({"at": "http", "route": "/view", "do": "close", "times": 0})
    reply = agent.run(image_prompt(1), timeout=30)
    assert (reply.status, reply.code) == (502, "output_missing")


def test_a_prompt_that_does_not_stop_in_time_is_not_asked_a_thousand_times(world):
    agent = world.agent(env={"RUN_TIMEOUT": "500ms"})
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
    reply = later(agent.run, sleep_prompt(1))
    until("it to be interrupted", lambda: agent.comfy.state()["interrupts"])
    time.sleep(1)
    assert agent.comfy.state()["requests"]["GET /queue"] < 30
    agent.comfy.release()
    assert (reply.result().status, reply.result().code) == (504, "run_timeout")


def test_a_prompt_whose_outputs_would_be_dropped_never_succeeds_cancelled_or_not(world):
    agent = world.agent()
    agent.comfy.control({"at": "before_reply", "do": "hold"})
    prompt = {**sleep_prompt(5000), "9": node("SaveImage", images=["8", 0], filename_prefix="x")}
    waiting = later(agent.run, prompt, "t")
    until("it to be sent", lambda: agent.comfy.prompts)
    assert agent.ask("DELETE", "/api/tasks/t").status == 202
    agent.comfy.release()
    assert (waiting.result().status, waiting.result().code) == (422, "outputs_dropped")
    agent.stop()


# --- who asks, and who leaves ----------------------------------------------------------------------


def test_a_caller_who_would_have_waited_and_left_is_as_gone_as_any(world):
    agent = world.agent()
    leave(agent, steps_prompt(500, 20), {"prefer": "wait=60"})
    until("the prompt to be stopped", agent.comfy.is_idle)
    (task,) = agent.get("/api/tasks").json["tasks"]
    until("it to be cancelled", lambda: agent.record(task["id"]).json["status"] == "cancelled")


def test_a_caller_with_an_id_may_leave(world):
    agent = world.agent()
    leave(agent, steps_prompt(20, 20), {"prefer": "wait=60", "task-id": "t"})
    until("its end", lambda: agent.record("t").json["status"] == "succeeded")


def test_on_the_platform_a_request_that_comes_again_is_one_run(world):
    agent = world.agent(env={"FC_INSTANCE_ID": "c-1"})
    headers = {"x-fc-request-id": "r1", "x-fc-invocation-type": "Async"}
    first = agent.run(image_prompt(1), headers=headers)
    until("its end to be stored", lambda: world.document("r1~task")["status"] == "succeeded")
    again = agent.run(image_prompt(1), headers={**headers, "x-fc-retry-count": "1"})
    assert first.status == again.status == 200
    assert first.headers["task-id"] == again.headers["task-id"] == "r1"
    assert len(agent.comfy.prompts) == 1


def test_a_wish_reaches_the_attempt_after_a_crash(world):
    comfy, agents = two_agents(world)
    comfy.control({"at": "node", "do": "hold", "class": "TestSteps", "times": 0})
    later(agents[0].run, steps_prompt(500, 20), "t")
    until("the task to run", lambda: running(agents[0], "t"))
    joined = later(agents[1].run, steps_prompt(500, 20), "t")
    until("the wishes to have a place", lambda: world.document("t~ctl") is not None)
    agents[0].signal(signal.SIGKILL)
    agents[0].wait()
    assert agents[1].ask("DELETE", "/api/tasks/t").status == 202
    until("the second attempt", lambda: agents[1].record("t").json["attempt"] == 2)
    assert joined.result().code == "cancelled"
    comfy.reset()


def test_an_earlier_wish_is_not_for_who_asks_again(world):
    comfy, agents = two_agents(world)
    prompt = steps_prompt(250, 20)  # long enough to hear of a wish twice
    waiting = later(agents[0].run, prompt, "t")
    until("the task to run", lambda: running(agents[0], "t"))
    agents[1].ask("DELETE", "/api/tasks/t")
    assert waiting.result().code == "cancelled"
    assert agents[0].run(prompt, "t").status == 200


# --- seeds, outputs --------------------------------------------------------------------------------


def test_the_prompt_is_told_with_the_seeds_of_the_attempt_that_was_run(world):
    comfy, agents = two_agents(world)
    prompt = {"1": node("TestRaise", message="no", kind="RuntimeError"), "2": node("TestSteps", n=1, ms=1, seed=-1)}

    def told(agent, task_id):
        return agent.get(f"/api/tasks/{task_id}/prompt").json["2"]["inputs"]["seed"]

    for agent in agents:
        assert agent.run(prompt, "t").status == 500
        seed = agent.record("t").json["seeds"]["2.seed"]
        assert [told(each, "t") for each in agents] == [seed, seed]
    comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    steps = {"2": node("TestSteps", n=1, ms=1, seed=-1)}
    waiting = [later(agents[0].run, steps, "u")]
    until("the task to run", lambda: running(agents[0], "u"))
    waiting.append(later(agents[1].run, steps, "u"))
    time.sleep(0.3)
    assert told(agents[0], "u") == told(agents[1], "u")
    comfy.release()
    assert [each.result().status for each in waiting] == [200, 200]


def test_a_replay_whose_outputs_are_gone_is_no_200(world):
    agent = world.agent()
    reply = agent.run(image_prompt(1), "t")
    file = world.output / reply.json["2"]["images"][0]["filename"]
    old = file.read_bytes()
    file.write_bytes(old[::-1])
    reply = agent.run(image_prompt(1), "t")
    assert (reply.status, reply.code) == (410, "output_changed"), reply
    file.unlink()
    reply = agent.run(image_prompt(1), "t")
    assert (reply.status, reply.code) == (410, "output_gone"), reply
    reply = agent.run(image_prompt(1), "t", query="?results=none")
    assert reply.status == 200, "the node map is there all the same"


# --- stops -----------------------------------------------------------------------------------------


def test_a_stop_waits_for_no_address_that_does_not_answer(world):
    silent = socket.create_server(("127.0.0.1", 0))
    agent = world.agent(env={"FETCH_ALLOW": "127.0.0.1", "DRAIN_TIMEOUT": "1s"})
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.png"
    waiting = later(agent.run, load(url), "t")
    until("the task to be prepared", lambda: agent.record("t").status == 200 and
          agent.record("t").json["status"] == "preparing")
    agent.stop()
    assert (waiting.result().status, waiting.result().code) == (503, "stopping")
    assert world.document("t~task")["status"] == "failed"
    silent.close()


def test_an_async_run_is_left_by_a_stop_as_by_a_death(world):
    comfy = world.comfyui()
    agent = world.agent(url=comfy.url, env={"DRAIN_TIMEOUT": "300ms"})
    comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
    assert agent.run(sleep_prompt(1), "t", {"X-Fc-Invocation-Type": "Async"}).status == 202
    until("the task to run", lambda: running(agent, "t"))
    agent.stop()
    assert world.document("t~task")["status"] in ("queued", "running")
    assert world.document("t~end.1") is None
    comfy.release()
