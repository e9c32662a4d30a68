"""What callers are told: envelope, statuses, ids, and what happens when they leave."""

import contextlib
import json
import os
import re
import signal
import threading
import time
from urllib.parse import quote

import pytest

from world import Peer, ask, image_prompt, later, node, post, running, sleep_prompt, steps_prompt, until

NODE = '"1":{"class_type":"TestText","inputs":{"text":"x"}}'


def check_envelope(reply, status, code, message="RequestParamsError"):
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.json) == {"message", "error"}, reply
    error = reply.json["error"]
    assert (error["code"], reply.json["message"]) == (code, message), reply
    assert error["detail"] and isinstance(error["detail"], str)
    return error


def held_run(agent, prompt, *headers):
    """A caller whose run has come to ComfyUI and is held there, and the task's id."""
    agent.comfy.control({"at": "node", "do": "hold"})
    peer = Peer(agent.port, post("/api/run", prompt, *headers))

    def runs():
        tasks = agent.get("/api/tasks?status=running").json["tasks"]
        return tasks[0]["id"] if tasks else None

    return peer, until("the task to run", runs)


# --- 400 ---------------------------------------------------------------------------------------

INVALID = [  # body, where it is found out: offset, line, column
    (b"", (0, 1, 1)),
    (b"{", (1, 1, 2)),
    (b"  nonsense", (2, 1, 3)),
    (b'{"1": }', (6, 1, 7)),
    (b'{"1":\r\n {"class_type": "X"\r\n "inputs": {}}}', (29, 3, 2)),
    (b'{"a":1}x', (7, 1, 8)),
    (b'{"a":1,}', (7, 1, 8)),
    (b'{"a":NaN}', (5, 1, 6)),
    (b'{"a":01}', (6, 1, 7)),
    (b"{'a':1}", (1, 1, 2)),
]


@pytest.mark.parametrize("body, position", INVALID, ids=[repr(body)[2:-1] for body, _ in INVALID])
def test_what_is_not_json_is_400_and_says_where(agent, body, position):
    error = check_envelope(agent.run(body), 400, "invalid_json")
    assert tuple(error["position"][key] for key in ("offset", "line", "column")) == position


@pytest.mark.parametrize("body", [b'{"a":1,"a":2}', b'{"a":"\xff"}', b'{"a":"\xc0\x80"}', b'{"a":"\x01"}',
                                  b'{"a":"\\x"}', b'{"\xed\xa0\x80":1}', b'{"a":+1}', b'{"a":1.}'])
def test_more_that_is_not_json(agent, body):
    assert "position" in check_envelope(agent.run(body), 400, "invalid_json")


def test_what_is_too_complex_is_400(agent):
    deep = '{"a":' + "[" * 100 + "]" * 100 + "}"
    assert "position" in check_envelope(agent.run(deep), 400, "json_too_complex")
    many = '{"a":[' + ",".join(["1"] * 200_001) + "]}"
    assert "position" in check_envelope(agent.run(many), 400, "json_too_complex")
    nodes = {f"{n:0200}": node("TestText", text="x") for n in range(10_000)}
    check_envelope(agent.run(nodes), 400, "json_too_complex")


NOT_PROMPTS = [
    "[]", '"x"', "1", "null", "{}", '{"1":1}', '{"1":{}}', '{"1":{"class_type":"X"}}', '{"1":{"inputs":{}}}',
    '{"1":{"class_type":1,"inputs":{}}}', '{"1":{"class_type":"X","inputs":[]}}', '{"prompt":{}}',
    '{"prompt":{"1":{}}}', "{%s,\"2\":null}" % NODE,
    '{"%s":{"class_type":"X","inputs":{}}}' % ("k" * 257),
]


@pytest.mark.parametrize("body", NOT_PROMPTS)
def test_what_is_not_a_prompt_is_400(agent, body):
    check_envelope(agent.run(body), 400, "not_a_prompt")


def test_a_node_that_is_wrong_is_named(agent):
    error = check_envelope(agent.run('{%s,"a \\"b\\"":{"inputs":{}}}' % NODE), 400, "not_a_prompt")
    assert error["node_id"] == 'a "b"' and "class_type" in error["hint"]


def test_a_workflow_of_the_editor_is_told_how_to_be_exported(agent):
    saved = {"last_node_id": 2, "nodes": [{"id": 1, "type": "KSampler"}], "links": [], "version": 0.4}
    for body in (saved, {"prompt": saved}):
        assert "Export (API)" in check_envelope(agent.run(body), 400, "ui_format")["hint"]


@pytest.mark.parametrize("member", ['"callback":"http://x"', '"task_id":1', '"results":"some"', '"results":1',
                                    '"extra_data":[]', '"metadata":"%s"' % ("m" * 70_000)])
def test_an_envelope_with_a_wrong_member_is_400(agent, member):
    check_envelope(agent.run('{"prompt":{%s},%s}' % (NODE, member)), 400, "bad_envelope")


