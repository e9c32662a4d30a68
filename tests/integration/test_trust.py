"""What makes a task something to put money on: one id is one run, whoever asks and whoever dies."""

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from world import image_prompt, later, node, running, sleep_prompt, steps_prompt, until

LEASE = {"LEASE_TIMEOUT": "2s", "MAX_CONCURRENCY": "4"}


def two_agents(world, env=None):
    comfy = world.comfyui()
    settings = {**LEASE, **(env or {})}
    return comfy, [world.agent(f"agent{n}", url=comfy.url, env=settings) for n in (1, 2)]


# --- ids -----------------------------------------------------------------------------------------


def test_one_id_sent_to_two_agents_at_once_is_one_prompt(world):
    comfy, agents = two_agents(world)
    with ThreadPoolExecutor(2) as pool:
        for n in range(100):
            both = [pool.submit(agent.run, image_prompt(n), f"t{n}") for agent in agents]
            first, second = (each.result() for each in both)
            assert first.status == second.status == 200, (first, second)
            assert first.body == second.body
            assert first.headers["task-id"] == f"t{n}"
    assert len(comfy.prompts) == 100


def test_the_same_id_and_prompt_again_is_a_replay(world):
    agent = world.agent()
    first = agent.run(image_prompt(7), "t")
    again = agent.run(image_prompt(7), "t")
    assert first.status == again.status == 200
    assert first.body == again.body
    assert len(agent.comfy.prompts) == 1
    assert agent.record("t").json["attempt"] == 1


def test_a_replay_outlives_the_agent(world):
    comfy, agents = two_agents(world)
    first = agents[0].run(image_prompt(7), "t")
    agents[0].stop()
    again = agents[1].run(image_prompt(7), "t")
    assert first.body == again.body
    assert len(comfy.prompts) == 1


def test_a_request_id_is_an_id_like_any_other(world):
    comfy, (agent, other) = two_agents(world)
    asked = {"x-fc-request-id": "r1"}
    assert agent.run(image_prompt(1), headers=asked).status == 200
    record = agent.record("r1").json
    for asks in (agent, other):  # what it was is remembered, and read from the store
        assert asks.run(image_prompt(2), headers=asked).status == 409
        assert asks.run(image_prompt(1), headers=asked).status == 200
        assert asks.record("r1").json == record
    assert len(comfy.prompts) == 1


def test_what_one_instance_answered_the_other_does_not_deny(world):
    comfy, agents = two_agents(world)
    for n in range(3):  # the other may happen to look just then
        comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
        first = later(agents[0].run, steps_prompt(3, seed=n), f"t{n}")
        until("the task to run", lambda: running(agents[0], f"t{n}"))
        second = later(agents[1].run, steps_prompt(3, seed=n), f"t{n}")
        time.sleep(1.5)  # the longer nothing happens, the more seldom it looks
        comfy.release()
        assert first.result().status == 200
        told = {task["id"]: task["status"] for task in agents[1].get("/api/tasks").json["tasks"]}
        assert told[f"t{n}"] == "succeeded"
        assert agents[1].record(f"t{n}").json["status"] == "succeeded"
        assert second.result().status == 200


def test_what_was_told_is_not_taken_back_while_others_poll(world):
    comfy, agents = two_agents(world)
    first = later(agents[0].run, steps_prompt(300, 10), "t")
    until("the task to run", lambda: running(agents[1], "t"))
    over = threading.Event()

    def poll():
        while not over.is_set():
            agents[1].record("t")

    pollers = [later(poll) for _ in range(3)]
    told = agents[1].record("t")
    while told.json["status"] == "running":
        told = agents[1].get("/api/tasks/t?wait=30", **{"if-none-match": told.headers["etag"]})
        assert agents[1].record("t").json["rev"] >= told.json["rev"]
    over.set()
    for each in (first, *pollers):
        each.result()


def test_the_same_id_with_other_targets_is_409(world):
    """Else its 200 would be without the outputs that were asked for."""
    agent = world.agent()
    prompt = {"1": node("TestText", text="x"), "2": node("TestText", text="y")}

    def run(targets):
        return agent.run(json.dumps({"prompt": prompt, "partial_execution_targets": targets}), "t")

    assert run(["1"]).status == 200
    assert run(["1"]).status == 200
    assert (run(["2"]).status, run(["2"]).code) == (409, "other_prompt")
    assert agent.run(prompt, "t").status == 409
    assert len(agent.comfy.prompts) == 1


def test_the_same_id_with_another_prompt_is_409(world):
    comfy, agents = two_agents(world)
    waiting = later(agents[0].run, steps_prompt(20), "t")
    until("the task to run", lambda: running(agents[0], "t"))
    for agent in agents:  # while it runs: here and elsewhere
        reply = agent.run(image_prompt(2), "t")
        assert (reply.status, reply.code) == (409, "other_prompt")
    assert waiting.result().status == 200
    for agent in agents:  # and afterwards
        assert agent.run(image_prompt(2), "t").status == 409
    assert len(comfy.prompts) == 1


