"""On Function Compute: through the gateway of tests/fc, and what an instance says to it."""

import contextlib
import http.client
import json
import re
import signal
import sys
import threading
import time

import pytest

from world import AGENT, ROOT, ask, free_port, image_prompt, later, node, sleep_prompt, steps_prompt, until

sys.path.insert(0, str(ROOT / "tests" / "fc"))

from local_fc import LocalFc

LEASE = {"LEASE_TIMEOUT": "2s"}


@pytest.fixture
def make_fc(world):
    """make(env=…, comfy=None, **settings of LocalFc). `comfy`: one ComfyUI for all instances, which is
    not frozen with them and can be asked what it was asked."""
    made = []

    def make(env=None, comfy=None, **settings):
        settings_of_agent = {"STORE_URL": f"file:{world.store}", "LISTEN_HOST": "127.0.0.1", "STANDIN_AGE": world.age,
                             "ASAN_OPTIONS": "detect_leaks=1:exitcode=99:abort_on_error=0", **LEASE, **(env or {})}
        command = [str(AGENT)]
        if comfy is not None:
            settings_of_agent["COMFYUI_URL"] = comfy.url
        else:
            settings_of_agent["COMFYUI_PORT"] = "{comfy}"
            command += ["--", *world.comfy_argv("{comfy}")]
        fc = LocalFc(world.directory, command, env=settings_of_agent, port_of=free_port, **settings)
        made.append(fc)
        return fc

    yield make
    problems = []
    for fc in made:
        fc.close()
        for instance in fc.instances:
            text = instance.log.read_text(errors="replace")
            if "Sanitizer" in text or "assertion failed" in text or instance.child.returncode not in (0, -9):
                problems.append(f"{instance.log.name} ended with {instance.child.returncode}: {text[-6000:]}")
            else:
                print(f"----- {instance.log.name}\n{text[-4000:]}", file=sys.stderr)
    assert not problems, "\n".join(problems)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.body = status, body
        self.headers = {name.lower(): value for name, value in headers.items()}
        with contextlib.suppress(ValueError):
            self.json = json.loads(body)

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:500]!r}>"


def call(fc, prompt, task_id=None, path="/api/run", method="POST", **headers):
    body = prompt if isinstance(prompt, bytes) else json.dumps(prompt).encode()
    given = {name.replace("_", "-").title(): value for name, value in headers.items()}
    if task_id:
        given["Task-Id"] = task_id
    return Answer(*fc.gateway(method, path, body, given))


def send(fc, prompt, task_id=None, fc_id="", **headers):
    """An asynchronous call; the id by which `fc` knows it."""
    answer = call(fc, prompt, task_id, X_Fc_Invocation_Type="Async", X_Fc_Async_Task_Id=fc_id, **headers)
    assert answer.status == 202 and answer.body == b"", answer
    return answer.headers["x-fc-async-task-id"]


def end_of(fc, fc_id):
    return until(f"the end of {fc_id}", lambda: fc.results.get(fc_id))


def ended(world, task_id):
    record = world.document(f"{task_id}~task")
    return record if record and record["status"] in ("succeeded", "failed", "cancelled") else None


def is_running(world, task_id):
    record = world.document(f"{task_id}~task")
    return record is not None and record["status"] == "running"


# --- calls ---------------------------------------------------------------------------------------


def test_a_sync_call(make_fc):
    fc = make_fc()
    answer = call(fc, image_prompt(), "t")
    assert answer.status == 200 and answer.json["2"]["results"], answer
    assert answer.headers["task-id"] == "t"
    again = call(fc, b"", path="/api/status?id=t", method="GET")
    assert again.status == 200 and again.headers["task-status"] == "succeeded"
    log = fc.instances[0].log.read_text()
    request_id = answer.headers["x-fc-request-id"]
    for what in ("Start", "End"):
        assert re.search(f"^FC Invoke {what} RequestId: {request_id}$", log, re.M)
    assert re.search("^FunctionCompute comfy-agent runtime inited.$", log, re.M)
    assert fc.count["frozen"] >= 2 and fc.started == 1


