"""Following a run while it goes on: WebSocket, event stream, waiting for a change."""

import base64
import contextlib
import json
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import websockets

from live import Events, each_costs, memory, run_ws, silent_events, silent_ws
from world import PATIENCE, Peer, image_prompt, node, post, sleep_prompt, steps_prompt, until

LEASE = {"LEASE_TIMEOUT": "2s"}
BIG = 8 * 1024 * 1024


def two_agents(world, env=None):
    comfy = world.comfyui()
    settings = {**LEASE, **(env or {})}
    return comfy, [world.agent(f"agent{n}", url=comfy.url, env=settings) for n in (1, 2)]


def connections(agent):
    return int(re.search(r"(?m)^comfy_agent_http_connections (\d+)", agent.get("/metrics").body.decode())[1])


def later(function, *args, **kwargs):
    return ThreadPoolExecutor(1).submit(function, *args, **kwargs)


def status(agent, task_id):
    reply = agent.record(task_id)
    return reply.json["status"] if reply.status == 200 else None


def is_running(agent, task_id):
    return until(f"{task_id} to run", lambda: status(agent, task_id) == "running")


# --- WebSocket -----------------------------------------------------------------------------------


def test_a_run_over_a_websocket(both):
    agent = both.agent()
    talk = run_ws(agent, steps_prompt(20, 20))
    assert talk.code == 1000
    assert talk.types[-1] == "result" and set(talk.types[:-1]) == {"progress"}
    values = [message["data"]["1"]["value"] for message in talk.messages]
    assert values == sorted(values) and len(set(values)) > 2 and values[-1] == 20
    assert all(set(message) == {"type", "data"} for message in talk.messages)


def test_its_result_is_that_of_a_post(world):
    agent = world.agent()
    talk = run_ws(agent, image_prompt(5), "?task-id=t")
    assert talk.headers["task-id"] == "t"
    assert talk.end["data"] == agent.run(image_prompt(5), "t").json
    assert len(agent.comfy.prompts) == 1


def test_a_large_result_comes_whole_and_before_the_close(both):
    agent = both.agent()
    talk = run_ws(agent, {"1": node("TestBigImage", bytes=BIG, filename_prefix="b")})
    assert talk.code == 1000
    (picture,) = talk.end["data"]["1"]["images"]
    content = base64.b64decode(talk.end["data"]["1"]["results"][0])
    assert len(content) == BIG
    assert content == (both.output / picture["filename"]).read_bytes()


def test_results_may_be_left_out(world):
    agent = world.agent()
    talk = run_ws(agent, {"prompt": image_prompt(), "results": "none"})
    assert "results" not in talk.end["data"]["2"]
    talk = run_ws(agent, image_prompt(2), "?results=none")
    assert "results" not in talk.end["data"]["2"] and talk.code == 1000


def test_a_run_that_fails_is_an_error_and_1011(world):
    agent = world.agent()
    talk = run_ws(agent, {"1": node("TestRaise", message="no", kind="RuntimeError")})
    assert (talk.code, talk.error["code"]) == (1011, "node_error")
    assert talk.end["data"]["message"] == "CallComfyUIPromptError"
    assert talk.error["node_id"] == "1"


@pytest.mark.parametrize("first, code", [
    ("{", "invalid_json"), ("[]", "not_a_prompt"), ('{"type":"hello"}', "not_a_prompt"),
    (json.dumps({"prompt": image_prompt(), "task_id": "a/b"}), "bad_id")])
def test_what_is_no_prompt_is_an_error_and_1011(world, first, code):
    talk = run_ws(world.agent(), first)
    assert talk.types == ["error"]
    assert (talk.code, talk.error["code"]) == (1011, code)
    assert talk.end["data"]["message"] == "RequestParamsError"


def test_an_output_that_vanished_is_an_error_not_a_result(world):
    agent = world.agent()
    agent.comfy.control({"at": "http", "route": "GET /view", "ranged": False, "do": "answer", "status": 404})
    talk = run_ws(agent, {"1": node("TestBigImage", bytes=BIG, filename_prefix="b")})
    assert (talk.code, talk.end["type"]) == (1011, "error")
    assert talk.error["code"] == "output_gone"


def test_an_output_that_breaks_off_breaks_the_message(world):
    agent = world.agent()
    agent.comfy.control({"at": "http", "route": "GET /view", "ranged": False, "do": "truncate", "bytes": 300000})
    talk = run_ws(agent, {"1": node("TestBigImage", bytes=BIG, filename_prefix="b")})
    assert talk.code == 1011
    assert "result" not in talk.types


