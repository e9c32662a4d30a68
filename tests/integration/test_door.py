"""The front door: an agent without a ComfyUI in front of the local Function Compute, whose instances
have one. Both share store, inputs and outputs, as on a NAS."""

import base64
import http.client
import http.server
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
import zlib

import pytest

from live import run_ws
from world import AGENT, ROOT, free_port, image_prompt, later, node, steps_prompt, until

sys.path.insert(0, str(ROOT / "tests" / "fc"))

from local_fc import LocalFc

KEY = {"x-api-key": "secret"}


class Gpu:
    """The GPU function: its gateway, and the ComfyUI that all of its instances share, which is not
    frozen with them."""

    def __init__(self, world, comfy, **settings):
        env = {"STORE_URL": f"file:{world.store}", "LISTEN_HOST": "127.0.0.1", "COMFYUI_URL": comfy.url,
               "LEASE_TIMEOUT": "2s", "API_KEY": "secret", "OUTPUT_FOLDER": "task",
               "ASAN_OPTIONS": "detect_leaks=1:exitcode=99:abort_on_error=0", **settings.pop("env", {})}
        self.comfy = comfy
        self.fc = LocalFc(world.directory, [str(AGENT)], env=env, port_of=free_port, **settings)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.fc.serve(self.port)

    @property
    def calls(self):
        return list(self.fc.task_ids.values())

    def idle(self):
        """All that was called has been answered."""
        return len(self.fc.results) == len(self.fc.task_ids)


@pytest.fixture
def gpu(world):
    made = []

    def make(**settings):
        made.append(Gpu(world, world.comfyui(), **settings))
        return made[-1]

    yield make
    problems = []
    for each in made:
        each.fc.close()
        for instance in each.fc.instances:
            text = instance.log.read_text(errors="replace")
            if "Sanitizer" in text or "assertion failed" in text or instance.child.returncode not in (0, -9):
                problems.append(f"{instance.log.name} ended with {instance.child.returncode}: {text[-6000:]}")
            else:
                print(f"----- {instance.log.name}\n{text[-4000:]}", file=sys.stderr)
    assert not problems, "\n".join(problems)


class Door:
    """Speaks to the door with the key."""

    def __init__(self, agent):
        self.agent = agent

    def ask(self, method, path, body=None, **headers):
        return self.agent.ask(method, path, body, {**KEY, **headers})

    def get(self, path, **headers):
        return self.ask("GET", path, **headers)

    def run(self, prompt, task_id=None, query="", **headers):
        if task_id:
            headers["task-id"] = task_id
        return self.ask("POST", "/api/run" + query, prompt if isinstance(prompt, bytes) else json.dumps(prompt),
                        **{name.replace("_", "-"): value for name, value in headers.items()})

    def record(self, task_id):
        return self.get(f"/api/tasks/{task_id}").json

    def status_of(self, task_id):
        reply = self.get(f"/api/tasks/{task_id}")
        return reply.json["status"] if reply.status == 200 else None

    def ended(self, task_id):
        record = until(f"the end of {task_id}", lambda: self.status_of(task_id) in
                       ("succeeded", "failed", "cancelled") and self.record(task_id))
        return record


def make_door(world, url, name="door", **env):
    agent = world.agent(name, env={
        "RUN_URL": url, "API_KEY": "secret", "LEASE_TIMEOUT": "2s", "OUTPUT_FOLDER": "task", "COMFYUI_URL": "",
        "INPUT_DIR": str(world.input), "OUTPUT_DIR": str(world.output), "CALL_TIMEOUT": "20s", **env}, url="http://x:1")
    return Door(agent)


@pytest.fixture
def door_of(world):
    for path in (world.input, world.output):
        path.mkdir(exist_ok=True)
    return lambda url, **env: make_door(world, url, **env)


@pytest.fixture
def pair(gpu, door_of):
    """(door, GPU function), the usual ones."""
    made = gpu()
    return door_of(made.url), made


def png(size):
    """A picture of at least so many bytes."""
    side = int((size / 3) ** 0.5) + 1
    rows = b"".join(b"\0" + os.urandom(3 * side) for _ in range(side))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b""))


# --- ways to run ---------------------------------------------------------------------------------


def test_a_sync_call(world, pair):
    door, gpu = pair
    reply = door.run(image_prompt(), "t")
    assert reply.status == 200, reply
    (image,) = reply.json["2"]["images"]
    assert image["subfolder"] == "t"
    assert base64.b64decode(reply.json["2"]["results"][0]) == (world.output / "t" / image["filename"]).read_bytes()
    assert (reply.headers["task-id"], reply.headers["task-status"]) == ("t", "succeeded")
    (call,) = gpu.calls
    assert len(call[3]) < 300 and call[2] == "/api/run"
    assert door.run(image_prompt(), "t").json == reply.json  # a replay
    assert door.get("/api/status?id=t&results=1").json == reply.json
    assert len(gpu.calls) == len(gpu.comfy.prompts) == 1
    record = door.record("t")
    assert (record["status"], record["attempt"]) == ("succeeded", 1) and "offered" not in record
    assert record["instance"] == gpu.fc.instances[0].id