@pytest.mark.parametrize("marks", [("id",), ("type",), ()])
def test_an_async_call_is_held_until_its_end(world, make_fc, marks):
    comfy = world.comfyui()
    fc = make_fc(comfy=comfy, marks=marks)
    fc_id = send(fc, image_prompt())
    state, status, body, _ = end_of(fc, fc_id)
    assert (state, status) == ("Succeeded", 200)
    assert ("results" in json.loads(body)["2"]) == (not marks)  # nobody reads them, where that is seen
    assert ended(world, fc_id)["status"] == "succeeded"
    assert len(comfy.prompts) == 1


@pytest.mark.parametrize("accept", ["image/*", "video/*"])
def test_an_async_call_carries_no_output_whatever_it_accepts(make_fc, accept):
    fc = make_fc(marks=("id",))
    state, status, body, _ = end_of(fc, send(fc, image_prompt(), Accept=accept))
    assert (state, status) == ("Succeeded", 200), body
    assert json.loads(body)["2"]["images"] and "results" not in json.loads(body)["2"]


@pytest.mark.parametrize("marks", [("id",), ()])
def test_an_async_call_whose_instance_is_killed_goes_on_elsewhere(world, make_fc, marks):
    comfy = world.comfyui()
    fc = make_fc(comfy=comfy, marks=marks)
    fc_id = send(fc, steps_prompt(60, 20, seed=-1))
    until("it to run", lambda: is_running(world, fc_id))
    seeds = world.document(f"{fc_id}~task")["seeds"]
    fc.instances[0].kill()
    state, status, _, retry = end_of(fc, fc_id)
    assert (state, status, retry) == ("Succeeded", 200, 1)
    record = ended(world, fc_id)
    assert (record["status"], record["attempt"], record["seeds"]) == ("succeeded", 2, seeds)
    assert len(comfy.prompts) == 2


@pytest.mark.parametrize("marks", [("id",), ()])
def test_a_call_delivered_twice_is_run_once(world, make_fc, marks):
    comfy = world.comfyui()
    fc = make_fc(comfy=comfy, marks=marks, concurrency=1)
    fc_id = send(fc, steps_prompt(30, 20))
    until("it to run", lambda: is_running(world, fc_id))
    fc.deliver_again(fc_id)  # while it runs: to another instance, since this one is full
    until("the second delivery", lambda: fc.count["delivered"] == 2)
    first = end_of(fc, fc_id)
    until("both to end", lambda: all(instance.busy == 0 for instance in fc.instances))
    fc.deliver_again(fc_id)  # and when it has ended
    until("the third delivery", lambda: fc.count["delivered"] == 3)
    until("it to end", lambda: all(instance.busy == 0 for instance in fc.instances))
    assert fc.started == 2
    assert first[:2] == fc.results[fc_id][:2] == ("Succeeded", 200)
    assert len(comfy.prompts) == 1
    assert ended(world, fc_id)["attempt"] == 1


def test_a_bad_prompt_sent_async_is_told_by_its_record(world, make_fc):
    comfy = world.comfyui()
    fc = make_fc(comfy=comfy)
    cases = {"json": (b'{"1": ', "invalid_json"), "ui": (json.dumps({"nodes": [], "links": []}).encode(), "ui_format"),
             "list": (b"[]", "not_a_prompt")}
    for task_id, (body, code) in cases.items():
        state, status, _, _ = end_of(fc, send(fc, body, task_id))
        assert (state, status) == ("Succeeded", 400)  # another delivery would be no better
        record = world.document(f"{task_id}~task")
        assert (record["status"], record["error"]["code"]) == ("failed", code)
        answer = call(fc, b"", path=f"/api/status?id={task_id}", method="GET")
        assert (answer.status, answer.json, answer.headers["task-status"]) == (200, {}, "failed")
    assert fc.count["delivered"] == len(cases)
    assert world.document("json~task")["error"]["position"]["line"] == 1
    assert end_of(fc, send(fc, image_prompt(), "json"))[1] == 200  # the same id, with a prompt this time
    assert world.document("json~task")["status"] == "succeeded"
    assert end_of(fc, send(fc, b"[]", "json"))[1] == 409  # and not the other way round
    assert world.document("json~task")["status"] == "succeeded"