def test_ids_of_a_websocket_run(world):
    comfy, agents = two_agents(world)
    with pytest.raises(websockets.InvalidStatusCode) as refused:
        run_ws(agents[0], None, "?task-id=a/b")
    assert refused.value.status_code == 400
    prompt = steps_prompt(20, 30)
    with ThreadPoolExecutor(4) as pool:
        talks = [pool.submit(run_ws, agents[0], prompt, "?task-id=t"),
                 pool.submit(run_ws, agents[1], prompt, headers={"task-id": "t"}),
                 pool.submit(run_ws, agents[1], {"prompt": prompt, "task_id": "t"})]
        post = pool.submit(agents[0].run, prompt, "t")
        ends = [talk.result() for talk in talks]
        assert all(talk.code == 1000 and talk.end["data"] == post.result().json for talk in ends)
    assert len(comfy.prompts) == 1
    talk = run_ws(agents[1], image_prompt(), "?task-id=t")
    assert (talk.code, talk.error["code"], talk.types) == (1011, "other_prompt", ["error"])


async def say_close(ws, message):
    if json.loads(message)["type"] == "progress":
        await ws.send('{"type": "close"}')


async def leave(ws, message):
    await ws.close()


@pytest.mark.parametrize("how", [say_close, leave])
def test_who_leaves_ends_a_task_without_an_id_only(world, how):
    agent = world.agent()
    talk = run_ws(agent, steps_prompt(3000, 20), on_message=how)
    assert talk.code == 1000 and "result" not in talk.types
    task_id = talk.headers["task-id"]
    until("the task to be cancelled", lambda: status(agent, task_id) == "cancelled")
    talk = run_ws(agent, steps_prompt(20, 30, seed=1), "?task-id=mine", on_message=how)
    assert talk.code == 1000 and "result" not in talk.types
    until("the task to go on to its end", lambda: status(agent, "mine") == "succeeded")


def test_who_leaves_does_not_end_what_another_has_called_for_over_a_socket(world):
    agent = world.agent()
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    prompt, mine = steps_prompt(20), "x-fc-request-id: r-1"
    first = Peer(agent.port, post("/api/run", prompt, mine))
    agent.comfy.await_hold("node")
    joined = threading.Event()

    async def say_so(_, __):
        joined.set()

    second = later(run_ws, agent, prompt, headers={"x-fc-request-id": "r-1"}, on_message=say_so)
    assert joined.wait(PATIENCE)
    first.leave()
    until("it to be seen", lambda: connections(agent) <= 2)  # the socket, and who asks
    agent.comfy.release()
    assert (second.result().code, second.result().types[-1]) == (1000, "result")


def test_a_close_before_any_prompt(world):
    agent = world.agent()
    talk = run_ws(agent, '{"type":"close"}')
    assert (talk.code, talk.messages) == (1000, [])
    assert run_ws(agent, b"binary").code == 1003


def test_other_messages_change_nothing(world):
    async def chat(ws, message):
        with contextlib.suppress(websockets.ConnectionClosed):  # the result may be here, and unread
            await ws.send('{"type": "ping"}')
            await ws.send("not JSON")
            await ws.ping()

    talk = run_ws(world.agent(), steps_prompt(20, 10), on_message=chat)
    assert (talk.code, talk.types[-1]) == (1000, "result")


def test_a_message_that_is_too_long_is_1009(world):
    agent = world.agent(env={"BODY_MAX_BYTES": "100000"})
    assert run_ws(agent, "x" * 100001).code == 1009
    assert run_ws(agent, json.dumps(image_prompt()) + " " * 90000).code == 1000


def test_what_opens_no_websocket(world):
    agent = world.agent()
    reply = agent.get("/api/run/ws")
    assert (reply.status, reply.headers["upgrade"]) == (426, "websocket")
    assert (reply.json["message"], reply.code) == ("WebsocketUpgradeError", "upgrade_required")
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-key": "eA==" * 6}
    reply = agent.ask("GET", "/api/run/ws", headers={**upgrade, "sec-websocket-version": "8"})
    assert (reply.status, reply.headers["sec-websocket-version"]) == (426, "13")
    reply = agent.ask("GET", "/api/run/ws", headers={**upgrade, "sec-websocket-version": "13"})
    assert (reply.status, reply.code) == (400, "bad_handshake")
    assert agent.ask("POST", "/api/run/ws").status == 405
    with pytest.raises(websockets.InvalidStatusCode) as refused:
        run_ws(agent, None, headers={"origin": "http://elsewhere.example"})
    assert refused.value.status_code == 403


