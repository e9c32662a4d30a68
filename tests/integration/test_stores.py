"""Agents that share a database instead of a directory: what test_trust.py and test_store.py ask of the file
store holds there too, and the database may be slow, silent, or gone for a while."""

import signal
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pytest

from live import Events
from stores import DATABASES, SECRET, missing
from world import image_prompt, later, node, running, steps_prompt, until

LEASE = {"LEASE_TIMEOUT": "2s", "MAX_CONCURRENCY": "4"}


@pytest.fixture(params=DATABASES)
def database(request, world):
    why = missing(request.param)
    if why:
        pytest.skip(why)
    made = DATABASES[request.param](world)
    world.store_url = made.url
    yield made
    made.close()


def two_agents(world, env=None):
    comfy = world.comfyui()
    return comfy, [world.agent(f"agent{n}", url=comfy.url, env={**LEASE, **(env or {})}) for n in (1, 2)]


def unstored(agent):
    return agent.get("/readyz").json["tasks"]["unstored"]


# --- a front door ------------------------------------------------------------------------------------


def test_a_front_door_and_what_is_behind_it(world, database):
    """A prompt larger than a claim, a replay, an end that is asked for elsewhere, a cancelled offer."""
    behind = world.agent("behind", env=LEASE)
    env = {**LEASE, "COMFYUI_URL": "", "OUTPUT_DIR": str(world.output), "INPUT_DIR": str(world.input), "CALL_TIMEOUT": "60s"}
    door = world.agent("door", url="http://x:1", env={**env, "RUN_URL": f"http://127.0.0.1:{behind.port}"})
    nowhere = world.agent("nowhere", url="http://x:1", env={**env, "RUN_URL": "http://127.0.0.1:1"})
    large = {**image_prompt(), "3": {"class_type": "TestText", "inputs": {"text": "x" * 100_000}}}
    reply = door.run(large, "t")
    assert reply.status == 200 and reply.json["2"]["results"], reply
    assert nowhere.run(large, "t").json == reply.json
    assert len(behind.comfy.prompts) == 1 and behind.record("t").json["attempt"] == 1
    offered = later(nowhere.run, image_prompt(2), "c")
    until("the offer", lambda: door.record("c").status == 200)
    assert door.ask("DELETE", "/api/tasks/c").status == 202
    assert offered.result().code == "cancelled"
    assert len(behind.comfy.prompts) == 1


# --- two agents --------------------------------------------------------------------------------------


def test_one_id_sent_to_two_agents_at_once_is_one_prompt(world, database):
    comfy, agents = two_agents(world)
    with ThreadPoolExecutor(2) as pool:
        for n in range(100):
            both = [pool.submit(agent.run, image_prompt(n), f"t{n}") for agent in agents]
            first, second = (each.result() for each in both)
            assert first.status == second.status == 200, (first, second)
            assert first.body == second.body
    assert len(comfy.prompts) == 100


@pytest.mark.long
def test_an_end_that_others_see_is_not_denied_by_its_owner(world, database):
    """It is stored, and the answer that says so is on its way."""
    way = database.behind_proxy()
    owner = world.agent(env=LEASE)
    for task, path in {"a": "/api/tasks/a", "b": "/api/status?id=b"}.items():
        way.delay = 0.15
        run = later(owner.run, {"1": node("TestRaise", message=task, kind="ValueError")}, task)
        until("its end to be there", lambda: (database.document(f"{task}~task") or {}).get("status") == "failed")
        assert owner.get(path).headers["task-status"] == "failed"
        way.delay = 0
        assert run.result().status == 500


def test_what_one_agent_stored_another_tells(world, database):
    _, agents = two_agents(world)
    reply = agents[0].run(image_prompt(1), "t", query="?results=none")
    assert agents[1].get("/api/status?id=t").json == reply.json == database.document("t")
    assert agents[1].record("t").json == database.document("t~task")
    assert agents[1].run(image_prompt(2), "t").code == "other_prompt"
    listed = agents[1].get("/api/tasks").json["tasks"]
    assert [task["id"] for task in listed] == ["t"]