def test_the_deepest_prompt(pair):
    """In the claim, where the function finds it, it is one level deeper than the client sent it."""
    door, _ = pair
    prompt = image_prompt()
    prompt["1"]["_meta"] = json.loads("[" * 62 + "]" * 62)
    reply = door.run(prompt, "t")
    assert reply.status == 200, reply
    prompt["1"]["_meta"] = [prompt["1"]["_meta"]]
    assert door.run(prompt, "u").json["error"]["code"] == "json_too_complex"


def test_a_websocket_call(pair):
    door, gpu = pair
    talk = run_ws(door.agent, steps_prompt(30, 20), "?task-id=t", headers=KEY)
    assert talk.code == 1000 and talk.types[-1] == "result" and "progress" in talk.types
    assert any(message["data"]["1"]["value"] > 0 for message in talk.messages if message["type"] == "progress")
    assert talk.end["data"]["1"]["value"] == 30
    assert len(gpu.calls) == len(gpu.comfy.prompts) == 1


@pytest.mark.parametrize("headers", [{"prefer": "respond-async"}, {"x-fc-invocation-type": "Async"},
                                     {"prefer": "wait=0"}])
def test_an_async_call(pair, headers):
    door, gpu = pair
    gpu.comfy.control({"at": "node", "do": "hold"})
    reply = door.run(image_prompt(), "t", **headers)
    assert (reply.status, reply.body, reply.headers["location"]) == (202, b"", "/api/tasks/t"), reply
    until("it to run", lambda: door.status_of("t") == "running")
    gpu.comfy.release()
    record = door.ended("t")
    assert record["status"] == "succeeded" and record["outputs"][0]["size"]
    assert door.get("/api/tasks/t/outputs/0").body.startswith(b"\x89PNG")
    assert len(gpu.calls) == 1


@pytest.mark.parametrize("form", ["%s", "data:image/png;base64,%s"])
def test_five_megabytes_of_input_go_through_an_async_run(world, pair, form):
    door, gpu = pair
    content = png(5_000_000)
    prompt = {"1": node("LoadImage", image=form % base64.b64encode(content).decode()),
              "2": node("SaveImage", images=["1", 0], filename_prefix="x")}
    reply = door.run(prompt, "t", prefer="respond-async")
    assert reply.status == 202, reply
    record = door.ended("t")
    assert record["status"] == "succeeded", record
    (kept,) = world.input.iterdir()
    assert kept.read_bytes() == content
    (sent,) = gpu.comfy.prompts
    assert door.get("/api/tasks/t/prompt").json["1"]["inputs"]["image"] == kept.name
    assert not (world.store / "t~prompt").exists()  # small enough for its claim
    assert all(len(call[3]) < 300 for call in gpu.calls)
    assert door.run(prompt, "t").status == 200  # the same prompt, by what was sent
    assert len(gpu.comfy.prompts) == 1


def test_a_large_prompt_lies_in_the_store(world, pair):
    door, gpu = pair
    prompt = {**image_prompt(), "3": node("TestText", text="x" * 200_000)}
    assert door.run(prompt, "t").status == 200
    assert (world.store / "t~prompt").stat().st_size > 200_000
    assert all(len(call[3]) < 300 for call in gpu.calls)
    assert door.run({"1": node("TestText", text="x" * 16_000_000)}, "large").status == 413
    extra = {"prompt": prompt, "extra_data": {"extra_pnginfo": {"x": "x" * 17_000_000}}}
    assert door.run(extra, "beside").status == 413  # else nobody could ever read what was to be run
    assert len(gpu.calls) == 1


def test_seeds_are_filled_once(pair):
    door, gpu = pair
    assert door.run(steps_prompt(2, 1, seed=-1), "t").status == 200
    seed = door.record("t")["seeds"]["1.seed"]
    assert door.get("/api/tasks/t/prompt").json["1"]["inputs"]["seed"] == seed
    assert door.run(steps_prompt(2, 1, seed=-1), "t").status == 200
    assert len(gpu.calls) == 1 and door.record("t")["seeds"]["1.seed"] == seed


# --- nothing at all on the GPU's side ------------------------------------------------------------


class Events:
    """A stream of events, read by a thread."""

    def __init__(self, door, task_id):
        self.connection = http.client.HTTPConnection("127.0.0.1", door.agent.port, timeout=60)
        self.connection.request("GET", f"/api/tasks/{task_id}/events", headers=KEY)
        self.answer = self.connection.getresponse()
        self.text = later(self.answer.read)