def test_what_is_refused_is_found_by_the_id_it_brought(world):
    """As the platform delivers it: its request id names the task only where nothing better does."""
    agent = world.agent(env={"PLATFORM": "fc"})
    bodies = {"shape": {"prompt": {"1": {"class_type": "X"}}}, "list": {"prompt": []}, "ui": {"nodes": [], "links": []},
              "envelope": {"prompt": {"1": node("TestText", text="x")}, "results": 1}}
    for task_id, body in bodies.items():
        headers = {"x-fc-request-id": f"req-{task_id}", "x-fc-invocation-type": "Async"}
        reply = agent.run({**body, "task_id": task_id}, headers=headers)
        assert (reply.status, reply.headers["task-id"]) == (400, task_id), reply
        assert agent.record(task_id).json["error"]["code"] == reply.code
        assert agent.get(f"/api/status?id={task_id}").headers["task-status"] == "failed"
        assert world.document(f"req-{task_id}~task") is None
    headers = {"x-fc-request-id": "req-9", "x-fc-invocation-type": "Async"}
    for body in ({"prompt": [], "task_id": "no/id"}, {"prompt": [], "task_id": 9}):
        reply = agent.run(body, headers=headers)
        assert (reply.status, reply.headers["task-id"]) == (400, "req-9"), reply
    assert agent.run({**bodies["shape"], "task_id": "sync"}).headers["task-id"] == "sync"
    assert agent.get("/api/status?id=sync").status == 404, "who was told keeps no record"


def test_a_refused_prompt_sent_async_is_delivered_once(world, make_fc):
    fc = make_fc(comfy=world.comfyui())
    fc_id = send(fc, {"2": node("SaveImage", filename_prefix="x")})
    assert end_of(fc, fc_id)[:2] == ("Succeeded", 422)
    assert ended(world, fc_id)["error"]["code"] == "prompt_refused"
    assert fc.count["delivered"] == 1


def test_async_calls_wait_where_others_are_refused(world, make_fc):
    comfy = world.comfyui()
    comfy.control({"at": "node", "do": "hold"})
    fc = make_fc({"MAX_QUEUE": "1"}, comfy=comfy, concurrency=20, instances=1)
    ids = [send(fc, sleep_prompt(1, seed)) for seed in range(5)]
    until("all to be here", lambda: all(world.document(f"{fc_id}~task") for fc_id in ids))
    assert call(fc, image_prompt()).status == 429
    comfy.release()
    assert {end_of(fc, fc_id)[:2] for fc_id in ids} == {("Succeeded", 200)}
    assert len(comfy.prompts) == 5


def test_invoke_function_runs_its_event_and_needs_no_key(world, make_fc):
    fc = make_fc({"API_KEY": "secret"}, comfy=world.comfyui())
    where = "/2023-03-30/functions/local/invocations"
    answer = call(fc, {"prompt": image_prompt(), "task_id": "t", "results": "none"}, path=where)
    assert answer.status == 200 and answer.json["2"]["images"] and "results" not in answer.json["2"]
    assert world.document("t~task")["status"] == "succeeded"
    assert call(fc, image_prompt(), path="/invoke").status == 401  # a user's own request to that path
    assert call(fc, image_prompt(), path="/invoke", X_Api_Key="secret").status == 200


# --- freeze --------------------------------------------------------------------------------------

IMPATIENT = {"STALL_TIMEOUT": "2s", "STARTUP_TIMEOUT": "8s", "HEAD_TIMEOUT": "1s", "LOG_LEVEL": "debug"}


def test_a_freeze_between_calls_is_not_felt(make_fc):
    fc = make_fc(IMPATIENT)
    assert call(fc, image_prompt(1)).status == 200
    (instance,) = fc.instances
    with instance.lock:
        instance.thaw()
    kept = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=60)
    kept.request("GET", "/healthz")
    assert kept.getresponse().read()
    with instance.lock:
        instance.freeze()
    time.sleep(3)
    assert call(fc, image_prompt(2)).status == 200
    with instance.lock:
        instance.thaw()
    local = kept.sock.getsockname()
    kept.request("GET", "/healthz")
    assert kept.getresponse().status == 200
    assert kept.sock.getsockname() == local  # the same connection
    kept.close()
    log = instance.log.read_text()
    assert re.search(r"did not run for [23]\d\d\d ms", log)
    assert log.count("starting, was") == 1 and fc.started == 1
    assert "socket lost" not in log