def test_an_end_that_failed_is_tried_again_when_asked_for(world):
    comfy, agents = two_agents(world)
    prompt = {"1": node("TestRaise", message="no", kind="RuntimeError")}
    assert agents[0].run(prompt, "t").status == 500
    assert agents[1].run(prompt, "t").status == 500
    record = agents[0].record("t").json
    assert record["attempt"] == 2
    assert len(comfy.prompts) == 2


def test_a_redelivery_of_an_end_not_worth_repeating_is_a_replay(world):
    agent = world.agent()
    prompt = {"1": node("TestRaise", message="no", kind="RuntimeError")}
    first = agent.run(prompt, "t", {"x-fc-request-id": "r1"})
    same_request = agent.run(prompt, "t", {"x-fc-request-id": "r1"})
    counted = agent.run(prompt, "t", {"x-fc-request-id": "r2", "x-fc-retry-count": "1"})
    assert first.status == same_request.status == counted.status == 500
    assert first.json == same_request.json == counted.json
    assert len(agent.comfy.prompts) == 1


def test_revisions_grow_over_attempts(world):
    agent = world.agent()
    prompt = {"1": node("TestRaise", message="no", kind="RuntimeError")}
    agent.run(prompt, "t")
    first = agent.record("t").json
    agent.run(prompt, "t")
    second = agent.record("t").json
    assert second["attempt"] == first["attempt"] + 1
    assert second["rev"] > first["rev"]


# --- owners die ----------------------------------------------------------------------------------


def test_an_owner_that_is_killed_is_followed_by_another(world):
    comfy, agents = two_agents(world)
    prompt = steps_prompt(10, 20, seed=-1)
    comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    later(agents[0].run, prompt, "t")
    until("the task to run", lambda: running(agents[0], "t"))
    joined = later(agents[1].run, prompt, "t")
    seed = agents[0].record("t").json["seeds"]["1.seed"]
    time.sleep(0.3)
    agents[0].signal(signal.SIGKILL)
    agents[0].wait()
    comfy.release()
    reply = joined.result()
    assert reply.status == 200, reply
    record = agents[1].record("t").json
    assert record["status"] == "succeeded"
    assert record["attempt"] == 2
    assert record["seeds"]["1.seed"] == seed, "the same seeds in every attempt"
    assert world.document("t~end.1")["superseded"]
    assert world.document("t~end.2")["status"] == "succeeded"


def frozen_owner(world):
    """The first agent is frozen with "t" running; the second has taken it over and brought it to its end. Both,
    and the first one's caller, who waits."""
    comfy, agents = two_agents(world)
    prompt = steps_prompt(10, 20)
    comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    first = later(agents[0].run, prompt, "t")
    until("the task to run", lambda: running(agents[0], "t"))
    joined = later(agents[1].run, prompt, "t")
    time.sleep(0.2)
    agents[0].signal(signal.SIGSTOP)
    until("the other to take over", lambda: agents[1].record("t").json["attempt"] == 2)
    comfy.release()
    assert joined.result().status == 200
    return agents, first


def test_an_owner_that_is_frozen_past_its_lease_writes_nothing_when_it_thaws(world):
    agents, first = frozen_owner(world)
    ended = world.document("t~task")
    assert ended["attempt"] == 2 and ended["status"] == "succeeded"
    agents[0].signal(signal.SIGCONT)
    assert first.result().status == 200, "it gets the end that counts"
    time.sleep(0.5)
    assert world.document("t~task") == ended
    assert agents[0].record("t").json == ended


def test_an_owner_that_thaws_does_not_tell_how_it_was(world):
    """Who asked while it was frozen is answered before it has found out that it is the owner no more."""
    agents, _ = frozen_owner(world)
    asked = [later(agents[0].record, "t") for _ in range(3)] + [later(agents[0].get, "/api/status?id=t")]
    time.sleep(0.3)
    agents[0].signal(signal.SIGCONT)
    *records, status = (reply.result() for reply in asked)
    assert [(reply.json["status"], reply.json["attempt"]) for reply in records] == [("succeeded", 2)] * 3
    assert status.headers["task-status"] == "succeeded"