def test_a_thousand_polls_and_a_stream_start_nothing(pair):
    door, gpu = pair
    assert door.get("/api/status?id=t").status == 404
    gpu.comfy.control({"at": "progress", "do": "hold"})
    assert door.run(steps_prompt(20, 1), "t", prefer="respond-async").status == 202
    until("it to run", lambda: door.status_of("t") == "running")
    before = (dict(gpu.fc.count), gpu.fc.started, len(gpu.calls))
    events = Events(door, "t")
    connection = http.client.HTTPConnection("127.0.0.1", door.agent.port, timeout=60)
    for _ in range(1000):
        connection.request("GET", "/api/status?id=t", headers=KEY)
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read()
    assert (dict(gpu.fc.count), gpu.fc.started, len(gpu.calls)) == before
    assert before[0]["delivered"] == before[1] == before[2] == 1
    gpu.comfy.release()
    assert door.ended("t")["status"] == "succeeded"
    text = events.text.result(60).decode()
    assert "event: progress" in text and text.count("event: result") == 1
    until("the function to rest", gpu.idle)
    assert gpu.fc.count["delivered"] == gpu.fc.started == 1


def test_what_is_unknown_becomes_known(pair):
    door, gpu = pair
    assert door.get("/api/status?id=t").status == door.get("/api/tasks/t").status == 404
    assert door.run(image_prompt(), "t", prefer="respond-async").status == 202
    assert door.get("/api/status?id=t").status == door.get("/api/tasks/t").status == 200
    door.ended("t")


def test_what_is_wrong_is_said_at_the_door(pair):
    door, gpu = pair
    assert door.run(b"{").status == 400
    assert door.agent.run(image_prompt()).status == 401
    assert door.agent.get("/view?filename=x.png").status == 401
    for method, path in (("GET", "/"), ("POST", "/prompt"), ("GET", "/queue"), ("GET", "/object_info")):
        assert door.ask(method, path).status == 404
    assert door.get("/ui").status in (200, 308) and door.get("/api/workflows").status == 200
    assert door.agent.get("/healthz").status == door.agent.get("/readyz").status == 200
    assert "comfy_agent_door_calls 0" in door.get("/metrics").body.decode()
    assert not gpu.calls


# --- one id, one run -----------------------------------------------------------------------------


def test_two_doors_and_a_call_delivered_again(world, gpu, door_of):
    made = gpu(concurrency=1)
    doors = [door_of(made.url), door_of(made.url, name="second")]
    made.comfy.control({"at": "node", "do": "hold"})
    replies = [later(door.run, image_prompt(), "t") for door in doors for _ in range(2)]
    until("it to run", lambda: doors[0].status_of("t") == "running")
    assert doors[1].run(image_prompt(7), "t").status == 409
    for fc_id in list(made.fc.task_ids):
        made.fc.deliver_again(fc_id)
    until("the second delivery", lambda: made.fc.count["delivered"] == 2)
    made.comfy.release()
    assert {reply.result(60).status for reply in replies} == {200}
    until("the function to rest", lambda: all(instance.busy == 0 for instance in made.fc.instances))
    for fc_id in list(made.fc.task_ids):
        made.fc.deliver_again(fc_id)
    until("the third delivery", lambda: made.fc.count["delivered"] == 3)
    until("the function to rest", lambda: all(instance.busy == 0 for instance in made.fc.instances))
    assert len(made.comfy.prompts) == 1 and len(made.calls) == 1
    assert doors[1].record("t")["attempt"] == 1
    assert doors[1].run(image_prompt(), "t").status == 200


def test_a_prompt_that_fails_is_run_again_when_it_is_asked_for(pair):
    door, gpu = pair
    prompt = {"1": node("TestRaise", message="no")}
    for attempt in (1, 2):
        reply = door.run(prompt, "t")
        assert (reply.status, reply.code) == (500, "node_error")
        assert door.record("t")["attempt"] == attempt
    assert len(gpu.calls) == len(gpu.comfy.prompts) == 2


def test_the_call_of_an_attempt_runs_that_attempt_only(pair):
    door, gpu = pair
    assert door.run({"1": node("TestRaise", message="no")}, "t").status == 500
    until("the function to rest", gpu.idle)
    (fc_id,) = gpu.fc.task_ids
    gpu.fc.deliver_again(fc_id)  # the same call …
    call = json.dumps({"task_id": "t", "attempt": 1}).encode()
    headers = {"X-Api-Key": "secret", "X-Fc-Invocation-Type": "Async"}
    assert gpu.fc.gateway("POST", "/api/run", call, headers)[0] == 202  # … and one that its door sent once more
    until("the deliveries", lambda: gpu.fc.count["delivered"] == 3 and gpu.idle())
    until("the function to rest", lambda: all(instance.busy == 0 for instance in gpu.fc.instances))
    assert {result[:2] for result in gpu.fc.results.values()} == {("Succeeded", 500)}
    assert len(gpu.comfy.prompts) == 1 and door.record("t")["attempt"] == 1