def test_an_owner_that_is_killed_is_followed_by_another(world, database):
    comfy, agents = two_agents(world)
    comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    later(agents[0].run, steps_prompt(10, 20, seed=-1), "t")
    until("the task to run", lambda: running(agents[0], "t"))
    until("another to see it", lambda: running(agents[1], "t"))
    joined = later(agents[1].run, steps_prompt(10, 20, seed=-1), "t")
    seed = agents[0].record("t").json["seeds"]["1.seed"]
    agents[0].signal(signal.SIGKILL)
    agents[0].wait()
    comfy.release()
    assert joined.result().status == 200
    record = agents[1].record("t").json
    assert (record["status"], record["attempt"], record["seeds"]["1.seed"]) == ("succeeded", 2, seed)
    assert database.document("t~end.1")["superseded"]


def test_an_owner_that_was_frozen_past_its_lease_stays_silent(world, database):
    comfy, agents = two_agents(world)
    comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    first = later(agents[0].run, steps_prompt(10, 20), "t")
    until("another to see it", lambda: running(agents[1], "t"))
    joined = later(agents[1].run, steps_prompt(10, 20), "t")
    agents[0].signal(signal.SIGSTOP)
    until("the other to take over", lambda: agents[1].record("t").json["attempt"] == 2)
    comfy.release()
    assert joined.result().status == 200
    ended = database.document("t~task")
    agents[0].signal(signal.SIGCONT)
    assert first.result().status == 200
    assert database.document("t~task") == ended
    assert ended["attempt"] == 2 and ended["status"] == "succeeded"


# --- the database goes away --------------------------------------------------------------------------


def test_a_restart_during_32_running_tasks_loses_none(world, database):
    comfy = world.comfyui()
    agent = world.agent(url=comfy.url, env={"MAX_CONCURRENCY": "32"})
    comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    with ThreadPoolExecutor(32) as pool:
        waiting = [pool.submit(agent.run, steps_prompt(5, 10, n), f"t{n}") for n in range(32)]
        until("all to be taken", lambda: len(comfy.prompts) == 32)
        database.kill()
        comfy.release()
        until("some to end meanwhile", lambda: len(comfy.state()["queue"]["pending"]) < 24)
        database.start()
        replies = [each.result() for each in waiting]
    assert {reply.status for reply in replies} == {200}
    until("each end to be stored", lambda: unstored(agent) == 0)
    assert len(comfy.prompts) == 32
    agent.stop()
    other = world.agent("other", url=comfy.url)
    for n in range(32):
        assert database.document(f"t{n}~task")["status"] == "succeeded"
        assert database.document(f"t{n}~end.1")["status"] == "succeeded"
        assert other.run(steps_prompt(5, 10, n), f"t{n}").status == 200
    assert len(comfy.prompts) == 32, "each is known"


@pytest.mark.long
def test_without_a_database_runs_go_on_and_say_so(world, database):
    agent = world.agent()
    assert agent.run(image_prompt(1), "before").headers["task-stored"] is None
    database.kill()
    given = agent.run(image_prompt(3), "given")
    assert given.status == 200 and given.json["2"]["results"]
    assert given.headers["task-stored"] == "no"
    ready = agent.get("/readyz")
    assert ready.status == 503 and ready.json["store"]["ok"] is False and ready.json["store"]["detail"]
    assert "comfy_agent_store_up 0" in agent.get("/metrics").body.decode()
    assert agent.get("/api/status?id=before").status == 503, "not 404: it may be known"
    database.start()
    until("the end to be written", lambda: unstored(agent) == 0)
    assert database.document("given~task")["status"] == "succeeded"
    until("it to be ready again", agent.is_ready)
    assert agent.get("/api/status?id=before").status == 200
    assert "comfy_agent_store_up 1" in agent.get("/metrics").body.decode()


@pytest.mark.long
def test_a_database_that_is_not_there_at_the_start(world, database):
    database.kill()
    agent = world.agent(ready=False)
    until("ComfyUI to be up", lambda: agent.answers() and agent.get("/readyz").json["comfyui"]["open"])
    assert agent.run(image_prompt(1), "t").headers["task-stored"] == "no"
    database.start()
    until("the end to be written", lambda: unstored(agent) == 0)
    assert database.document("t~task")["status"] == "succeeded"