def test_an_owner_that_thaws_does_not_tell_of_an_attempt_that_others_have_ended(world):
    """There is no further attempt: the record is of the same one, and has fewer revisions than the owner knows of."""
    _, agents = two_agents(world, {"MAX_ATTEMPTS": "1"})
    prompt = steps_prompt(200, 20)
    later(agents[0].run, prompt, "t")
    until("the task to run", lambda: running(agents[0], "t"))
    until("many revisions", lambda: agents[0].record("t").json["rev"] > 20)
    joined = later(agents[1].run, prompt, "t")
    agents[0].signal(signal.SIGSTOP)
    assert joined.result().code == "owner_died"
    ended = world.document("t~task")
    assert (ended["status"], ended["attempt"]) == ("failed", 1)
    asked = [later(agents[0].record, "t") for _ in range(3)]
    time.sleep(0.3)
    agents[0].signal(signal.SIGCONT)
    assert [reply.result().json for reply in asked] == [ended] * 3


def test_who_waits_at_an_owner_that_thaws_is_not_told_how_it_was(world):
    """Nor who lists them. The owner finds what ComfyUI has said meanwhile before it finds that others have ended it."""
    comfy, agents = two_agents(world, {"MAX_ATTEMPTS": "1"})
    prompt = steps_prompt(500, 20)
    comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    later(agents[0].run, prompt, "t")
    until("the task to run", lambda: running(agents[0], "t"))
    joined = later(agents[1].run, prompt, "t")
    news = [later(agents[0].get, path) for path in ("/api/tasks/t?wait=30", "/api/status?id=t&wait=30")]
    time.sleep(0.3)
    agents[0].signal(signal.SIGSTOP)
    comfy.release()
    assert joined.result().code == "owner_died"
    ended = world.document("t~task")
    listed = [later(agents[0].get, "/api/tasks") for _ in range(3)]
    time.sleep(0.3)
    agents[0].signal(signal.SIGCONT)
    assert news[0].result().json == ended
    assert news[1].result().headers["task-status"] == "failed"
    assert [reply.result().json["tasks"][0]["status"] for reply in listed] == ["failed"] * 3
    time.sleep(4)  # longer than its lease: whoever is no owner any more does not end it once more
    assert world.document("t~task") == ended and world.document("t~end.2") is None


def test_an_owner_that_thaws_and_still_is_one_lists_nothing_older(world):
    """It asks the store, which is some revisions behind."""
    agent = world.agent(env=LEASE)
    later(agent.run, steps_prompt(800, 10), "t")
    until("the task to run", lambda: running(agent, "t"))
    for _ in range(4):
        rev = agent.record("t").json["rev"]
        agent.signal(signal.SIGSTOP)
        listed = later(agent.get, "/api/tasks")
        time.sleep(1.5)
        agent.signal(signal.SIGCONT)
        (task,) = listed.result().json["tasks"]
        assert (task["status"], task["rev"] >= rev) == ("running", True)


@pytest.mark.long
def test_a_list_does_not_wait_for_an_end_that_is_slowly_stored(world):
    """Each operation takes so long that the page, that end and its record would be too much for one answer."""
    agent = world.agent(env={"STORE_URL": "mem:?delay_ms=4500"})
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    run = later(agent.run, steps_prompt(3), "t")
    until("the prompt to be there", lambda: agent.comfy.prompts)
    listed = later(agent.get, "/api/tasks")
    time.sleep(2)
    agent.comfy.release()
    reply = listed.result()
    assert (reply.status, [task["status"] for task in reply.json["tasks"]]) == (200, ["running"])
    assert not run.done() and run.result().status == 200


def test_who_waits_is_told_of_changes_while_the_store_is_away(world):
    """Its owner is not sure of it any more, and nobody knows better."""
    agent = world.agent(env={"LEASE_TIMEOUT": "1s"})
    later(agent.run, steps_prompt(400, 20), "t")
    until("the task to run", lambda: running(agent, "t"))
    world.store.rename(world.directory / "away")
    world.store.write_text("no directory")
    time.sleep(2)
    began = time.monotonic()
    for _ in range(3):
        reply = agent.get("/api/tasks/t?wait=30")
        assert reply.json["status"] == "running", reply
    assert time.monotonic() - began < 15
    world.store.unlink()
    (world.directory / "away").rename(world.store)
    until("its end to be stored", lambda: (world.document("t~task") or {}).get("status") == "succeeded")


def test_a_task_whose_agent_died_is_taken_up_by_the_next(world):
    comfy = world.comfyui()
    comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    agent = world.agent("agent1", url=comfy.url, env=LEASE)
    later(agent.run, steps_prompt(5), "t")
    later(agent.run, steps_prompt(6))  # nobody can ask for this one again
    until("the task to run", lambda: running(agent, "t"))
    until("both to be there", lambda: len(comfy.prompts) == 2)
    agent.signal(signal.SIGKILL)
    agent.wait()
    comfy.release()
    again = world.agent("agent2", url=comfy.url, env=LEASE)
    until("its end", lambda: again.record("t").json["status"] == "succeeded")
    assert again.record("t").json["attempt"] == 2
    tasks = again.get("/api/tasks").json["tasks"]
    other = next(task for task in tasks if task["id"] != "t")
    until("the other's end", lambda: again.record(other["id"]).json["status"] == "failed")
    assert again.record(other["id"]).json["error"]["code"] == "owner_died"
    assert len(comfy.prompts) == 3