def test_previews_for_who_asks(both):
    agent = both.agent()
    prompt = {"7": node("TestFlood", n=3, bytes=5000), "8": node("TestSteps", n=3, ms=20, seed=0)}
    assert run_ws(agent, prompt).previews == []
    agent.comfy.reset()
    prompt["7"]["inputs"]["bytes"] = 6000
    talk = run_ws(agent, prompt, "?previews=1")
    assert talk.code == 1000 and talk.previews
    for preview in talk.previews:
        kind, size = int.from_bytes(preview[:4], "big"), int.from_bytes(preview[4:8], "big")
        assert kind == 4
        assert json.loads(preview[8:8 + size]) == {"node_id": "7", "image_type": "image/jpeg"}
        image = preview[8 + size:]
        assert len(image) == 6000 and image.startswith(b"\xff\xd8\xff")


def test_a_stop_waits_for_a_websocket_run(world):
    agent = world.agent()
    talk = later(run_ws, agent, steps_prompt(30, 30), "?task-id=t")
    is_running(agent, "t")
    agent.signal(signal.SIGTERM)
    assert talk.result().code == 1000
    assert agent.wait() == 0


# --- events --------------------------------------------------------------------------------------


def test_an_event_stream(both):
    agent = both.agent()
    run = later(agent.run, steps_prompt(20, 30), "t")
    until("the task", lambda: status(agent, "t"))
    stream = Events(agent, "t")
    assert (stream.status, stream.answer.headers["content-type"]) == (200, "text/event-stream")
    assert stream.answer.headers["cache-control"] == "no-store"
    assert stream.answer.headers["x-accel-buffering"] == "no"
    events = list(stream)
    names = [name for name, _, _ in events]
    assert names[-1] == "result" and set(names[:-1]) == {"progress"} and len(names) > 2
    ids = [rev for _, rev, _ in events]
    assert ids == sorted(ids) and len(set(ids)) == len(ids)
    record = agent.record("t").json
    assert events[-1][1:] == (record["rev"], record)
    assert "results" not in events[-1][2]["nodes"]["1"]
    assert run.result().status == 200


def test_an_event_stream_of_a_failure(world):
    agent = world.agent()
    failed = agent.run({"1": node("TestRaise", message="no", kind="RuntimeError")}, "t")
    ((name, rev, data),) = list(Events(agent, "t"))
    assert (name, data, rev) == ("error", failed.json, agent.record("t").json["rev"])


def test_who_has_seen_the_end_is_told_to_stay_away(world):
    _, agents = two_agents(world)
    agents[0].run(image_prompt(), "t")
    stream = Events(agents[0], "t")
    list(stream)
    for agent in agents:
        assert Events(agent, "t", stream.last).status == 204
        assert [name for name, _, _ in Events(agent, "t", stream.last - 1)] == ["result"]
        assert [name for name, _, _ in Events(agent, "t", "no number")] == ["result"]


def test_an_unknown_task_has_no_events(world):
    agent = world.agent()
    assert Events(agent, "nobody").status == 404
    assert Events(agent, "a%2fb").status == 400
    assert agent.run(image_prompt(), "nobody").status == 200  # and is nobody's
    assert agent.ask("HEAD", "/api/tasks/nobody/events").status == 200


def test_events_go_on_at_another_instance(both):
    """The first connection is cut with its instance's end in sight; any other one goes on."""
    comfy, agents = two_agents(both)
    run = later(agents[0].run, steps_prompt(60, 50), "t")
    is_running(agents[0], "t")
    stream = Events(agents[0], "t")
    for _, first, nodes in stream:
        if nodes["1"]["value"] >= 5:
            break
    stream.close()
    second = Events(agents[1], "t", first)
    events = list(second)
    name, rev, nodes = events[0]
    assert name == "progress" and rev >= first and nodes["1"]["value"] >= 5, events[0]
    assert len(events) > 3 and events[-1][0] == "result"
    assert run.result().status == 200
    assert agents[0].record("t").json == events[-1][2]
    assert len(comfy.prompts) == 1