def test_a_freeze_in_the_middle_of_a_run_ends_nothing(world, make_fc):
    fc = make_fc({**IMPATIENT, "LEASE_TIMEOUT": "30s"})
    caller = threading.Thread(target=call, args=(fc, steps_prompt(100, 20), "t"))
    caller.start()
    until("it to run", lambda: is_running(world, "t"))
    (instance,) = fc.instances
    instance.signal_all(signal.SIGSTOP)
    time.sleep(3)
    instance.signal_all(signal.SIGCONT)
    caller.join(60)
    record = ended(world, "t")
    assert (record["status"], record["attempt"]) == ("succeeded", 1), record
    assert "did not run for" in instance.log.read_text()


def test_a_freeze_while_comfyui_starts_does_not_count(world, make_fc):
    fc = make_fc({"STARTUP_TIMEOUT": "6s", "STANDIN_BOOT_MS": "2500"})
    answers = []
    caller = threading.Thread(target=lambda: answers.append(call(fc, image_prompt(), "t")))
    caller.start()
    until("it to wait", lambda: world.document("t~task"))
    (instance,) = fc.instances
    instance.signal_all(signal.SIGSTOP)
    time.sleep(6.5)
    instance.signal_all(signal.SIGCONT)
    caller.join(60)
    assert answers[0].status == 200, answers
    assert instance.log.read_text().count("starting, was") == 1


# --- hooks ---------------------------------------------------------------------------------------


def test_initialize_waits_for_comfyui_and_warms_up(world, make_fc):
    (world.directory / "warmup.json").write_text(json.dumps(image_prompt(9, "warm")))
    fc = make_fc({"WARMUP_PROMPT": str(world.directory / "warmup.json"), "STANDIN_BOOT_MS": "500"}, initializer=60)
    assert call(fc, image_prompt(1)).status == 200
    log = fc.instances[0].log.read_text()
    order = [log.index(text) for text in ("FC Initialize Start", "warmup done", "FC Initialize End", "FC Invoke Start")]
    assert order == sorted(order)
    assert list(world.output.glob("warm*.png"))


def test_a_warmup_that_does_not_work_holds_nobody_up(world, make_fc):
    fc = make_fc({"WARMUP_PROMPT": str(world.directory / "missing.json")}, initializer=60)
    assert call(fc, image_prompt(1)).status == 200
    assert "warmup did not work" in fc.instances[0].log.read_text()


@pytest.mark.parametrize("tells_limits", [True, False])
def test_a_comfyui_slower_than_the_initializers_limit(make_fc, tells_limits):
    fc = make_fc({"STANDIN_BOOT_MS": "5000", "STARTUP_TIMEOUT": "8s", "INITIALIZE_TIMEOUT": "4s"}, initializer=4,
                 tells_limits=tells_limits)
    assert call(fc, image_prompt(1)).status == 200
    assert fc.count["initialized"] == 1 and fc.started == 1 and fc.count["timeouts"] == 0
    log = fc.instances[0].log.read_text()
    assert "the first call waits for the rest" in log
    assert log.count("starting, was") == 1


def test_pre_stop_lets_a_run_end(world, make_fc):
    fc = make_fc({"DRAIN_TIMEOUT": "30s"}, comfy=world.comfyui())
    fc_id = send(fc, steps_prompt(30, 20))
    until("it to run", lambda: is_running(world, fc_id))
    status, _, _ = fc.instances[0].stop()
    assert status == 200
    assert fc.instances[0].child.returncode == 0
    assert ended(world, fc_id)["status"] == "succeeded"
    assert end_of(fc, fc_id)[:2] == ("Succeeded", 200)
    log = fc.instances[0].log.read_text()
    assert "FC PreStop Start RequestId" in log and "FC PreStop End RequestId" in log


def test_pre_stop_with_a_run_that_takes_too_long(world, make_fc):
    comfy = world.comfyui()
    fc = make_fc({"DRAIN_TIMEOUT": "1s"}, comfy=comfy)
    comfy.control({"at": "node", "do": "hold"})
    fc_id = send(fc, sleep_prompt(1))
    until("it to run", lambda: is_running(world, fc_id))
    assert fc.instances[0].stop()[0] == 200
    first = world.document(f"{fc_id}~end.1")
    assert (first["status"], first["error"]["code"]) == ("failed", "stopping")
    comfy.release()
    assert end_of(fc, fc_id)[:2] == ("Succeeded", 200)  # delivered again, and another attempt is worth it
    assert ended(world, fc_id)["attempt"] == 2