def claimed_by_the_dead(world, agent, prompt, /, **more):
    """As an owner of `prompt` leaves it who dies with his claim made, and nothing else."""
    agent.run(prompt, "sample")
    sha256 = agent.record("sample").json["prompt_sha256"]
    claim = {"claim": {"instance": "dead", "nonce": "n", "at": 1}, "prompt_sha256": sha256, "seeds": {}} | more
    (world.store / "t~run.1").write_text(json.dumps(claim))
    return sha256


def test_who_brings_the_prompt_again_that_died_unstored_has_it_run(world):
    """A large prompt lies beside the claim: its owner was killed between the two documents."""
    agent = world.agent(env=LEASE)
    claimed_by_the_dead(world, agent, image_prompt())
    reply = agent.run(image_prompt(), "t")
    assert reply.status == 200, reply
    assert agent.record("t").json["attempt"] == 2
    assert world.document("t~end.1")["superseded"]


def test_the_seeds_that_are_told_are_those_that_ran(world):
    """With a record there were seeds, and they have gone with the prompt that was not kept."""
    agent = world.agent(env=LEASE)
    sha256 = claimed_by_the_dead(world, agent, steps_prompt(3, seed=-1), seeds={"1.seed": 4711})
    record = agent.record("sample").json | {"id": "t", "status": "running", "seeds": {"1.seed": 4711}, "outputs": []}
    (world.store / "t~task").write_text(json.dumps(record))
    reply = agent.run(steps_prompt(3, seed=-1), "t")
    assert (reply.status, reply.code) == (502, "owner_died")
    assert agent.record("t").json["prompt_sha256"] == sha256


def test_what_a_dead_owner_was_to_run_is_not_run_for_another_prompt(world):
    agent = world.agent(env=LEASE)
    claimed_by_the_dead(world, agent, image_prompt(), prompt=image_prompt())
    assert agent.run(steps_prompt(3), "t").status == 409


def test_an_end_is_told_when_it_is_stored(world):
    """By no route: nobody who is told of it now may be told otherwise after we have died."""
    agent = world.agent(env={"STORE_URL": "mem:?delay_ms=1000"})
    posted = later(lambda: (agent.run(image_prompt(), "t"), time.monotonic()))

    def record():
        reply = agent.record("t")
        return reply.status == 200 and reply.json["status"]

    def listed():
        return agent.get("/api/tasks").body.count(b"succeeded") and "succeeded"

    def enqueued():
        return agent.run(image_prompt(), "t", {"x-fc-invocation-type": "Async"}).headers.get("task-status")

    def joined():
        return agent.run(image_prompt(), "t", {"prefer": "wait=0"}).headers.get("task-status")

    def told(look):
        return until("the end to be told", lambda: look() == "succeeded" and time.monotonic())

    first = [later(told, look) for look in (record, listed, enqueued, joined)]
    reply, answered = posted.result()
    assert reply.status == 200
    assert [each.result() > answered - 0.5 for each in first] == [True] * 4


@pytest.mark.long
@pytest.mark.parametrize("store", [None, "mem:?delay_ms=300"])
@pytest.mark.parametrize("steps, ms", [(3, 10), (60, 30)])
def test_what_is_told_never_goes_back(world, store, steps, ms):
    """Whether it comes from memory or from the store, which is behind."""
    agent = world.agent(env={"STORE_URL": store} if store else None)
    told = []
    for n in range(1 if store else 10):
        posted = later(agent.run, steps_prompt(steps, ms, n), f"t{n}")
        told.append([])
        while not posted.done():
            reply = agent.record(f"t{n}")
            if reply.status == 200 or told[-1]:
                told[-1].append((reply.status, reply.json.get("rev")))
            listed = agent.get("/api/tasks?limit=1").json["tasks"]
            told[-1] += [(200, task["rev"]) for task in listed if task["id"] == f"t{n}"]
    assert any(len(each) > (1 if store else 5) for each in told)
    for each in told:
        assert each == sorted(each)


# --- ComfyUI dies --------------------------------------------------------------------------------


def test_a_run_whose_comfyui_dies_is_submitted_again(both):
    agent = both.agent()
    pid = agent.comfy.state()["pid"]
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    waiting = later(agent.run, steps_prompt(5, seed=-1), "t")
    until("the task to run", lambda: running(agent, "t"))
    seed = agent.record("t").json["seeds"]
    os.kill(pid, signal.SIGKILL)
    reply = waiting.result()
    assert reply.status == 200, reply
    record = agent.record("t").json
    assert record["attempt"] == 2 and record["seeds"] == seed