def test_who_looks_on_takes_nothing_over(world):
    """Its owner is frozen for longer than the lease; on the platform nobody tends to old tasks."""
    comfy, agents = two_agents(world, {"FC_INSTANCE_ID": "i"})
    comfy.control({"at": "node", "class": "TestSleep", "do": "hold", "name": "hold"})
    run = later(agents[0].run, sleep_prompt(1), "t")
    is_running(agents[0], "t")
    stream = Events(agents[1], "t")
    events = iter(stream)
    next(events)
    agents[0].signal(signal.SIGSTOP)
    time.sleep(2 * 2 + 1)
    assert len(comfy.prompts) == 1
    assert agents[1].record("t").json["attempt"] == 1
    again = later(agents[1].run, sleep_prompt(1), "t")  # who wants it run is another matter
    until("a second attempt", lambda: agents[1].record("t").json["attempt"] == 2)
    agents[0].signal(signal.SIGCONT)
    comfy.release()
    name, _, record = list(events)[-1]
    assert (name, record["attempt"]) == ("result", 2)
    assert again.result().status == run.result().status == 200


@pytest.mark.long
def test_a_quiet_stream_is_kept_awake(world):
    agent = world.agent()
    run = later(agent.run, sleep_prompt(17000), "t")
    is_running(agent, "t")
    stream = Events(agent, "t")
    assert [name for name, _, _ in stream][-1] == "result"
    assert stream.comments >= 1
    assert run.result().status == 200


def test_a_stop_ends_streams_of_others(world):
    _, agents = two_agents(world)
    run = later(agents[0].run, steps_prompt(60, 50), "t")
    is_running(agents[0], "t")
    stream = Events(agents[1], "t")
    agents[1].stop()
    assert "result" not in [name for name, _, _ in stream]
    assert run.result().status == 200


def test_events_are_few_however_much_happens(world):
    agent = world.agent()
    run = later(agent.run, steps_prompt(2000, 1), "t")
    is_running(agent, "t")
    begin = time.monotonic()
    events = list(Events(agent, "t"))
    assert len(events) <= 10 * (time.monotonic() - begin) + 3
    assert run.result().status == 200


# --- waiting -------------------------------------------------------------------------------------


def waits(agent, path, etag=None):
    begin = time.monotonic()
    reply = agent.get(path, **({"if-none-match": etag} if etag else {}))
    return reply, time.monotonic() - begin


def test_waiting_for_a_change(both):
    comfy, agents = two_agents(both)
    comfy.control({"at": "node", "class": "TestSleep", "do": "hold", "name": "hold"})
    run = later(agents[0].run, sleep_prompt(1), "t")
    is_running(agents[0], "t")
    for agent in agents:  # nothing happens: the time passes
        etag = agent.get("/api/tasks/t").headers["etag"]
        reply, took = waits(agent, "/api/tasks/t?wait=1", '"other"')
        assert reply.status == 200 and took < 1
    polls = [later(waits, agent, path) for agent in agents
             for path in ("/api/status?id=t&wait=50", "/api/tasks/t?wait=50")]
    comfy.release()
    for poll in polls:
        reply, took = poll.result()
        assert reply.status == 200 and took < 30
    until("the end", lambda: status(agents[1], "t") == "succeeded")
    for agent in agents:  # it has ended: there is nothing to wait for
        reply, took = waits(agent, "/api/status?id=t&wait=50")
        assert reply.status == 200 and took < 30
        reply, _ = waits(agent, "/api/status?id=t&wait=50", reply.headers["etag"])
        assert reply.status == 304
    assert run.result().status == 200


def test_waiting_in_vain(world):
    _, agents = two_agents(world, {"LEASE_TIMEOUT": "60s"})
    run = later(agents[0].run, sleep_prompt(6000), "t")
    is_running(agents[0], "t")
    for agent in agents:
        etag = until("no news", lambda: quiet_etag(agent))
        reply, took = waits(agent, "/api/status?id=t&wait=1", etag)
        assert reply.status == 304 and took >= 0.9
        reply, took = waits(agent, "/api/status?id=t&wait=1")
        assert reply.status == 200 and took >= 0.9
    assert run.result().status == 200


def quiet_etag(agent):
    first = agent.get("/api/status?id=t").headers["etag"]
    time.sleep(0.3)
    return first == agent.get("/api/status?id=t").headers["etag"] and first


def test_what_cannot_be_waited_for(world):
    agent = world.agent()
    for wait in ("x", "-1", "1.5"):
        reply = agent.get(f"/api/status?id=t&wait={wait}")
        assert (reply.status, reply.code) == (400, "bad_wait")
    reply, took = waits(agent, "/api/status?id=t&wait=20")
    assert reply.status == 404 and took < 15