def test_a_killed_instance_is_replaced_by_the_platform(pair):
    door, gpu = pair
    reply = later(door.run, steps_prompt(60, 20, seed=-1), "t")
    until("it to run", lambda: door.status_of("t") == "running")
    gpu.fc.instances[0].kill()
    assert reply.result(60).status == 200
    record = door.record("t")
    assert (record["status"], record["attempt"]) == ("succeeded", 2)
    assert len(gpu.calls) == 1


def test_a_killed_instance_that_the_platform_gives_up_is_replaced_by_the_door(gpu, door_of):
    made = gpu(retries=0)
    door = door_of(made.url)
    reply = later(door.run, steps_prompt(60, 20), "t")
    until("it to run", lambda: door.status_of("t") == "running")
    made.fc.instances[0].kill()
    assert reply.result(60).status == 200
    assert door.record("t")["attempt"] == 2
    assert len(made.calls) == 2


def test_an_instance_that_died_while_it_took_the_task_is_waited_for_a_lease(world, pair):
    door, gpu = pair
    gpu.fc.instances_max = 0
    assert door.run(image_prompt(), "t", prefer="respond-async").status == 202
    (world.store / "t~take.1").write_text('{"claim": {"instance": "dead"}}')
    began = time.monotonic()
    gpu.fc.instances_max = 1
    record = door.ended("t")
    assert (record["status"], record["attempt"]) == ("succeeded", 2)
    assert time.monotonic() - began >= 2
    assert len(gpu.comfy.prompts) == 1


# --- cancelling ----------------------------------------------------------------------------------


def test_what_is_cancelled_before_it_begins_never_runs(pair):
    door, gpu = pair
    gpu.fc.instances_max = 0  # calls wait
    reply = later(door.run, image_prompt(), "t")
    until("the call", lambda: gpu.calls)
    assert door.ask("DELETE", "/api/tasks/t").status == 202
    answer = reply.result(60)
    assert (answer.status, answer.code) == (500, "cancelled")
    gpu.fc.instances_max = 1
    until("the function to rest", gpu.idle)
    assert not gpu.comfy.prompts
    assert door.record("t")["status"] == "cancelled"
    assert door.run(image_prompt(), "t").status == 200  # asked for again
    assert door.record("t")["attempt"] == 2


def test_any_door_cancels(gpu, door_of):
    made = gpu()
    made.fc.instances_max = 0
    doors = [door_of(made.url), door_of(made.url, name="second")]
    reply = later(doors[0].run, image_prompt(), "t")
    until("the call", lambda: made.calls)
    answer = doors[1].ask("DELETE", "/api/tasks/t")
    assert (answer.status, answer.json) == (202, {"id": "t", "status": "queued"})
    assert reply.result(60).code == "cancelled"
    made.fc.instances_max = 1
    until("the function to rest", made.idle)
    assert not made.comfy.prompts
    assert doors[1].ask("DELETE", "/api/tasks/t").status == 200


def test_a_wish_that_was_there_before_the_call(world, pair):
    """Somebody else than a door has written it, or one that died then."""
    door, gpu = pair
    gpu.fc.instances_max = 0
    assert door.run(image_prompt(), "t", prefer="respond-async").status == 202
    (world.store / "t~ctl").write_text('{"cancel": {"attempt": 1}}')
    gpu.fc.instances_max = 1
    assert door.ended("t")["error"]["code"] == "cancelled"
    assert not gpu.comfy.prompts


def test_what_was_cancelled_is_not_taken_over(world, gpu, door_of):
    """Who ran it has died before he read the wish."""
    made = gpu(retries=0)
    door = door_of(made.url)
    reply = later(door.run, steps_prompt(10000, 20), "t")
    until("it to run", lambda: door.status_of("t") == "running")
    made.fc.instances[0].kill()
    assert door.ask("DELETE", "/api/tasks/t").status == 202
    assert reply.result(60).code == "cancelled"
    assert len(made.calls) == len(made.comfy.prompts) == 1
    record = door.record("t")
    assert (record["status"], record["attempt"]) == ("cancelled", 2)


def test_what_runs_is_cancelled_too(pair):
    door, gpu = pair
    reply = later(door.run, steps_prompt(10000, 20), "t")
    until("it to run", lambda: door.status_of("t") == "running")
    assert door.ask("DELETE", "/api/tasks/t").status == 202
    assert reply.result(60).code == "cancelled"
    assert gpu.comfy.state()["interrupts"]