def test_the_attempts_are_used_up_by_a_prompt_that_kills_comfyui(world):
    agent = world.agent()
    reply = agent.run({"1": node("TestCrash", how="kill", code=1)}, "t")
    assert (reply.status, reply.code) == (502, "comfyui_died")
    assert reply.json["error"]["exit"]["signal"] == 9
    assert "log_tail" in reply.json["error"]
    record = agent.record("t").json
    assert record["status"] == "failed" and record["attempt"] == 2


def test_what_waits_goes_on_when_comfyui_comes_back(world):
    agent = world.agent()
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
    first = later(agent.run, sleep_prompt(1), "first")
    until("the first to run", lambda: running(agent, "first"))
    others = [later(agent.run, image_prompt(n), f"t{n}") for n in range(5)]
    until("the others to wait", lambda: agent.get("/readyz").json["tasks"]["waiting"] == 5)
    os.kill(agent.comfy.state()["pid"], signal.SIGKILL)
    assert first.result().status == 200
    assert [each.result().status for each in others] == [200] * 5
    assert all(agent.record(f"t{n}").json["attempt"] == 1 for n in range(5))


# --- cancelling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("elsewhere", [False, True])
def test_cancel_a_running_task(world, elsewhere):
    comfy, agents = two_agents(world)
    waiting = later(agents[0].run, steps_prompt(2000, 20), "t")
    until("the task to run", lambda: running(agents[0], "t"))
    asked = agents[1 if elsewhere else 0]
    with ThreadPoolExecutor(10) as pool:  # ten times at once
        replies = list(pool.map(lambda _: asked.ask("DELETE", "/api/tasks/t"), range(10)))
    assert {reply.status for reply in replies} <= {200, 202}, replies
    reply = waiting.result()
    assert (reply.status, reply.code) == (500, "cancelled")
    assert agents[1].record("t").json["status"] == "cancelled"
    assert agents[0].ask("DELETE", "/api/tasks/t").status == 200
    assert comfy.is_idle()


def test_cancel_a_waiting_task_leaves_the_running_one_alone(world):
    agent = world.agent()
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
    first = later(agent.run, sleep_prompt(1), "first")
    until("the first to run", lambda: running(agent, "first"))
    second = later(agent.run, image_prompt(1), "second")
    until("it to wait", lambda: agent.record("second").json.get("queue_position") == 0)
    assert agent.ask("DELETE", "/api/tasks/second").status == 202
    assert second.result().code == "cancelled"
    agent.comfy.release()
    assert first.result().status == 200
    assert len(agent.comfy.prompts) == 1
    assert agent.comfy.state()["interrupts"] == []


def test_cancel_what_is_not_known(world):
    agent = world.agent()
    assert agent.ask("DELETE", "/api/tasks/nobody").status == 404
    assert agent.ask("DELETE", "/api/tasks/..").status in (400, 404)
    agent.run(image_prompt(1), "t")
    reply = agent.ask("DELETE", "/api/tasks/t")
    assert (reply.status, reply.json["status"]) == (200, "succeeded")


# --- async, prefer, leaving ----------------------------------------------------------------------


def test_an_async_call_is_answered_when_it_is_stored(world):
    agent = world.agent()
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
    reply = agent.run(sleep_prompt(1), headers={"X-Fc-Invocation-Type": "Async"})
    task_id = reply.headers["task-id"]
    assert (reply.status, reply.body) == (202, b"")
    assert reply.headers["location"] == f"/api/tasks/{task_id}"
    assert reply.headers["x-fc-request-id"]
    assert world.document(f"{task_id}~task")
    assert agent.get(f"/api/status?id={task_id}").status == 200
    agent.comfy.release()
    until("its end", lambda: agent.record(task_id).json["status"] == "succeeded")


def test_an_async_call_that_cannot_be_stored_is_refused(world):
    agent = world.agent()
    world.store.mkdir(exist_ok=True)
    for path in world.store.iterdir():
        path.unlink()
    world.store.rmdir()
    world.store.write_text("in the way")
    reply = agent.run(image_prompt(1), headers={"X-Fc-Invocation-Type": "Async"})
    assert reply.status == 503, reply
    world.store.unlink()


def test_prefer_wait_gives_the_result_or_a_place_to_look(world):
    agent = world.agent()
    quick = agent.run(image_prompt(1), headers={"prefer": "respond-async, wait=30"})
    assert quick.status == 200 and quick.json["2"]["results"]
    slow = agent.run(steps_prompt(200, 20), headers={"prefer": "wait=0"})
    assert slow.status == 202
    place = slow.headers["location"]
    assert agent.get(place).status == 200
    agent.ask("DELETE", place)
    until("its end", lambda: agent.get(place).json["status"] == "cancelled")