def test_off_the_platform_there_are_no_hooks(world):
    agent = world.agent()
    for method, path in (("POST", "/initialize"), ("GET", "/pre-stop"), ("GET", "/pre-freeze")):
        assert agent.ask(method, path).status == 404
    reply = agent.ask("POST", "/invoke", json.dumps(image_prompt()))
    assert reply.status == 200 and reply.json["2"]["results"]
    assert "x-fc-status" not in reply.headers
    assert "FC Invoke" not in agent.text()


def test_hooks_are_the_platforms_alone(world):
    agent = world.agent(env={"PLATFORM": "fc", "API_KEY": "secret"})
    user = {"X-Fc-Control-Path": "/http-invoke", "x-api-key": "secret"}
    for method, path in (("POST", "/initialize"), ("GET", "/pre-stop"), ("GET", "/pre-freeze")):
        assert agent.ask(method, path, headers={"X-Fc-Control-Path": "/http-invoke"}).status == 401
        assert agent.ask(method, path, headers=user).status in (404, 405)  # what ComfyUI says
    assert agent.ask("GET", "/pre-freeze", headers={"X-Fc-Control-Path": ""}).status == 200
    assert agent.ask("POST", "/initialize", headers={"X-Fc-Control-Path": "/initialize"}).status == 200
    assert agent.ask("GET", "/api/tasks", headers={"X-Fc-Control-Path": ""}).status == 401  # not everything
    assert agent.ask("GET", "/pre-stop").status == 200
    assert agent.wait() == 0
    assert "secret" not in agent.text()


# --- the time limit ------------------------------------------------------------------------------


def test_a_run_ends_before_the_platform_kills_it(world, make_fc):
    comfy = world.comfyui()
    fc = make_fc(comfy=comfy, timeout=4)
    answer = call(fc, steps_prompt(10000, 10), "t")
    assert (answer.status, answer.json["error"]["code"]) == (504, "run_timeout")
    assert fc.count["timeouts"] == 0
    assert world.document("t~task")["error"]["code"] == "run_timeout"
    assert comfy.state()["interrupts"]
    assert call(fc, image_prompt()).status == 200 and fc.started == 1


def test_a_comfyui_that_does_not_stop_holds_up_no_end(world, make_fc):
    fc = make_fc(comfy=world.comfyui(), timeout=8)
    fc_id = send(fc, {"1": node("TestHang", ms=16000)})
    assert end_of(fc, fc_id)[:2] == ("Succeeded", 504)
    assert fc.count["timeouts"] == 0 and fc.count["delivered"] == 1
    assert world.document(f"{fc_id}~task")["error"]["code"] == "run_timeout"


@pytest.mark.parametrize("more", [{"X-Fc-Function-Timeout": "60"}, {}], ids=["more", "all"])
def test_who_joined_with_more_time_gets_the_end(world, more):
    agent = world.agent(env={"PLATFORM": "fc"})
    answers = {}

    def run(name, headers):
        answers[name] = agent.run(steps_prompt(150, 20), "t", headers)

    callers = [threading.Thread(target=run, args=each)
               for each in (("short", {"X-Fc-Function-Timeout": "2"}), ("long", more))]
    callers[0].start()
    until("it to run", lambda: is_running(world, "t"))
    callers[1].start()
    for each in callers:
        each.join(60)
    assert (answers["short"].status, answers["short"].code) == (504, "run_timeout")
    assert answers["long"].status == 200


def test_who_waits_for_what_was_made_is_told_before_the_platform_kills_it(world):
    before = world.agent("before")
    assert before.run(image_prompt(), "t").status == 200
    before.stop()
    agent = world.agent(ready=False, env={"PLATFORM": "fc"}, comfy_env={"STANDIN_BOOT_MS": "600000"})
    until("the agent to answer", agent.answers)
    for more in ({}, {"accept": "image/*"}):
        began = time.monotonic()
        reply = agent.run(image_prompt(), "t", {"X-Fc-Function-Timeout": "2", **more})
        assert (reply.status, reply.code) == (503, "comfyui_unavailable")
        assert reply.headers["x-fc-status"] == "404" and time.monotonic() - began < 2