def test_a_caller_who_left_without_an_id_is_not_run_for(world, pair):
    door, gpu = pair
    gpu.fc.instances_max = 0
    caller = http.client.HTTPConnection("127.0.0.1", door.agent.port)
    caller.request("POST", "/api/run", json.dumps(image_prompt()), KEY)
    until("the call", lambda: gpu.calls)
    caller.close()
    until("its end", lambda: door.get("/api/tasks?status=cancelled").json["tasks"])
    gpu.fc.instances_max = 1
    until("the function to rest", gpu.idle)
    assert not gpu.comfy.prompts


# --- RUN_URL does not behave ---------------------------------------------------------------------


class Stub:
    """RUN_URL as it should not be: answers what the script says, one after the other, the last for ever.
    "pass" hands the call on to `to`, "lose" does so and does not answer."""

    def __init__(self, *script, to=None):
        self.script, self.calls = list(script), []
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                stub.calls.append((self.path, dict(self.headers), body))
                what = stub.script.pop(0) if len(stub.script) > 1 else stub.script[0]
                status = what
                if what in ("pass", "lose"):
                    given = {name.title(): value for name, value in self.headers.items()}
                    status, _, _ = to.gateway("POST", self.path, body, given)
                if what == "lose":
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_a_run_url_that_is_down_is_called_again_for_a_while(world, gpu, door_of):
    made = gpu()
    port = free_port()
    door = door_of(f"http://127.0.0.1:{port}", CALL_TIMEOUT="1s")
    reply = door.run(image_prompt(), "t")
    assert (reply.status, reply.code) == (503, "gpu_unreachable") and reply.headers["retry-after"]
    assert world.document("t~task")["status"] == "failed"
    assert door.run(image_prompt(), "a", prefer="respond-async").status == 503  # nobody is told that it would run
    made.fc.serve(port)
    assert door.run(image_prompt(), "t").status == 200
    assert door.record("t")["attempt"] == 2


def test_a_run_url_that_has_no_time_is_called_again(gpu, door_of):
    made = gpu()
    stub = Stub(429, 503, "pass", to=made.fc)
    assert door_of(stub.url).run(image_prompt(), "t").status == 200
    assert len(stub.calls) == 3 and len(made.calls) == 1
    path, headers, body = stub.calls[0]
    given = {name.lower(): value for name, value in headers.items()}
    assert path == "/api/run" and json.loads(body) == {"task_id": "t", "attempt": 1}
    assert (given["task-id"], given["x-fc-invocation-type"], given["x-api-key"]) == ("t", "Async", "secret")
    assert "x-fc-async-task-id" not in given


@pytest.mark.parametrize("status", [400, 403, 302])
def test_a_run_url_that_refuses_is_not_called_again(door_of, status):
    stub = Stub(status)
    door = door_of(stub.url)
    reply = door.run(image_prompt(), "t")
    assert (reply.status, reply.code, reply.json["error"]["status"]) == (502, "gpu_refused", status)
    assert len(stub.calls) == 1 and door.record("t")["status"] == "failed"


def test_a_run_url_that_may_not_be_called_is_not_called_again(door_of):
    reply = door_of("http://169.254.169.254").run(image_prompt(), "t")
    assert (reply.status, reply.code) == (502, "gpu_refused"), reply


def test_a_run_url_that_never_answers(door_of):
    with socket.create_server(("127.0.0.1", 0)) as hole:
        door = door_of(f"http://127.0.0.1:{hole.getsockname()[1]}", CALL_TIMEOUT="1s")
        reply = door.run(image_prompt(), "t")
        assert (reply.status, reply.code) == (503, "gpu_unreachable")


def test_a_task_is_not_taken_back_in_haste(world, door_of):
    """RUN_URL refuses it, and the store, which has to be told, is away for a while."""
    with socket.create_server(("127.0.0.1", 0)) as hole:
        door = door_of(f"http://127.0.0.1:{hole.getsockname()[1]}", CALL_TIMEOUT="1s")
        reply = later(door.run, image_prompt(), "t")
        until("the record", lambda: world.document("t~task"))
        away = world.store.with_name("away")
        world.store.rename(away)
        world.store.write_text("")  # so that nobody makes the directory anew

        def operations():
            line = [line for line in door.get("/metrics").body.decode().splitlines()
                    if line.startswith("comfy_agent_store_operations_total ")]
            return float(line[0].split()[1])

        time.sleep(2)  # longer than CALL_TIMEOUT
        before = operations()
        time.sleep(1)
        assert operations() - before < 100
        world.store.unlink()
        away.rename(world.store)
        answer = reply.result(60)
    assert (answer.status, answer.code) == (503, "gpu_unreachable")
    assert world.document("t~task")["status"] == "failed"


def test_a_call_whose_answer_is_lost_runs_once(gpu, door_of):
    made = gpu()
    made.fc.instances_max = 0
    stub = Stub("lose", "pass", to=made.fc)
    door = door_of(stub.url)
    reply = later(door.run, image_prompt(), "t")
    until("both calls", lambda: len(made.calls) == 2)
    made.fc.instances_max = 2
    assert reply.result(60).status == 200
    until("the function to rest", made.idle)
    assert len(made.comfy.prompts) == 1 and door.record("t")["attempt"] == 1