def test_accept_a_picture(world):
    agent = world.agent()
    reply = agent.run(image_prompt(1), headers={"accept": "image/*"})
    assert reply.headers["content-type"] == "image/png"
    assert reply.body.startswith(b"\x89PNG") and reply.headers["task-id"]
    assert agent.run(image_prompt(2), headers={"accept": "text/html,image/png,*/*"}).json
    none = agent.run({"1": node("TestText", text="hi")}, headers={"accept": "video/mp4"})
    assert none.status == 406


# --- outputs and lists ---------------------------------------------------------------------------


def test_outputs_have_a_size_a_type_and_ranges(world):
    agent = world.agent()
    agent.run({"1": node("TestVideo", bytes=1000)}, "t")
    (output,) = agent.record("t").json["outputs"]
    assert output["media_type"] == "video/mp4" and output["size"] == 1000
    whole = agent.get(output["url"])
    part = agent.get(output["url"], range="bytes=10-19")
    assert whole.status == 200 and len(whole.body) == 1000
    assert part.status == 206 and part.body == whole.body[10:20]
    assert agent.ask("HEAD", output["url"]).headers["content-length"] == "1000"
    none = agent.get(output["url"], range="bytes=5000-")
    assert (none.status, none.code, none.headers["content-range"]) == (416, "no_such_range", "bytes */1000")
    assert none.headers["content-type"] == "application/json" and none.json["message"] == "RequestParamsError"
    none = agent.ask("HEAD", output["url"], headers={"range": "bytes=5000-"})
    assert (none.status, none.headers["content-range"]) == (416, "bytes */1000")
    assert agent.get("/api/tasks/t/outputs/1").status == 404
    assert agent.get("/api/tasks/t/outputs/x").status == 404


def test_a_task_that_runs_has_no_outputs_yet(world):
    agent = world.agent()
    agent.comfy.control({"at": "node", "do": "hold"})
    run = later(agent.run, image_prompt(1), "t")
    until("it to run", lambda: running(agent, "t"))
    reply = agent.get("/api/tasks/t/outputs/0")
    assert (reply.status, reply.code) == (404, "not_ended")
    agent.comfy.release()
    assert run.result().status == 200
    assert agent.get("/api/tasks/t/outputs/0").status == 200
    assert agent.get("/api/tasks/t/outputs/1").code == "no_such_output"


def test_an_output_that_is_gone_or_another_is_410(world):
    agent = world.agent()
    agent.run(image_prompt(1), "t")
    (output,) = agent.record("t").json["outputs"]
    file = world.output / output["filename"]
    old = file.read_bytes()
    file.write_bytes(old[::-1])
    reply = agent.get(output["url"])
    assert (reply.status, reply.code) == (410, "output_changed")
    file.unlink()
    reply = agent.get(output["url"])
    assert (reply.status, reply.code) == (410, "output_gone")


@pytest.mark.parametrize("broken", [{"status": 500}, {"status": 200, "body": "", "headers": {"x y": "z"}}])
def test_a_comfyui_that_does_not_give_an_output_is_502(world, broken):
    made = world.agent("before")
    made.run(image_prompt(1), "t")
    made.stop()
    agent = world.agent()  # which has kept nothing
    agent.comfy.control({"at": "http", "route": "/view", "do": "answer", "times": 0, **broken})
    for reply in (agent.run(image_prompt(1), "t"), agent.run(image_prompt(1), "t", {"accept": "image/*"}),
                  agent.get("/api/tasks/t/outputs/0")):
        assert (reply.status, reply.code) == (502, "comfyui_error"), reply
    agent.comfy.reset()
    assert agent.run(image_prompt(1), "t").json["2"]["results"]


def test_a_cached_run_whose_file_was_deleted_is_run_once_more(both):
    agent = both.agent()
    agent.run(image_prompt(1), "first")
    for file in both.output.glob("*.png"):
        file.unlink()
    reply = agent.run(image_prompt(1), "second")
    assert reply.status == 200, reply
    assert reply.json["2"]["results"]
    assert agent.comfy.state()["requests"]["POST /free"] == 1


FREE = {"at": "http", "route": "POST /free", "do": "answer"}


@pytest.mark.parametrize("rule,frees,status", [
    ({"at": "now", "do": "doze"}, 1, 200),
    ({**FREE, "status": 500}, 2, 200),
    ({**FREE, "status": 200, "times": 0}, 1, 502)], ids=["late", "refused", "never"])