def test_nothing_of_all_that_reaches_comfyui(agent):
    before = len(agent.comfy.prompts)
    for body in [body for body, _ in INVALID] + NOT_PROMPTS:
        assert agent.run(body).status == 400
    assert len(agent.comfy.prompts) == before


# --- 404, 405, 413, 415, 408 ---------------------------------------------------------------------


def test_what_is_not_known_is_404(agent):
    for path in ("/api/status?id=nobody", "/api/tasks/nobody"):
        reply = agent.get(path)
        check_envelope(reply, 404, "not_found", "LoadProgressError")
        assert reply.headers["task-id"] == "nobody"
    for path in ("/api/status", "/api/status?id=", "/api/status?id=.a", "/api/tasks/a%2Fb"):
        check_envelope(agent.get(path), 400, "bad_id")


@pytest.mark.parametrize("method, path, allow", [
    ("GET", "/api/run", "POST"), ("PUT", "/api/run", "POST"), ("POST", "/api/status?id=x", "GET, HEAD"),
    ("DELETE", "/api/tasks", "GET, HEAD"), ("POST", "/api/tasks/x", "GET, HEAD, DELETE"),
    ("PATCH", "/api/tasks/x/prompt", "GET, HEAD"), ("POST", "/api/tasks/x/outputs/0", "GET, HEAD"),
    ("POST", "/healthz", "GET, HEAD"), ("DELETE", "/readyz", "GET, HEAD")])
