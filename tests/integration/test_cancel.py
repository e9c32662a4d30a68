"""Cancelling in every state of a task, from its own instance and from another, once and ten times."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from world import image_prompt, node, sleep_prompt, steps_prompt, until

LEASE = {"LEASE_TIMEOUT": "5s", "FETCH_ALLOW": "127.0.0.1"}
HOLD = {"do": "hold", "name": "here"}


@pytest.fixture
def deaf_site():
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def take():
            while True:
                try:
                    kept.append(server.accept())
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/a.png"


def loads(address):
    return {"1": node("LoadImage", image=address), "2": node("SaveImage", images=["1", 0], filename_prefix="x")}


# state: (rules that keep the task in it, its prompt, how it is seen to be there, how it may end)
STATES = {
    "waiting": ([], image_prompt(2), lambda comfy, t: t["status"] == "queued", {"cancelled"}),
    "inputs": ([], None, lambda comfy, t: t["status"] == "preparing", {"cancelled"}),
    "submitting": ([{"at": "before_reply", **HOLD}], steps_prompt(1000, 20),
                   lambda comfy, t: comfy["fired"], {"cancelled"}),
    "running": ([{"at": "node", "class": "TestSleep", **HOLD}], sleep_prompt(1),
                lambda comfy, t: t["status"] == "running", {"cancelled", "succeeded"}),
    "looking": ([{"at": "http", "route": "GET /history/*", "do": "sleep", "ms": 700},
                 {"at": "ws", "type": "execution_success", "do": "lose"}], image_prompt(3),
                lambda comfy, t: {"at": "http", "do": "sleep"} in comfy["fired"], {"cancelled", "succeeded"}),
    "collecting": ([{"at": "http", "route": "/view", "do": "sleep", "ms": 700}], image_prompt(4),
                   lambda comfy, t: comfy["fired"], {"succeeded", "cancelled"}),
    "ended": ([], image_prompt(5), lambda comfy, t: t["status"] == "succeeded", {"succeeded"}),
}


def test_a_waiting_task_is_cancelled_when_that_is_stored(world):
    """200 would be a promise: if the agent died now, the record would have it run."""
    agent = world.agent(env={"STORE_URL": "mem:?delay_ms=500"})
    agent.comfy.control({"at": "node", "class": "TestSleep", **HOLD})
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(agent.run, sleep_prompt(1), "t1")]
        until("one to run", lambda: len(agent.comfy.prompts) == 1)
        runs.append(pool.submit(agent.run, sleep_prompt(2), "t2"))
        until("the other to wait", lambda: agent.get("/readyz").json["tasks"]["waiting"] == 1)
        for _ in range(2):
            answer = agent.ask("DELETE", "/api/tasks/t2")
            assert (answer.status, answer.json["status"], answer.headers["task-status"]) == (202, "queued", "queued")
        assert runs[1].result().code == "cancelled"
        answer = agent.ask("DELETE", "/api/tasks/t2")
        assert (answer.status, answer.json["status"]) == (200, "cancelled")
        agent.comfy.release("here")
        assert runs[0].result().status == 200


@pytest.mark.parametrize("times", [1, 10])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
@pytest.mark.parametrize("state", STATES)
def test_cancel(world, deaf_site, state, elsewhere, times):
    rules, prompt, is_there, ends = STATES[state]
    comfy = world.comfyui()
    agents = [world.agent(f"agent{n}", url=comfy.url, env=LEASE) for n in (1, 2)]
    asked = agents[elsewhere]
    with ThreadPoolExecutor(12) as pool:
        if state == "waiting":
            comfy.control({"at": "node", "class": "TestSleep", **HOLD})
            first = pool.submit(agents[0].run, sleep_prompt(2), "first")
            until("the first to run", lambda: agents[0].record("first").status == 200
                  and agents[0].record("first").json["status"] == "running")
        if rules:
            comfy.control(*rules)
        reply = pool.submit(agents[0].run, prompt or loads(deaf_site), "t")
        until(f"it to be {state}", lambda: agents[0].record("t").status == 200
              and is_there(comfy.state(), agents[0].record("t").json))
        answers = list(pool.map(lambda _: asked.ask("DELETE", "/api/tasks/t"), range(times)))
        assert {answer.status for answer in answers} <= {200, 202}, answers
        if state in ("submitting", "running"):
            comfy.release("here")
        reply = reply.result()
        record = agents[1].record("t").json
        assert record["status"] in ends, (record, reply)
        assert reply.status == (200 if record["status"] == "succeeded" else 500), reply
        if state == "waiting":
            comfy.release("here")
            assert first.result().status == 200
    assert asked.ask("DELETE", "/api/tasks/t").status == 200
    assert asked.ask("DELETE", "/api/tasks/t").json["status"] == record["status"]
    until("ComfyUI to have nothing of it", comfy.is_idle)