def test_a_cache_that_is_not_forgotten_at_once_is_waited_for(world, rule, frees, status):
    """ComfyUI's worker looks at that between two prompts: behind the next one, if that was faster. Asked a second
    time, it would unload the models that the task after this one needs."""
    agent = world.agent()
    agent.run(image_prompt(1), "first")
    for file in world.output.glob("*.png"):
        file.unlink()
    agent.comfy.control(rule)
    reply = agent.run(image_prompt(1), "second")
    assert reply.status == status and (status == 200 or reply.code == "output_missing"), reply
    assert agent.comfy.state()["requests"]["POST /free"] == frees
    assert len(agent.comfy.prompts) == 4


def test_an_attempt_for_a_missing_file_uses_up_none_of_max_attempts(world):
    agent = world.agent()
    agent.run(image_prompt(1), "first")
    for file in world.output.glob("*.png"):
        file.unlink()
    agent.comfy.control({"at": "node", "do": "exit"})
    assert agent.run(image_prompt(1), "second").status == 200
    assert agent.record("second").json["attempt"] == 3


def test_the_prompt_as_it_was_run(world):
    comfy, agents = two_agents(world)
    sent = '{"1": {"class_type": "TestSteps", "inputs": {"seed":-1 ,"n":1,  "ms":1.0}}}'
    reply = agents[0].run(sent, "t")
    seed = agents[0].record("t").json["seeds"]["1.seed"]
    assert reply.status == 200
    for agent in agents:
        assert agent.get("/api/tasks/t/prompt").body.decode() == sent.replace("-1", str(seed))
    large = {"1": node("TestText", text="x" * 100_000)}
    agents[0].run(large, "large")
    assert agents[1].get("/api/tasks/large/prompt").json == large
    assert agents[0].get("/api/tasks/nobody/prompt").status == 404


def test_the_list_pages_from_the_newest(world):
    comfy, agents = two_agents(world)
    for n in range(25):
        agents[n % 2].run(image_prompt(n), f"t{n:02}")
    agents[0].run({"1": node("TestRaise", message="no", kind="RuntimeError")}, "bad")
    seen = []
    cursor = ""
    while True:
        page = agents[1].get(f"/api/tasks?limit=10{cursor}").json
        seen += [task["id"] for task in page["tasks"]]
        assert all("nodes" not in task for task in page["tasks"])
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert sorted(seen) == sorted([f"t{n:02}" for n in range(25)] + ["bad"])
    assert seen[0] == "bad" and seen == sorted(seen, key=lambda i: (i == "bad", i), reverse=True)
    failed = agents[0].get("/api/tasks?status=failed").json["tasks"]
    assert [task["id"] for task in failed] == ["bad"]
    assert agents[0].get("/api/tasks?status=odd").status == 400
    assert agents[0].get("/api/tasks?limit=0").status == 400


def test_a_list_by_status_goes_on_exactly_where_it_ended(world):
    comfy, agents = two_agents(world)
    bad = {"1": node("TestRaise", message="no", kind="RuntimeError")}
    for n in range(16):
        agents[n % 2].run(bad if n % 3 == 0 else image_prompt(n), f"t{n:02}")
    for agent in agents:  # some are in its memory, the others in the store
        for limit in (1, 2, 5):
            seen = []
            cursor = ""
            while True:
                page = agent.get(f"/api/tasks?status=failed&limit={limit}{cursor}").json
                seen += [task["id"] for task in page["tasks"]]
                if page["cursor"] is None:
                    break
                assert len(page["tasks"]) == limit
                cursor = f"&cursor={page['cursor']}"
            assert seen == ["t15", "t12", "t09", "t06", "t03", "t00"]


def test_a_record_that_cannot_be_read_hides_no_other(world):
    agent = world.agent("agent1")
    for n in range(3):
        agent.run(image_prompt(n), f"t{n}")
    agent.stop()
    (world.store / "empty~task").write_bytes(b"")
    with open(world.store / "huge~task", "wb") as huge:
        huge.truncate(16 * 1024 * 1024 + 1)
    again = world.agent("agent2")
    assert [task["id"] for task in again.get("/api/tasks").json["tasks"]] == ["t2", "t1", "t0"]
    again.stop()
    last = world.agent("agent3", env={"TASK_KEEP": "1ms"})
    until("the others to be removed", lambda: {path.name for path in world.store.iterdir()} ==
          {"empty~task", "huge~task"})
    for key in ("empty~task", "huge~task"):
        assert f"{key} cannot be read" in last.text()


def test_a_list_that_cannot_be_read_whole_is_no_answer(world):
    agent = world.agent(env={"STORE_URL": "mem:?fail_every=2"})
    agent.run(image_prompt(1))
    until("the record to be stored", lambda: agent.get("/api/tasks").status == 503)
    for n in range(4):
        if n % 2 == 1:
            agent.record("nobody")  # one operation: the page fails instead of the record behind it
        reply = agent.get("/api/tasks")
        assert (reply.status, reply.code) == (503, "store_failed"), reply