def test_a_method_that_is_not_known_is_405_and_says_which_are(agent, method, path, allow):
    reply = agent.ask(method, path)
    check_envelope(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == allow


def test_a_body_that_is_too_large_is_413_however_it_comes(world):
    agent = world.agent(env={"BODY_MAX_BYTES": "2000"})
    large = json.dumps({"1": node("TestText", text="x" * 2000)})
    declared = agent.run(large, "t")
    check_envelope(declared, 413, "body_too_large")
    assert declared.headers["task-id"] == "t"
    peer = Peer(agent.port, b"POST /api/run HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    peer.say(b"".join(b"64\r\n" + b" " * 100 + b"\r\n" for _ in range(21)))
    check_envelope(peer.hear(), 413, "body_too_large")
    peer.leave()
    assert agent.run(json.dumps({"1": node("TestText", text="x" * 1500)})).status == 200


@pytest.mark.parametrize("header, value, code", [
    ("content-type", "multipart/form-data; boundary=x", "unsupported_media_type"),
    ("content-type", "Multipart/mixed", "unsupported_media_type"),
    ("content-encoding", "gzip", "unsupported_encoding"),
    ("content-encoding", "identity, br", "unsupported_encoding")])
def test_types_that_are_not_taken_are_415(agent, header, value, code):
    reply = agent.run("{%s}" % NODE, "t415", {header: value})
    check_envelope(reply, 415, code)
    assert reply.headers["task-id"] == "t415"


@pytest.mark.parametrize("header", [{"content-type": "application/x-www-form-urlencoded"},
                                    {"content-type": "text/plain"}, {"content-encoding": "identity"}, {}])
def test_the_content_type_is_not_looked_at(agent, header):
    assert agent.run("{%s}" % NODE, headers=header).status == 200


def test_a_body_that_stops_coming_is_408(world):
    agent = world.agent(env={"BODY_TIMEOUT": "300ms"})
    peer = Peer(agent.port, post("/api/run", b"x" * 100, "task-id: t")[:-90])
    reply = peer.hear()
    check_envelope(reply, 408, "body_timeout")
    assert reply.headers["task-id"] == "t"
    assert peer.hears_the_end(), "what was missing may still come"
    peer.leave()


# --- what ComfyUI says -----------------------------------------------------------------------------


def test_a_prompt_that_comfyui_refuses_is_422(both):
    agent = both.agent()
    reply = agent.run({"2": node("SaveImage", filename_prefix="x")}, "t")
    error = check_envelope(reply, 422, "prompt_refused", "CallComfyUIPromptError")
    assert error["node_errors"]["2"]["errors"][0]["type"] == "required_input_missing"
    assert (reply.headers["task-id"], reply.headers["task-status"]) == ("t", "failed")
    assert agent.record("t").json["error"] == error
    assert agent.get("/api/status?id=t").status == 200
    check_envelope(agent.run({"1": node("NoSuchNode")}), 422, "prompt_refused", "CallComfyUIPromptError")
    check_envelope(agent.run({"1": node("EmptyImage", width=16, height=16, batch_size=1, color=0)}), 422,
                   "prompt_refused", "CallComfyUIPromptError")


def test_a_prompt_of_which_comfyui_would_drop_an_output_is_422_and_does_not_run(both):
    agent = both.agent()
    prompt = {**image_prompt(1), "3": node("SaveImage", filename_prefix="x")}
    error = check_envelope(agent.run(prompt, "t"), 422, "outputs_dropped", "CallComfyUIPromptError")
    assert list(error["node_errors"]) == ["3"]
    until("ComfyUI to be done", agent.comfy.is_idle)
    assert agent.run(image_prompt(2)).status == 200


def test_a_node_that_raises_is_500_and_says_where(both):
    agent = both.agent()
    reply = agent.run({"7": node("TestRaise", message="no such luck", kind="ValueError")}, "t")
    error = check_envelope(reply, 500, "node_error", "CallComfyUIPromptError")
    assert (error["node_id"], error["class_type"]) == ("7", "TestRaise")
    assert error["exception_type"].endswith("ValueError") and "no such luck" in error["detail"]
    assert any("Traceback" in line or "File " in line for line in error["traceback"])
    assert reply.headers["task-status"] == "failed"


def test_a_run_that_somebody_else_interrupts_is_500(both):
    agent = both.agent()
    peer, task_id = held_run(agent, steps_prompt(500), "task-id: t")
    assert ask(agent.comfy.port, "POST", "/interrupt", "{}").status == 200
    agent.comfy.release()
    assert peer.hear().status == 500
    peer.leave()
    assert agent.record("t").json["error"]["code"] == "interrupted"


def test_what_comfyui_breaks_is_502(both):
    agent = both.agent()
    agent.comfy.control({"at": "http", "route": "POST /prompt", "do": "answer", "status": 500, "times": 0})
    check_envelope(agent.run(image_prompt(1)), 502, "comfyui_error", "CallComfyUIPromptError")
    agent.comfy.reset()
    agent.comfy.control({"at": "http", "route": "POST /prompt", "do": "answer", "status": 200, "body": "<html>",
                         "times": 0})
    check_envelope(agent.run(image_prompt(2)), 502, "comfyui_garbage", "CallComfyUIPromptError")
    agent.comfy.reset()
    agent.comfy.control({"at": "http", "route": "/view", "do": "answer", "status": 404, "body": "", "times": 0})
    reply = agent.run(image_prompt(3), "t")
    check_envelope(reply, 502, "output_missing", "MarshalResultError")
    assert agent.record("t").json["status"] == "failed"


def test_a_task_that_takes_too_long_is_504_and_leaves_comfyui(world):
    agent = world.agent(env={"RUN_TIMEOUT": "700ms"})
    reply = agent.run(steps_prompt(5000, 20), "t")
    check_envelope(reply, 504, "run_timeout", "CallComfyUIPromptError")
    assert reply.headers["task-status"] == "failed"
    until("ComfyUI to be free", agent.comfy.is_idle)
    assert agent.run({"1": node("TestText", text="x")}).status == 200


def test_a_comfyui_that_says_nothing_for_too_long_is_504_and_a_fresh_one(world):
    agent = world.agent(env={"STALL_TIMEOUT": "500ms", "MAX_ATTEMPTS": "1"})
    pid = agent.comfy.state()["pid"]
    assert agent.run(steps_prompt(40, 20), "steps").status == 200, "steps are news"
    reply = agent.run({"1": node("TestHang", ms=60_000)}, "t")
    check_envelope(reply, 504, "stalled", "CallComfyUIPromptError")
    assert agent.run({"1": node("TestText", text="x")}).status == 200
    assert agent.comfy.state()["pid"] != pid


@pytest.mark.long
@pytest.mark.parametrize("stall", ["2s", "8s"], ids=["before it is looked for", "while it is"])
def test_a_comfyui_that_is_stuck_in_a_run_is_504_and_a_fresh_one(world, stall):
    """Its port takes connections, and nothing is ever answered: a driver that hangs."""
    agent = world.agent(env={"STALL_TIMEOUT": stall, "MAX_ATTEMPTS": "1"})
    pid = agent.comfy.state()["pid"]
    run = later(agent.run, steps_prompt(1000, 20), "t")
    until("the task to run", lambda: running(agent, "t"))
    os.kill(pid, signal.SIGSTOP)
    check_envelope(run.result(), 504, "stalled", "CallComfyUIPromptError")
    assert agent.run({"1": node("TestText", text="x")}).status == 200
    assert agent.comfy.state()["pid"] != pid


@pytest.mark.long
def test_a_comfyui_that_got_stuck_while_idle_is_replaced_for_the_next_call(world):
    agent = world.agent(env={"STARTUP_TIMEOUT": "6s"})
    pid = agent.comfy.state()["pid"]
    os.kill(pid, signal.SIGSTOP)
    until("the socket to be given up", lambda: "not open for prompts" in agent.text(), 90)
    assert agent.run({"1": node("TestText", text="x")}).status == 200
    assert agent.comfy.state()["pid"] != pid


def test_who_waits_behind_a_native_call_waits_for_its_end(world):
    """It answers nothing, nor can its WebSocket be opened: because it works."""
    agent = world.agent(env={"STARTUP_TIMEOUT": "3s"})
    pid = agent.comfy.state()["pid"]
    run = later(agent.run, steps_prompt(300, 20), "t")
    until("the task to run", lambda: running(agent, "t"))
    queued = later(agent.run, image_prompt(1), "queued")
    until("the other to wait", lambda: agent.get("/readyz").json["tasks"]["waiting"] == 1)
    agent.comfy.control({"at": "now", "do": "ws_drop"})
    os.kill(pid, signal.SIGSTOP)
    time.sleep(5)
    os.kill(pid, signal.SIGCONT)
    assert (run.result().status, queued.result().status) == (200, 200)
    assert agent.comfy.state()["pid"] == pid


def test_what_was_given_up_holds_up_those_behind_it_without_costing_comfyui(world):
    """Its WebSocket has the time of a start to open, from when ComfyUI has let go of the prompt."""
    agent = world.agent(env={"PLATFORM": "fc", "STARTUP_TIMEOUT": "16s"})
    pid = agent.comfy.state()["pid"]
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    run = later(agent.run, steps_prompt(1), "t", {"X-Fc-Function-Timeout": "2"})
    agent.comfy.await_hold("node")
    queued = later(agent.run, image_prompt(1), "queued")
    until("the other to wait", lambda: agent.get("/readyz").json["tasks"]["waiting"] == 1)
    agent.comfy.control({"at": "http", "route": "GET /ws", "do": "answer", "status": 503, "times": 0},
                        {"at": "now", "do": "ws_drop"})
    assert run.result().code == "run_timeout"
    time.sleep(9)  # more than half a start
    looks = agent.comfy.state()["requests"]["GET /queue"]
    agent.comfy.release()
    until("it to be looked for", lambda: agent.comfy.state()["requests"]["GET /queue"] >= looks + 2)
    time.sleep(1)  # a tick sees that it is gone
    agent.comfy.reset()
    assert queued.result().status == 200
    assert agent.comfy.state()["pid"] == pid


def test_a_lost_socket_is_no_silence_of_a_run_that_goes_on(world):
    agent = world.agent(env={"STALL_TIMEOUT": "1s"})
    pid = agent.comfy.state()["pid"]
    run = later(agent.run, steps_prompt(150, 20), "t")
    until("the task to run", lambda: running(agent, "t"))
    agent.comfy.control({"at": "now", "do": "ws_drop"})
    assert run.result().status == 200
    assert agent.record("t").json["attempt"] == 1 and agent.comfy.state()["pid"] == pid


def test_a_silence_is_looked_into_when_the_socket_is_lost_just_before_its_time_is_up(world):
    """What would have ended it may have been lost with the socket. A busy machine may come too late, or not hear of
    the last news at once, but not each time."""
    agent = world.agent(env={"STALL_TIMEOUT": "1s", "MAX_ATTEMPTS": "1"})
    for n in range(5):
        agent.comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
        run = later(agent.run, steps_prompt(1), f"t{n}")
        agent.comfy.await_hold("node")
        time.sleep(0.88)  # the look after the loss comes 250 ms later
        agent.comfy.control({"at": "now", "do": "ws_drop"})
        time.sleep(0.5)
        agent.comfy.release()
        if run.result().status == 200:
            return
        agent.comfy.reset()
        until("ComfyUI to be ready again", lambda: agent.get("/readyz").status == 200)
    pytest.fail("a run whose socket was lost was called stalled each time")


@pytest.mark.long
def test_one_look_without_an_answer_is_no_stall_of_a_run_whose_socket_was_lost(world):
    agent = world.agent(env={"STALL_TIMEOUT": "4s"})
    run = later(agent.run, steps_prompt(400, 20), "t")
    until("the task to run", lambda: running(agent, "t"))
    agent.comfy.control({"at": "now", "do": "ws_drop"})
    time.sleep(5)
    agent.comfy.control({"at": "http", "route": "GET /history/*", "do": "hold", "name": "look"})
    agent.comfy.await_hold("http")
    time.sleep(1.2)
    agent.comfy.release("look")
    assert run.result().status == 200
    assert agent.record("t").json["attempt"] == 1


@pytest.mark.parametrize("pad", [0, 9 << 20], ids=["small", "too large to keep"])
def test_what_custom_nodes_tell_everybody_is_no_news_of_a_prompt_that_hangs(both, pad):
    """As monitors of the GPU do, from threads of their own."""
    agent = both.agent(env={"STALL_TIMEOUT": "1s", "MAX_ATTEMPTS": "1"})
    run = later(agent.run, {"1": node("TestHang", ms=12_000)}, "t")
    until("the task to run", lambda: running(agent, "t"))
    while not run.done():
        for type_ in ("crystools.monitor", "status"):
            text = json.dumps({"type": type_, "data": {"device_type": "cuda", "pad": "x" * pad}})
            with contextlib.suppress(OSError):
                agent.comfy.control({"at": "now", "do": "ws_text", "text": text})
        time.sleep(0.2)
    check_envelope(run.result(), 504, "stalled", "CallComfyUIPromptError")


# --- ids -------------------------------------------------------------------------------------------

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")


def test_where_the_id_comes_from(agent):
    text = "{%s}" % NODE
    inside = '{"prompt":{%s},"task_id":"envelope"}' % NODE
    for body, headers, query, want in [
            (text, {"task-id": "header"}, "", "header"),
            (text, {"Task-Id": "  header2 "}, "", "header2"),
            (text, {"x-fc-async-task-id": "async"}, "", "async"),
            (text, {}, "?task-id=query", "query"),
            (text, {}, "?x=1&task-id=que%72y2", "query2"),
            (inside, {}, "", "envelope"),
            (inside.replace("envelope", "env\\u0065lope2"), {}, "", "envelope2"),
            (text, {"x-fc-request-id": "request"}, "", "request"),
            # who is nearer to the caller wins
            (inside, {"task-id": "a", "x-fc-async-task-id": "b", "x-fc-request-id": "c"}, "?task-id=d", "a"),
            (inside, {"x-fc-async-task-id": "e", "x-fc-request-id": "c"}, "?task-id=d", "e"),
            (inside, {"x-fc-request-id": "c"}, "?task-id=f", "f"),
            (inside, {"x-fc-request-id": "c"}, "", "envelope"),
            (text, {"task-id": "", "x-fc-request-id": "g"}, "?task-id=", "g")]:
        reply = agent.run(body, headers=headers, query=query)
        assert (reply.status, reply.headers["task-id"]) == (200, want), (headers, query, reply)
        assert agent.record(want).json["id"] == want
    for headers in ({}, {"x-fc-request-id": "not/an/id"}):
        first, second = (agent.run(text, headers=headers).headers["task-id"] for _ in range(2))
        assert UUID.match(first) and UUID.match(second) and first != second


BAD_IDS = [".", "..", ".a", "-a", "a/b", "/a", "a..b", "a.tmp", "a b", "a\\b", "a%2Fb", "a~b", "a:b", "a*",
           "\u00e9", "a" * 129, "a;b", "a'b", "a$b", "a,b", "~task", "a\tb"]


@pytest.mark.parametrize("bad", BAD_IDS)
def test_ids_that_are_none_are_refused_wherever_they_come_from(agent, shared_world, bad):
    body = "{%s}" % NODE
    replies = []
    if bad.isascii():
        replies += [agent.run(body, headers={name: bad}) for name in ("task-id", "x-fc-async-task-id")]
    replies.append(agent.run(body, query="?task-id=" + quote(bad, safe="")))
    replies.append(agent.run({"prompt": json.loads(body), "task_id": bad}))
    for refused in replies:
        check_envelope(refused, 400, "bad_id")
        assert UUID.match(refused.headers["task-id"])
    check_envelope(agent.get("/api/status?id=" + quote(bad, safe="")), 400, "bad_id")
    # Ends of the cases before may still be on their way into the store: only these ids must not be there.
    ids = {bad, *(refused.headers["task-id"] for refused in replies)}
    stored = [path.name for path in shared_world.store.glob("*")]
    assert [name for name in stored if name.split("~")[0] in ids] == []


@pytest.mark.parametrize("good", ["a", "A-._9", "_", "0", "a" * 128, "a.b.c", "tmp", "a.tmpx"])
def test_ids_that_are_taken(agent, good):
    reply = agent.run("{%s}" % NODE, good)
    assert (reply.status, reply.headers["task-id"]) == (200, good)


def test_every_reply_of_a_run_carries_the_id(world):
    agent = world.agent(env={"BODY_MAX_BYTES": "5000", "MAX_QUEUE": "0"})
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
    long = threading.Thread(target=agent.run, args=(sleep_prompt(1), "first"))
    long.start()
    until("it to run", lambda: agent.comfy.state()["started"])
    for status, body, headers in [
            (400, "{", {}), (400, "{}", {}), (413, "x" * 5001, {}), (415, "{}", {"content-type": "multipart/x"}),
            (409, "{%s}" % NODE, {"task-id": "first"}), (429, "{%s}" % NODE, {}),
            (400, '{"prompt":{%s},"results":7}' % NODE, {})]:
        for given in ({"task-id": "mine"}, {}):
            reply = agent.run(body, headers={**given, **headers})
            want = {**given, **headers}.get("task-id")
            assert reply.status == status or (status == 409 and want != "first"), (status, reply)
            got = reply.headers["task-id"]
            assert got == want if want else UUID.match(got), (status, reply)
            if status == 429:
                assert int(reply.headers["retry-after"]) > 0
    agent.comfy.release()
    long.join()


# --- shapes of an answer -----------------------------------------------------------------------------


def test_results_are_left_out_when_asked(agent):
    prompt = image_prompt(5)
    with_results = agent.run(prompt)
    assert len(with_results.json["2"]["results"]) == len(with_results.json["2"]["images"]) == 1
    for body, query in ((prompt, "?results=none"), ({"prompt": prompt, "results": "none"}, ""),
                        ({"prompt": prompt, "results": False}, ""), ({"prompt": prompt, "results": True}, "?results=none")):
        reply = agent.run(body, query=query)
        assert reply.status == 200 and "results" not in reply.json["2"]
        assert len(reply.json["2"]["images"]) == 1
        assert int(reply.headers["content-length"]) == len(reply.body)
    assert agent.run({"prompt": prompt, "results": True}).json["2"]["results"]


@pytest.mark.parametrize("whose", ["here", "elsewhere"])
def test_the_status_has_results_for_who_asks(world, whose):
    comfy = world.comfyui()
    runs = world.agent("runs", url=comfy.url)
    asked = runs if whose == "here" else world.agent("asked", url=comfy.url)
    replay = runs.run(image_prompt(5), "t")
    for query in ("&results=1", "&results=true", "&results=1&wait=30"):
        reply = asked.get(f"/api/status?id=t{query}")
        assert (reply.status, reply.json) == (200, replay.json), reply
        assert (reply.headers["task-id"], reply.headers["task-status"]) == ("t", "succeeded")
        assert reply.headers["cache-control"] == "no-cache" and reply.headers["etag"] is None
    plain = asked.get("/api/status?id=t")
    assert "results" not in plain.json["2"]
    for query in ("&results=0", "&results=none"):
        reply = asked.get(f"/api/status?id=t{query}")
        assert (reply.body, reply.headers["etag"]) == (plain.body, plain.headers["etag"])
    known = asked.get("/api/status?id=t&results=1", **{"if-none-match": plain.headers["etag"]})
    assert known.json == replay.json, "who has the plain one has no results"
    head = asked.ask("HEAD", "/api/status?id=t&results=1")
    assert (head.status, head.body, head.headers["task-status"]) == (200, b"", "succeeded")
    assert "results" not in asked.get("/api/tasks/t?results=1").json["nodes"]["2"]
    (world.output / plain.json["2"]["images"][0]["filename"]).unlink()
    for method in ("GET", "HEAD"):
        reply = asked.ask(method, "/api/status?id=t&results=1")
        assert (reply.status, reply.headers["task-id"]) == (410, "t")
    assert asked.get("/api/status?id=t&results=1").code == "output_gone"
    assert asked.get("/api/status?id=t").status == 200, "the node map is there all the same"


def test_the_status_has_no_results_before_the_end_or_of_a_failure(world):
    agent = world.agent()
    peer, task_id = held_run(agent, image_prompt(7), "task-id: t")
    reply = agent.get("/api/status?id=t&results=1")
    assert (reply.status, reply.headers["task-status"]) == (200, "running")
    assert "results" not in reply.json["2"] and reply.headers["etag"]
    # Its outputs are waited for: the next change is the end.
    agent.comfy.control({"at": "http", "route": "/view", "do": "sleep", "ms": 1000, "times": 0})
    agent.comfy.release()
    until("the last node", lambda: agent.get("/api/status?id=t").json["2"]["value"] == 1)
    time.sleep(0.3)
    etag = agent.get("/api/status?id=t").headers["etag"]
    reply = agent.get("/api/status?id=t&results=1&wait=30", **{"if-none-match": etag})
    assert reply.json == peer.hear().json and reply.json["2"]["results"]
    peer.leave()
    assert agent.run({"7": node("TestRaise", message="no", kind="ValueError")}, "u").status == 500
    assert agent.get("/api/status?id=u&results=1").body == agent.get("/api/status?id=u").body
    assert agent.get("/api/status?id=nobody&results=1").status == 404


def test_who_asks_for_results_may_leave(world):
    agent = world.agent()
    big = {"1": node("TestBigImage", bytes=8 * 1024 * 1024, filename_prefix="big")}
    assert agent.run(big, "t", query="?results=none").status == 200
    for method in ("GET", "HEAD") * 4:
        peer = Peer(agent.port, f"{method} /api/status?id=t&results=1 HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert peer.socket.recv(100).startswith(b"HTTP/1.1 200 ")
        peer.leave(reset=True)
    for _ in range(20):
        assert agent.ask("HEAD", "/api/status?id=t&results=1").status == 200
    assert agent.get("/api/status?id=t&results=1").json == agent.run(big, "t").json


def test_texts_are_told_and_only_where_there_are_any(both):
    agent = both.agent()
    said = 'a "quoted" \u00e9\u4e2d\U0001f600 line\nnext\x00'
    reply = agent.run({"1": node("TestText", text=said), **{"2": image_prompt(1)["1"], "3": node(
        "SaveImage", images=["2", 0], filename_prefix="x")}})
    assert reply.status == 200
    assert reply.json["1"]["text"] == [said] and reply.json["1"]["images"] == []
    assert "results" not in reply.json["1"] and "text" not in reply.json["3"]
    assert reply.json["2"]["images"] == []


def test_what_is_posted_to_comfyui_is_taken_too(agent):
    reply = agent.run({"prompt": image_prompt(3), "client_id": "x", "extra_data": {"extra_pnginfo": {"a": 1}},
                       "metadata": {"who": "me"}}, "posted")
    assert reply.status == 200
    record = agent.record("posted").json
    assert record["metadata"] == {"who": "me"}
    sent = json.loads(agent.comfy.body(len(agent.comfy.prompts) - 1))
    assert sent["extra_data"]["extra_pnginfo"] == {"a": 1} and sent["client_id"] != "x"


def test_head_is_get_without_its_body(agent):
    agent.run(image_prompt(4), "head")
    for path in ("/api/status?id=head", "/api/tasks/head", "/healthz", "/readyz", "/api/status?id=nobody"):
        get = agent.get(path)
        head = agent.ask("HEAD", path)
        assert (head.status, head.body) == (get.status, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
        if path.startswith("/api"):
            assert head.headers["content-length"] == str(len(get.body))


def test_what_has_not_changed_is_304(agent):
    agent.run(image_prompt(6), "etag")
    for path in ("/api/status?id=etag", "/api/tasks/etag"):
        first = agent.get(path)
        assert first.status == 200 and first.headers["cache-control"] == "no-cache"
        assert first.headers["task-status"] == "succeeded"
        same = agent.get(path, **{"if-none-match": first.headers["etag"]})
        assert (same.status, same.body) == (304, b"")
        assert same.headers["etag"] == first.headers["etag"]
        assert agent.get(path, **{"if-none-match": '"other"'}).status == 200
        listed = agent.get(path, **{"if-none-match": f'"other", W/{first.headers["etag"]}'})
        assert listed.status == 304, "a list, and weak comparison: RFC 9110, 13.1.2"
        assert agent.get(path, **{"if-none-match": "*"}).status == 304
        assert with_lines(agent, f"GET {path}", 'if-none-match: "other"',
                          f'if-none-match: {first.headers["etag"]}').status == 304, "one list: RFC 9110, 5.3"


def with_lines(agent, request, *lines, body=""):
    """Headers of one name on several lines, which http.client does not send."""
    peer = Peer(agent.port, "\r\n".join([f"{request} HTTP/1.1", "host: x", f"content-length: {len(body)}", *lines,
                                         "", body]).encode())
    try:
        return peer.hear()
    finally:
        peer.leave()


def test_several_lines_of_a_header_are_one_list(agent):
    body = json.dumps(image_prompt(11))
    reply = with_lines(agent, "POST /api/run", "accept: audio/*", "accept: image/*", body=body)
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
    reply = with_lines(agent, "POST /api/run", "accept: image/*", "accept: application/json", body=body)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json"), "he takes JSON, too"
    reply = with_lines(agent, "POST /api/run", "prefer: handling=lenient", "prefer: respond-async", body=body)
    assert reply.status == 202
    reply = with_lines(agent, "POST /api/run", "accept:", "accept: image/*,,", body=body)
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png"), "what is empty does not count"


def test_a_front_doors_call_is_for_the_task_that_its_header_names(agent):
    for headers, query in (({"task-id": "hdr"}, ""), ({}, "?task-id=hdr")):
        reply = agent.run({"task_id": "nobody", "attempt": 1}, headers=headers, query=query)
        check_envelope(reply, 400, "bad_id")
        assert reply.headers["task-id"] == "hdr"
    agent.run({"task_id": "nobody", "attempt": 1}, headers={"x-fc-async-task-id": "made-by-the-platform"})
    for task_id in ("hdr", "made-by-the-platform"):
        assert agent.get(f"/api/status?id={task_id}").status == 404


def test_two_ids_are_none(agent):
    body = "{%s}" % NODE
    check_envelope(with_lines(agent, "POST /api/run", "task-id: a", "task-id: b", body=body), 400, "bad_id")
    reply = with_lines(agent, "POST /api/run", "task-id: twice", "task-id:  twice", body=body)
    assert (reply.status, reply.headers["task-id"]) == (200, "twice")


def test_nothing_that_is_said_of_a_task_is_kept_for_later(world):
    agent = world.agent()
    world.store.mkdir(exist_ok=True)
    (world.store / "old").write_text('{"1":{"max":1,"value":1,"start":0,"last_updated":0,"images":[]}}')
    for path, status in (("/api/status?id=nobody", 404), ("/api/tasks/nobody", 404), ("/api/status?id=.a", 400),
                         ("/api/status?id=x&wait=x", 400), ("/api/tasks/x?wait=x", 400), ("/api/status?id=old", 200)):
        reply = agent.get(path)
        assert (reply.status, reply.headers.get_all("cache-control")) == (status, ["no-cache"]), (path, reply)


def test_the_etag_changes_when_the_task_does(world):
    agent = world.agent()
    peer, task_id = held_run(agent, steps_prompt(3, 1), "task-id: t")
    before = agent.get("/api/status?id=t").headers["etag"]
    agent.comfy.release()
    assert peer.hear().status == 200
    after = agent.get("/api/status?id=t", **{"if-none-match": before})
    assert after.status == 200 and after.headers["etag"] != before
    peer.leave()


# --- who leaves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
def test_a_caller_that_leaves_cancels_a_task_without_an_id_of_its_own(world, reset):
    agent = world.agent()
    peer, task_id = held_run(agent, steps_prompt(2000), "x-fc-request-id: r-1")
    assert task_id == "r-1"
    peer.leave(reset)
    agent.comfy.release()
    until("it to be cancelled", lambda: agent.record(task_id).json["status"] == "cancelled")
    until("ComfyUI to be free", agent.comfy.is_idle)
    assert agent.record(task_id).json["error"]["code"] == "caller_left"


@pytest.mark.long
def test_who_hangs_up_on_a_load_that_reads_no_interrupt_does_not_cost_the_models(world):
    """Half a minute later its task has ended; ComfyUI goes on, and is free when the load is over."""
    agent = world.agent()
    pid = agent.comfy.state()["pid"]
    peer = Peer(agent.port, post("/api/run", {"1": node("TestHang", ms=36_000)}, "x-fc-request-id: r-1"))
    until("the node to run", lambda: agent.comfy.state()["nodes_run"] == 1)
    peer.leave()
    until("its end", lambda: agent.record("r-1").json["status"] == "cancelled", 40)
    assert agent.run(image_prompt(1)).status == 200
    assert agent.comfy.state()["pid"] == pid


def test_a_prompt_that_was_given_up_and_never_stops_costs_its_comfyui(world):
    """The function's time is over long before it would be known to hang."""
    agent = world.agent(env={"PLATFORM": "fc", "STALL_TIMEOUT": "4s"})
    pid = agent.comfy.state()["pid"]
    reply = agent.run({"1": node("TestHang", ms=600_000)}, "t", {"X-Fc-Function-Timeout": "2"})
    assert (reply.status, reply.code) == (504, "run_timeout")
    assert agent.run(image_prompt(1)).status == 200
    assert agent.comfy.state()["pid"] != pid


def test_a_prompt_that_was_given_up_and_stops_at_the_last_moment_costs_nothing(world):
    agent = world.agent(env={"PLATFORM": "fc", "STALL_TIMEOUT": "4s"})
    pid = agent.comfy.state()["pid"]
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    run = later(agent.run, steps_prompt(1), "t", {"X-Fc-Function-Timeout": "2"})
    until("it to be given up", lambda: agent.comfy.state()["interrupts"])
    agent.comfy.control({"at": "http", "route": "GET /queue", "do": "hold", "name": "look"})
    agent.comfy.await_hold("http")
    assert run.result().code == "run_timeout"
    time.sleep(5)
    agent.comfy.release()
    until("the prompt to end", lambda: not agent.comfy.state()["queue"]["running"])
    agent.comfy.release("look")
    assert agent.run(image_prompt(1)).status == 200
    assert agent.comfy.state()["pid"] == pid


def test_a_caller_that_leaves_lets_a_task_with_an_id_go_on(world):
    agent = world.agent()
    peer, task_id = held_run(agent, steps_prompt(5), "task-id: t")
    peer.leave(reset=True)
    agent.comfy.release()
    until("its end", lambda: agent.record("t").json["status"] == "succeeded")
    assert agent.comfy.state()["interrupts"] == []


@pytest.mark.parametrize("viewer_goes", ["before", "after"])
def test_who_only_looks_on_keeps_no_run_going(world, viewer_goes):
    agent = world.agent()
    peer, task_id = held_run(agent, steps_prompt(2000), "x-fc-request-id: r-1")
    viewers = [Peer(agent.port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
               for path in (f"/api/tasks/{task_id}/events", f"/api/tasks/{task_id}?wait=60")]
    until("both to look on", lambda: re.search(r"(?m)^comfy_agent_http_connections ([4-9])", agent.get("/metrics").body.decode()))
    for one in viewers if viewer_goes == "before" else []:
        one.leave()
    peer.leave()
    agent.comfy.release()
    until("it to be cancelled", lambda: agent.record(task_id).json["status"] == "cancelled")
    for one in viewers if viewer_goes == "after" else []:
        one.leave()


def test_a_caller_that_leaves_takes_its_waiting_task_along(world):
    agent = world.agent()
    peer, task_id = held_run(agent, steps_prompt(5), "task-id: first")
    other = Peer(agent.port, post("/api/run", image_prompt(1), "x-fc-request-id: w"))
    until("it to wait", lambda: agent.get("/readyz").json["tasks"]["waiting"] == 1)
    other.leave()
    until("it to be gone", lambda: agent.record("w").json["status"] == "cancelled")
    agent.comfy.release()
    assert peer.hear().status == 200
    peer.leave()
    assert len(agent.comfy.prompts) == 1