@pytest.mark.long
def test_a_database_that_hangs_holds_nothing_up(world, database):
    agent = world.agent()
    assert agent.run(image_prompt(1), "before").status == 200
    database.freeze()
    waiting = later(agent.run, image_prompt(2), "t")
    until("the store to be found wanting", lambda: agent.get("/readyz").status == 503)
    for _ in range(20):
        began = time.monotonic()
        assert agent.get("/healthz").status == 200
        assert time.monotonic() - began < 2
    assert waiting.result().status == 200
    database.thaw()
    until("the end to be written", lambda: unstored(agent) == 0)
    assert database.document("t~task")["status"] == "succeeded"


def test_the_end_has_an_id_of_its_own_however_late_it_is_stored(world, database):
    """Who comes back with the id of a progress event has not seen the end."""
    agent = world.agent()
    run = later(agent.run, steps_prompt(20, 30), "t")
    until("it to run", lambda: running(agent, "t"))
    events = later(list, Events(agent, "t"))
    database.freeze()
    until("the end", lambda: unstored(agent) == 1)
    time.sleep(0.5)  # for what must not be told
    database.thaw()
    ids = [rev for _, rev, _ in events.result()]
    assert run.result().status == 200
    assert len(set(ids)) == len(ids) > 1, ids


# --- the network goes away ---------------------------------------------------------------------------


def test_on_a_bad_network_nothing_is_lost_and_nothing_runs_twice(world, database):
    proxy = database.behind_proxy()
    proxy.cut_every = (10, 60)
    proxy.delay = 0.001
    comfy, agents = two_agents(world)
    with ThreadPoolExecutor(2) as pool:
        for n in range(30):
            both = [pool.submit(agent.run, image_prompt(n), f"t{n}") for agent in agents]
            first, second = (each.result() for each in both)
            assert first.status == second.status == 200, (first, second)
            assert first.body == second.body
    assert len(comfy.prompts) == 30
    assert proxy.cuts > 5
    for agent in agents:
        until("each end to be stored", lambda: unstored(agent) == 0)
    for n in range(30):
        assert database.document(f"t{n}~end.1")["status"] == "succeeded"


@pytest.mark.long
def test_a_black_hole_is_noticed_and_left(world, database):
    proxy = database.behind_proxy()
    agent = world.agent()
    assert agent.run(image_prompt(1), "before").status == 200
    proxy.black_hole()
    reply = agent.run(image_prompt(2), "t")
    assert reply.status == 200 and reply.headers["task-stored"] == "no"
    assert agent.get("/readyz").status == 503
    proxy.cut()
    proxy.pass_on()
    until("the end to be written", lambda: unstored(agent) == 0)
    assert database.document("t~task")["status"] == "succeeded"


# --- secrets -----------------------------------------------------------------------------------------


@pytest.mark.long
def test_no_secret_is_said(world, database):
    agent = world.agent(env={"LOG_LEVEL": "debug"})
    wrong = world.agent("wrong", ready=False, env={
        "LOG_LEVEL": "debug", "STORE_URL": database.url.replace("@127", "x@127")})
    malformed = world.agent("malformed", ready=False, env={
        "LOG_LEVEL": "debug", "STORE_URL": database.url + "&no=such"})
    malformed.ends(78)
    assert agent.run(image_prompt(1), "t").status == 200
    until("the wrong one to be up", wrong.answers)
    until("ComfyUI to be up", lambda: wrong.get("/readyz").json["comfyui"]["open"])
    assert wrong.run(image_prompt(1), "w").headers["task-stored"] == "no"
    said = [each.get(path).body.decode() for each in (agent, wrong) for path in ("/readyz", "/metrics", "/api/tasks")]
    database.kill()
    assert agent.run(image_prompt(1), "u").headers["task-stored"] == "no"
    said.append(agent.get("/readyz").body.decode())
    database.start()
    until("the end to be written", lambda: unstored(agent) == 0)
    agent.stop()
    wrong.signal(signal.SIGKILL)
    wrong.wait()
    world.processes.remove(wrong)
    said += [each.text() for each in (agent, wrong, malformed)]
    for text in said:
        for secret in (SECRET, urllib.parse.quote(SECRET, safe=""), "s3cr"):
            assert secret not in text, text