def test_a_call_that_arrives_after_all_was_given_up_runs_nothing(gpu, door_of):
    made = gpu()
    made.fc.instances_max = 0
    stub = Stub("lose", 503, to=made.fc)
    door = door_of(stub.url, CALL_TIMEOUT="1s")
    assert door.run(image_prompt(), "t").code == "gpu_unreachable"
    made.fc.instances_max = 1
    until("the function to rest", made.idle)
    assert not made.comfy.prompts and door.record("t")["status"] == "failed"
    assert made.fc.count["delivered"] >= 1
    assert all(result[3] == 0 for result in made.fc.results.values())  # and is not delivered again


# --- a door that dies ----------------------------------------------------------------------------


def die_after_the_record(world, door_of, platform="none"):
    """A door is killed while it calls: its task is in the store, and nobody was asked to run it."""
    with socket.create_server(("127.0.0.1", 0)) as hole:
        door = door_of(f"http://127.0.0.1:{hole.getsockname()[1]}", name="dies", PLATFORM=platform)
        caller = later(door.run, image_prompt(), "t", prefer="respond-async")
        until("the record", lambda: world.document("t~task"))
        door.agent.signal(signal.SIGKILL)
        door.agent.wait()
        assert caller.exception(60) is not None
    assert world.document("t~task")["offered"] is True


def test_a_door_that_is_started_again_goes_on(world, gpu, door_of):
    made = gpu()
    die_after_the_record(world, door_of)
    door = door_of(made.url)
    assert door.ended("t")["status"] == "succeeded"
    assert len(made.comfy.prompts) == len(made.calls) == 1


def test_on_the_platform_a_poll_goes_on(world, gpu, door_of):
    made = gpu()
    die_after_the_record(world, door_of, "fc")
    door = door_of(made.url, PLATFORM="fc")
    until("the end", lambda: door.get("/api/status?id=t").headers["task-status"] == "succeeded")
    for _ in range(20):
        assert door.get("/api/status?id=t").status == 200
    assert len(made.comfy.prompts) == len(made.calls) == 1


def test_on_the_platform_the_caller_who_comes_again_goes_on(world, gpu, door_of):
    made = gpu()
    die_after_the_record(world, door_of, "fc")
    door = door_of(made.url, PLATFORM="fc")
    assert door.run(image_prompt(), "t").status == 200
    assert len(made.comfy.prompts) == len(made.calls) == 1


def test_on_the_platform_who_asks_again_and_leaves_is_run_for(world, gpu, door_of):
    """202 is said when RUN_URL has the call: nobody may ever look at the task again."""
    made = gpu()
    die_after_the_record(world, door_of, "fc")
    door = door_of(made.url, PLATFORM="fc")
    assert door.run(image_prompt(), "t", prefer="respond-async").status == 202
    assert len(made.calls) == 1
    until("the end", lambda: world.document("t~task")["status"] == "succeeded")
    assert len(made.comfy.prompts) == len(made.calls) == 1


def test_that_it_was_called_is_noted_before_it_is_said(world, pair):
    """The door may be frozen as soon as it has answered; without the note a poll calls once more. Others keep the
    store busy, so that a note that comes late is late."""
    door, gpu = pair
    gpu.fc.instances_max = 0
    over = threading.Event()

    def list_tasks():
        while not over.is_set():
            assert door.get("/api/tasks").status == 200

    others = [later(list_tasks) for _ in range(3)]
    try:
        for n in range(40):
            assert door.run(image_prompt(), f"t{n}", prefer="respond-async").status == 202
            assert (world.store / f"t{n}~call.1").exists()
    finally:
        over.set()
    for other in others:
        other.result()


def test_polls_of_what_waits_ask_nobody_again(world, pair):
    door, gpu = pair
    gpu.fc.instances_max = 0
    assert door.run(image_prompt(), "t", prefer="respond-async").status == 202
    until("the note", lambda: world.document("t~call.1"))
    time.sleep(2.5)  # longer than the lease
    for _ in range(100):
        assert door.get("/api/status?id=t").headers["task-status"] == "queued"
    assert len(gpu.calls) == 1
    gpu.fc.instances_max = 1
    assert door.ended("t")["status"] == "succeeded"
    assert len(gpu.calls) == 1


def test_a_door_that_stops_leaves_its_tasks_running(gpu, door_of):
    made = gpu()
    made.comfy.control({"at": "node", "do": "hold"})
    door = door_of(made.url, DRAIN_TIMEOUT="1s")
    reply = later(door.run, image_prompt(), "t")
    until("it to run", lambda: door.status_of("t") == "running")
    door.agent.stop()
    assert reply.result(60).status == 503
    made.comfy.release()
    assert door_of(made.url, name="next").ended("t")["status"] == "succeeded"


