"""What callers make the program hold for them, all together: bodies that are on their way and prompts
that wait."""

import json

from live import run_ws
from test_operate import metrics
from world import Peer, image_prompt, node, post, until

MIB = 1024 * 1024
SETTINGS = {"BODY_MAX_BYTES": str(MIB), "BODIES_MAX_BYTES": str(8 * MIB)}
ASYNC = {"x-fc-invocation-type": "Async"}


def held(agent):
    return metrics(agent)["bodies_bytes"]


def assert_full(reply):
    assert (reply.status, reply.code) == (503, "bodies_full"), reply
    assert int(reply.headers["retry-after"]) > 0


def test_many_slow_uploads_have_one_bound(world):
    agent = world.agent(env=SETTINGS)
    body = json.dumps(image_prompt()).encode().rjust(MIB)
    request = post("/api/run", body)
    head = request[: -len(body)]
    slow = []
    for n in range(1, 8):
        slow.append(Peer(agent.port, request[:-1]))
        until("it to be read", lambda: held(agent) > n * MIB)
    for _ in range(20):
        asker = Peer(agent.port, head)  # told before anything is sent
        assert_full(asker.hear("POST"))
        asker.leave()
    unsaid = Peer(agent.port, b"POST /api/run HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
                  + b"%x\r\n" % MIB + body)
    assert_full(unsaid.hear("POST"))
    unsaid.leave()
    assert run_ws(agent, body.decode()).code == 1013
    assert held(agent) <= 8 * MIB
    assert agent.run(image_prompt()).status == 200  # there is room for a small one
    for peer in slow[1:]:
        peer.say(request[-1:])
        assert peer.hear("POST").status == 200
        peer.leave()
    slow[0].leave(reset=True)
    until("all to be given back", lambda: held(agent) == 0)
    assert agent.run(body).status == 200
    assert metrics(agent)["bodies_refused_total"] == 22


def test_prompts_that_wait_have_it_too(world):
    agent = world.agent(env=SETTINGS)
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestText"})
    large = {"1": node("TestText", text="x" * 900_000)}
    taken = []
    while (reply := agent.run(large, headers=ASYNC)).status == 202:
        taken.append(reply.headers["task-id"])
    assert_full(reply)
    assert len(taken) >= 4 and held(agent) <= 8 * MIB
    assert agent.get(f"/api/tasks/{taken[-1]}").json["status"] == "queued"
    agent.comfy.release()
    for task_id in taken:
        until("its end", lambda: agent.record(task_id).json["status"] == "succeeded")
    until("all to be given back", lambda: held(agent) == 0)
    assert agent.run(large).status == 200


def test_the_largest_body_must_find_room(world):
    agent = world.agent(ready=False, env={"BODY_MAX_BYTES": "100001", "BODIES_MAX_BYTES": "400003"})
    agent.ends(78)
    assert "BODIES_MAX_BYTES" in agent.text()