# --- x-fc-status ---------------------------------------------------------------------------------


def test_what_is_worth_another_delivery(world):
    agent = world.agent(env={"PLATFORM": "fc", "MAX_ATTEMPTS": "1"})

    def status_of(prompt, **more):
        reply = agent.run(prompt, **more)
        return reply.status, reply.headers["x-fc-status"]

    assert status_of(image_prompt()) == (200, "200")
    assert status_of(image_prompt(), query="?results=none") == (200, "200")
    assert status_of(image_prompt(), headers={"accept": "image/*"}) == (200, "200")
    assert status_of(image_prompt(), headers={"accept": "video/*"}) == (406, "200")
    whole = {"at": "http", "route": "GET /view", "ranged": False}
    agent.comfy.control({**whole, "do": "close", "times": 0})
    assert status_of(image_prompt(2), headers={"accept": "image/*"}) == (503, "404")
    agent.comfy.reset()
    agent.comfy.control({**whole, "do": "answer", "status": 404})
    assert status_of(image_prompt(3), headers={"accept": "image/*"}) == (410, "200")
    assert status_of({"1": node("TestRaise", message="x")}) == (500, "200")
    assert status_of({"2": node("SaveImage", filename_prefix="x")}) == (422, "200")
    assert status_of(b"{") == (400, "200")
    assert status_of(image_prompt(), task_id="../x") == (400, "200")
    assert status_of({"1": node("TestCrash", how="kill", code=1)}) == (502, "404")


def test_a_full_queue_is_worth_another_delivery(world):
    agent = world.agent(env={"PLATFORM": "fc", "MAX_QUEUE": "0"})
    agent.comfy.control({"at": "node", "do": "hold"})
    first = later(agent.run, image_prompt(1), "t")
    until("it to run", lambda: is_running(world, "t"))
    reply = agent.run(image_prompt(2))
    assert (reply.status, reply.code, reply.headers["x-fc-status"]) == (429, "queue_full", "404")
    agent.comfy.release()
    assert first.result().status == 200


def test_a_store_that_does_not_work_is_worth_another_delivery(world):
    world.store.write_text("")  # no directory
    agent = world.agent(ready=False, env={"PLATFORM": "fc"})
    until("the agent to answer", agent.answers)
    reply = agent.run(image_prompt(), headers={"X-Fc-Async-Task-Id": "t"})
    assert (reply.status, reply.headers["x-fc-status"]) == (503, "404")
    world.store.unlink()


def test_a_caller_who_left_may_be_the_platform(world):
    """An asynchronous call that does not show that it is one looks like this when its gateway dies."""
    agent = world.agent(env={"PLATFORM": "fc"})
    headers = {"X-Fc-Request-Id": "r-1", "X-Fc-Control-Path": "/http-invoke"}
    left = http.client.HTTPConnection("127.0.0.1", agent.port)
    left.request("POST", "/api/run", json.dumps(steps_prompt(200, 20)), headers)
    until("it to run", lambda: is_running(world, "r-1"))
    left.close()
    until("its end", lambda: ended(world, "r-1"))
    assert world.document("r-1~task")["error"]["code"] == "caller_left"

    def delivered_again():
        reply = agent.run(steps_prompt(200, 20), headers={**headers, "X-Fc-Retry-Count": "1"})
        if reply.status != 200:  # joined the old one, whose end was just being stored
            assert (reply.code, reply.headers["x-fc-status"]) == ("caller_left", "404")
        return reply.status == 200

    until("the run", delivered_again)
    assert world.document("r-1~task")["status"] == "succeeded"


def test_credentials_are_not_logged(world):
    agent = world.agent(env={"PLATFORM": "fc", "LOG_LEVEL": "debug"})
    agent.run(image_prompt(), headers={"X-Fc-Access-Key-Id": "LTAIsecret", "X-Fc-Access-Key-Secret": "verysecret",
                                       "X-Fc-Security-Token": "tokensecret"})
    agent.run(b"{", headers={"X-Fc-Access-Key-Secret": "verysecret"})
    assert "secret" not in agent.text()