# --- those who do not read (what they cost: test_flood.py) ---------------------------------------


def flood(n, seed):
    """`seed` makes another one of it, which no cache knows."""
    return {"1": node("TestFlood", n=n, bytes=50000 + seed)}


def read_late(client):
    """All that was kept for a client that did not read until now."""
    client.settimeout(PATIENCE)
    kept = b""
    while part := client.recv(1 << 20):
        kept += part
    client.close()
    return kept


def test_who_reads_late_gets_the_result_and_few_previews(world):
    agent = world.agent()
    client = silent_ws(agent, flood(1500, 1), "?previews=1&task-id=t")
    until("the run to end", lambda: status(agent, "t") == "succeeded")
    kept = read_late(client)
    assert len(kept) < 1500 * 50000 // 10
    assert b'{"type":"result"' in kept and kept.endswith(b"\x88\x02\x03\xe8")


def test_who_reads_late_gets_few_events_and_the_end(world):
    agent = world.agent()
    prompt = {f"a node of a long name {n}": node("EmptyImage", width=1, height=1, batch_size=1, color=0)
              for n in range(6000)}
    prompt.update(steps_prompt(100, 30))
    run = later(agent.run, prompt, "t")
    is_running(agent, "t")
    client = silent_events(agent, "t")
    assert run.result().status == 200
    client.shutdown(socket.SHUT_WR)
    kept = read_late(client)
    assert kept.count(b"event: progress") < 12 and b"event: result" in kept


def test_who_never_reads_is_left_behind(world):
    agent = world.agent()
    deaf = [silent_ws(agent, flood(1500, 1), "?previews=1&task-id=t")]
    deaf += [silent_ws(agent, {"1": node("TestBigImage", bytes=BIG, filename_prefix="b")})]
    until("the run to end", lambda: status(agent, "t") == "succeeded")
    deaf += [silent_events(agent, "t")]
    assert agent.run(image_prompt()).status == 200
    for client in deaf:
        client.close()
    assert agent.run(image_prompt(2)).status == 200


def slow_download(agent, task_id):
    """A transfer of the task's first output, of which nothing but the head is read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(PATIENCE)
    client.connect(("127.0.0.1", agent.port))
    client.sendall(f"GET /api/tasks/{task_id}/outputs/0 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert client.recv(64).startswith(b"HTTP/1.1 200 ")
    return client


def test_slow_downloads_take_nothing_that_a_task_needs(world):
    agent = world.agent()
    assert agent.run({"1": node("TestBigImage", bytes=BIG, filename_prefix="b")}, "big").status == 200
    clients = [slow_download(agent, "big") for _ in range(80)]
    began = time.monotonic()
    reply = agent.run(image_prompt())
    assert reply.status == 200 and reply.json["2"]["results"]
    assert time.monotonic() - began < 4  # 5 s are waited for a connection to ComfyUI
    for client in clients:
        client.close()


@pytest.mark.release
def test_a_large_result_does_not_lie_in_memory(world):
    agent = world.agent()
    size = 64 * 1024 * 1024
    agent.run(image_prompt())
    before, most, done = memory(agent), [0], threading.Event()

    def watch():
        while not done.is_set():
            most[0] = max(most[0], memory(agent))
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    talk = run_ws(agent, {"1": node("TestBigImage", bytes=size, filename_prefix="b")})
    done.set()
    watcher.join()
    assert len(base64.b64decode(talk.end["data"]["1"]["results"][0])) == size
    assert most[0] - before < 2 * 1024 * 1024, most[0] - before


@pytest.mark.release
def test_who_waits_costs_little_memory(world):
    """Each of 200 is counted with its share of what the first ones cost once."""
    def fresh():
        agent = world.agent(env={"MAX_QUEUE": "1000"})
        agent.run(image_prompt())
        return agent
    agent = fresh()
    before = each_costs(agent, 200, lambda number: silent_ws(agent, None), b"101 ")
    assert before < 3 * 1024, before
    agent = fresh()
    prompt = {"1": node("TestSleep", ms=60000), **{str(n): node("TestText", text="a" * 60) for n in range(2, 11)}}
    waiting = each_costs(agent, 200, lambda number: silent_ws(agent, {**prompt, "11": node("TestText", text=str(number))}),
                         b'"type":"progress"')
    assert waiting < 12 * 1024, waiting