def test_a_full_queue_is_429_and_says_when(world):
    agent = world.agent(env={"MAX_QUEUE": "3"})
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
    waiting = [later(agent.run, sleep_prompt(1, n), f"t{n}") for n in range(4)]
    until("the queue to be full", lambda: agent.get("/readyz").json["tasks"]["waiting"] == 3)
    reply = agent.run(image_prompt(1), "one-more")
    assert (reply.status, reply.code) == (429, "queue_full")
    assert int(reply.headers["retry-after"]) > 0
    agent.comfy.release()
    assert [each.result().status for each in waiting] == [200] * 4


def test_output_folder_by_task(world):
    agent = world.agent(env={"OUTPUT_FOLDER": "task"})
    reply = agent.run(image_prompt(1, prefix="pic"), "t-1")
    assert reply.json["2"]["images"][0]["subfolder"] == "t-1"
    assert (world.output / "t-1").is_dir()


def test_memory_exhausted_in_a_node_is_freed_and_tried_once_more(world):
    agent = world.agent()
    prompt = {"1": node("TestRaise", message="no", kind="OutOfMemoryError")}
    reply = agent.run(prompt, "t")
    assert (reply.status, reply.code) == (500, "out_of_memory")
    assert agent.comfy.state()["requests"]["POST /free"] == 1
    assert len(agent.comfy.prompts) == 2


def test_tasks_are_kept_for_as_long_as_was_said(world):
    settings = {"OUTPUT_FOLDER": "task", "OUTPUT_DIR": str(world.output), "LEASE_TIMEOUT": "2s"}
    agent = world.agent("agent1", env=settings)
    for name in ("a", "b"):
        agent.run(image_prompt(1, prefix="deep/er"), name)
    agent.run({"1": node("TestRaise", message="no", kind="RuntimeError")}, "b")
    agent.stop()
    (world.output / "a" / "theirs.txt").write_text("not of the task")
    agent_files = sorted(path.name for path in world.output.rglob("*.png"))
    assert len(agent_files) == 2
    (world.store / "alien~task").write_text(
        '{"id": "other", "status": "succeeded", "attempt": 1, "rev": 1, "finished": 1}')
    (world.store / "alien").write_text("{}")
    (world.store / "other").write_text("{}")
    again = world.agent("agent2", env={**settings, "TASK_KEEP": "1ms"})
    until("both to be gone", lambda: again.record("a").status == again.record("b").status == 404)
    until("the documents to be gone", lambda: {path.name for path in world.store.iterdir()} ==
          {"alien~task", "alien", "other"})
    assert not (world.output / "b").exists()
    assert [path.name for path in (world.output / "a").rglob("*")] == ["theirs.txt"]


def test_a_large_prompt_with_odd_spellings_goes_through_byte_for_byte(world):
    agent = world.agent()
    filler = ",".join(f'"k{n}" :\t[1E+2, -0.0 ,"\\u00e9\\/{n}" ,{{"K{n}":null}}]' for n in range(9000))
    sent = ('{\r\n "\\u0031" : {"inputs":{"seed" : -1 , "value":{%s},"Seed":-1,"seed ":-1,"a":18446744073709551615},'
            ' "class_type" :"TestEcho"}  }' % filler)
    assert len(sent) > 300_000
    reply = agent.run(sent, "t", query="?results=none")
    assert reply.status == 200, reply
    seed = agent.record("t").json["seeds"]["\\u0031.seed".encode().decode("unicode_escape")]
    want = sent.replace('"seed" : -1', f'"seed" : {seed}', 1)
    assert want.encode() in agent.comfy.body(0)


def test_an_end_that_somebody_else_made_first_is_the_end(world):
    """Another instance took the task over while its owner, awake all the time, could not know."""
    agent = world.agent(env={"LEASE_TIMEOUT": "60s"})
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    waiting = later(agent.run, steps_prompt(3), "t")
    until("the task to run", lambda: running(agent, "t"))
    (world.store / "t~end.1").write_text('{"superseded": {"instance": "other", "at": 1}}')
    agent.comfy.release()
    until("its end to be refused", lambda: "was taken over or ended" in agent.text())
    record = world.document("t~task")
    assert record["finished"] == 0, "no end of ours was written"
    record.update(attempt=2, rev=record["rev"] + 1, status="failed",
                  error={"code": "node_error", "detail": "theirs"})
    temporary = world.store / "new.tmp"
    temporary.write_text(json.dumps(record))
    temporary.rename(world.store / "t~task")
    reply = waiting.result()
    assert (reply.status, reply.code) == (500, "node_error"), reply
    assert reply.json["error"]["detail"] == "theirs"