# --- on the platform -----------------------------------------------------------------------------


def test_an_async_call_to_the_door_itself(door_of, world, gpu):
    made = gpu()
    door = door_of(made.url, PLATFORM="fc")
    made.comfy.control({"at": "node", "do": "hold"})
    platform = {"x-fc-request-id": "r-1", "x-fc-control-path": "/http-invoke", "x-fc-async-task-id": "t"}
    reply = door.run(image_prompt(), **platform)
    assert (reply.status, reply.headers["x-fc-status"]) == (202, "200")  # not held: the run is elsewhere
    made.comfy.release()
    assert door.ended("t")["status"] == "succeeded"
    bad = door.run(b"[]", **{**platform, "x-fc-async-task-id": "bad"})
    assert bad.status == 400 or bad.status == 202
    assert door.ended("bad")["error"]["code"] == "not_a_prompt"
    assert len(made.calls) == 1


def test_a_door_that_is_frozen_between_calls(world, pair, request):
    """Both functions behind gateways: what the door began goes on without it."""
    _, gpu = pair
    env = {"RUN_URL": gpu.url, "API_KEY": "secret", "LEASE_TIMEOUT": "2s", "STORE_URL": f"file:{world.store}",
           "LISTEN_HOST": "127.0.0.1", "INPUT_DIR": str(world.input), "OUTPUT_DIR": str(world.output),
           "ASAN_OPTIONS": "detect_leaks=1:exitcode=99:abort_on_error=0"}
    (world.directory / "door").mkdir()
    front = LocalFc(world.directory / "door", [str(AGENT)], env=env, port_of=free_port, concurrency=20)
    request.addfinalizer(front.close)

    def ask(method, path, body=b"", **headers):
        given = {name.replace("_", "-").title(): value for name, value in headers.items()}
        status, answered, content = front.gateway(method, path, body, {"X-Api-Key": "secret", **given})
        return status, {name.lower(): value for name, value in answered.items()}, content

    prompt = json.dumps(steps_prompt(30, 20)).encode()
    assert ask("POST", "/api/run", prompt, prefer="respond-async", task_id="t")[0] == 202
    until("the door to be frozen", lambda: front.instances[0].frozen)
    until("the end", lambda: ask("GET", "/api/status?id=t")[1].get("task-status") == "succeeded")
    status, _, body = ask("POST", "/api/run", prompt, task_id="t")
    assert status == 200 and json.loads(body)["1"]["value"] == 30
    assert ask("POST", "/api/run", json.dumps(image_prompt()).encode(), x_fc_invocation_type="Async", task_id="a")[0] == 202
    until("the end", lambda: ask("GET", "/api/status?id=a")[1].get("task-status") == "succeeded")
    assert front.started == 1 and len(gpu.calls) == 2
    assert {result[1] for result in front.results.values()} == {202}
    front.close()
    log = front.instances[0].log.read_text()
    assert front.instances[0].child.returncode == 0 and "Sanitizer" not in log, log[-6000:]


def test_who_waits_at_the_door_is_told_before_the_platform_cuts_him_off(world, gpu, door_of):
    made = gpu()
    made.comfy.control({"at": "node", "do": "hold"})
    door = door_of(made.url, PLATFORM="fc")
    reply = door.run(image_prompt(), "t", **{"x-fc-function-timeout": "2"})
    assert (reply.status, reply.code) == (504, "run_timeout")
    made.comfy.release()
    assert door.ended("t")["status"] == "succeeded"


# --- without the platform ------------------------------------------------------------------------


def test_a_plain_agent_behind_the_door(world, door_of):
    behind = world.agent("behind", env={"API_KEY": "secret", "LEASE_TIMEOUT": "2s"})
    door = door_of(f"http://127.0.0.1:{behind.port}")
    reply = door.run(image_prompt(), "t")
    assert reply.status == 200 and reply.json["2"]["results"]
    assert door.record("t")["attempt"] == 1
    assert len(behind.comfy.prompts) == 1


def test_a_call_for_what_is_not_in_the_store_is_worth_another_delivery(world):
    agent = world.agent(env={"PLATFORM": "fc"})
    for body in ({"task_id": "t", "attempt": 1}, {"task_id": "t", "attempt": 2}):
        reply = agent.run(body)
        assert (reply.status, reply.headers["x-fc-status"]) == (503, "404")
    for body in ({"task_id": "../t", "attempt": 1}, {"task_id": "t", "attempt": 0}, {"attempt": 1}):
        assert agent.run(body).status == 400
    assert agent.comfy.prompts == [] or not agent.comfy.prompts


def test_without_directories_it_is_said_so(world, gpu):
    made = gpu()
    door = make_door(world, made.url, INPUT_DIR="", OUTPUT_DIR="")
    assert door.run(image_prompt(), "t", query="?results=none").status == 200
    assert door.get("/api/tasks/t/outputs/0").status == 503
    assert door.run(image_prompt(), "t").status == 503
    assert door.ask("POST", "/upload/image", b"").status == 503


# --- files ---------------------------------------------------------------------------------------


def test_outputs_and_view_come_from_the_directory(world, pair):
    door, _ = pair
    assert door.run(image_prompt(), "t").status == 200
    (image,) = door.record("t")["outputs"]
    content = (world.output / "t" / image["filename"]).read_bytes()
    for path in ("/api/tasks/t/outputs/0", f"/view?filename={image['filename']}&subfolder=t&type=output",
                 f"/api/view?filename={image['filename']}&subfolder=t"):
        reply = door.get(path)
        assert (reply.status, reply.body, reply.headers["content-type"]) == (200, content, "image/png"), path
        part = door.get(path, range="bytes=2-5")
        assert (part.status, part.body, part.headers["content-range"]) == (206, content[2:6], f"bytes 2-5/{len(content)}")
        assert door.get(path, range="bytes=-4").body == content[-4:]
        assert door.get(path, range=f"bytes={len(content)}-").status == 416
        assert door.get(path, **{"if-none-match": reply.headers["etag"]}).status == 304
        head = door.ask("HEAD", path)
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(content)))
    (world.output / "t" / image["filename"]).write_bytes(content[::-1])
    assert door.get("/api/tasks/t/outputs/0").status == 410
    assert door.run(image_prompt(), "t").code == "output_changed"


def test_names_lead_nowhere_else(world, pair):
    door, _ = pair
    (world.directory / "secret.png").write_bytes(b"secret")
    (world.output / "link.png").symlink_to(world.directory / "secret.png")
    (world.output / "inside").symlink_to(world.directory)
    os.mkfifo(world.output / "pipe.png")
    for query in ("filename=../secret.png", "filename=secret.png&subfolder=..", "filename=secret.png&subfolder=x/../..",
                  "filename=%2e%2e%2fsecret.png", "filename=link.png", "filename=secret.png&subfolder=inside",
                  f"filename=secret.png&subfolder={world.directory}", "filename=pipe.png", "filename=", "",
                  "filename=.", "filename=x%00.png", "filename=secret.png&type=temp", "filename=secret.png&type=x"):
        reply = door.get(f"/view?{query}")
        assert reply.status == 404 and b"secret" not in reply.body, (query, reply)


def upload(door, filename, content, **fields):
    parts = b"".join(b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value.encode())
                     for name, value in fields.items())
    body = (b'--b\r\nContent-Disposition: form-data; name="image"; filename="%s"\r\nContent-Type: image/png\r\n\r\n%s\r\n'
            % (filename.encode(), content)) + parts + b"--b--\r\n"
    return door.ask("POST", "/upload/image", body, **{"content-type": "multipart/form-data; boundary=b"})


def test_uploads_go_to_the_input_directory(world, pair):
    door, _ = pair
    content = png(1000)
    reply = upload(door, "a.png", content)
    assert (reply.status, reply.json) == (200, {"name": "a.png", "subfolder": "", "type": "input"})
    assert (world.input / "a.png").read_bytes() == content
    assert upload(door, "a.png", content).json["name"] == "a.png"
    assert upload(door, "a.png", b"other").json["name"] == "a (1).png"
    assert upload(door, "a.png", b"third", overwrite="true").json["name"] == "a.png"
    assert (world.input / "a.png").read_bytes() == b"third"
    assert upload(door, "b.png", content, subfolder="x/y").json == {"name": "b.png", "subfolder": "x/y", "type": "input"}
    assert door.get("/view?filename=b.png&subfolder=x/y&type=input").body == content
    prompt = {"1": node("LoadImage", image="x/y/b.png"), "2": node("SaveImage", images=["1", 0], filename_prefix="x")}
    assert door.run(prompt, "t").status == 200
    for name, fields in (("../a.png", {}), ("", {}), ("a.png", {"subfolder": ".."}), ("a.png", {"subfolder": "/x"}),
                         ("a.png", {"type": "output"}), ("a.png", {"subfolder": "x" * 2000, "overwrite": "true"}),
                         ("a.png\0x", {}), ("a.png", {"subfolder": "\0x"})):
        assert upload(door, name, b"x", **fields).status == 400, (name, fields)
    assert (world.input / "a.png").read_bytes() == b"third"
    assert door.ask("POST", "/upload/image", b"x").status == 400
    assert not [path for path in world.input.rglob("*.tmp")]


def test_output_folder_is_applied_once(world, pair):
    door, _ = pair
    assert door.run(image_prompt(prefix="p"), "t").status == 200
    assert [path.relative_to(world.output).parts[0] for path in world.output.rglob("*.png")] == ["t"]
    assert not (world.output / "t" / "t").exists()
