"""Starts, stops and deaths: of the agent, of ComfyUI, of both."""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import pytest

from live import run_ws
from world import Peer, ask, image_prompt, later, node, post, sleep_prompt, steps_prompt, until


def stat(pid):
    """(state, parent, group) of a process, or None."""
    with contextlib.suppress(OSError):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return fields[0], int(fields[1]), int(fields[2])
    return None


def group(pgid):
    """The living processes of a group."""
    pids = [int(path.name) for path in pathlib.Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if (found := stat(pid)) and found[2] == pgid and found[0] != "Z"]


def with_child(agent):
    """ComfyUI's group, after it has got a child that ignores INT and TERM and keeps the pipes open."""
    agent.comfy.control({"at": "now", "do": "fork", "ms": 600_000})
    pgid = os.getpgid(agent.comfy.state()["pid"])
    until("the child to be there", lambda: len(group(pgid)) >= 2)
    return pgid


def held(agent, prompt, task_id):
    agent.comfy.control({"at": "node", "do": "hold"})
    waiting = later(agent.run, prompt, task_id)
    until("the task to run", lambda: agent.record(task_id).json.get("status") == "running")
    return waiting


# --- the agent is told to end ----------------------------------------------------------------------


def test_a_run_may_end_when_the_agent_is_told_to(world):
    agent = world.agent()
    pgid = with_child(agent)
    waiting = held(agent, steps_prompt(5), "t")
    queued = later(agent.run, image_prompt(1), "queued")
    until("the other to wait", lambda: agent.get("/readyz").json["tasks"]["waiting"] == 1)
    agent.signal(signal.SIGTERM)

    def refused():
        try:
            Peer(agent.port).leave()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            pass  # it came in the moment of closing
        return False

    until("nobody to be let in", refused)
    agent.comfy.release()
    assert waiting.result().status == 200
    assert queued.result().status == 200
    assert agent.wait() == 0
    until("ComfyUI's group to be gone", lambda: not group(pgid))
    assert world.document("t~task")["status"] == world.document("queued~task")["status"] == "succeeded"


def test_a_run_that_does_not_end_in_time_is_recorded_as_stopped(world):
    agent = world.agent(env={"DRAIN_TIMEOUT": "1s"})
    pgid = with_child(agent)
    waiting = later(agent.run, {"1": node("TestHang", ms=600_000)}, "t")
    until("the task to run", lambda: agent.record("t").json.get("status") == "running")
    queued = later(agent.run, image_prompt(1), "queued")
    until("the other to wait", lambda: agent.get("/readyz").json["tasks"]["waiting"] == 1)
    told = time.monotonic()
    agent.signal(signal.SIGTERM)
    for task_id, reply in (("t", waiting.result()), ("queued", queued.result())):
        assert (reply.status, reply.code) == (503, "stopping"), reply
        assert int(reply.headers["retry-after"]) > 0 and reply.headers["task-id"] == task_id
        assert time.monotonic() - told < 1.5
        record = world.document(f"{task_id}~task")
        assert (record["status"], record["error"]["code"]) == ("failed", "stopping")
    assert agent.wait() == 0
    assert not group(pgid)


def test_what_nobody_waits_for_is_left_to_whoever_comes_after(world):
    """A restart: who was told 202 has nobody who would send his prompt again."""
    env = {"DRAIN_TIMEOUT": "1s", "LEASE_TIMEOUT": "2s"}
    agent = world.agent(env=env)
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    ids = [f"t{n}" for n in range(3)]
    for task_id in ids:
        assert agent.run(steps_prompt(3), task_id, {"prefer": "respond-async"}).status == 202
    until("one to run", lambda: agent.record("t0").json["status"] == "running")
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0
    assert [world.document(f"{task_id}~task")["status"] for task_id in ids] == ["running", "queued", "queued"]
    after = world.agent("after", env=env)
    for task_id in ids:
        until(f"the end of {task_id}", lambda: after.record(task_id).json["status"] == "succeeded")


def test_who_looks_on_at_what_is_left_to_others_is_told_how_it_is(world):
    """And keeps nobody from going on with it."""
    agent = world.agent(env={"DRAIN_TIMEOUT": "1s"})
    assert agent.run({"1": node("TestHang", ms=600_000)}, "t", {"prefer": "respond-async"}).status == 202
    until("it to run", lambda: agent.record("t").json["status"] == "running")
    etag = agent.record("t").headers["etag"]
    stream = Peer(agent.port, b"GET /api/tasks/t/events HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" in stream.stream.readline()
    poll = later(agent.get, "/api/tasks/t?wait=60", **{"if-none-match": etag})
    until("both to look on", lambda: b"comfy_agent_http_connections 3" in agent.get("/metrics").body)
    agent.signal(signal.SIGTERM)
    assert poll.result().status == 304 or poll.result().json["status"] == "running", poll.result()
    assert b"stopping" not in stream.stream.read()
    assert agent.wait() == 0
    assert world.document("t~task")["status"] == "running"


def test_what_was_to_be_cancelled_is_not_left_to_anybody(world):
    agent = world.agent(env={"DRAIN_TIMEOUT": "1s"})
    assert agent.run({"1": node("TestHang", ms=600_000)}, "t", {"prefer": "respond-async"}).status == 202
    until("it to run", lambda: agent.record("t").json["status"] == "running")
    assert agent.ask("DELETE", "/api/tasks/t").status == 202
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0
    assert world.document("t~task")["status"] == "cancelled"


@pytest.mark.parametrize("wish", ["stop", "cancel"])
def test_a_comfyui_that_does_not_answer_when_it_is_to_free_its_memory(world, wish):
    comfy = world.comfyui()
    agent = world.agent(url=comfy.url, env={"DRAIN_TIMEOUT": "1s"})
    comfy.control({"at": "http", "route": "POST /free", "do": "hang"})
    run = later(agent.run, {"1": node("TestRaise", message="no", kind="OutOfMemoryError")}, "t")
    until("it to be asked", lambda: comfy.state()["requests"].get("POST /free") == 1)
    if wish == "cancel":
        assert agent.ask("DELETE", "/api/tasks/t").status == 202
        assert (run.result().status, run.result().code) == (500, "cancelled")
    agent.signal(signal.SIGTERM)
    if wish == "stop":
        assert (run.result().status, run.result().code) == (503, "stopping")
    assert agent.wait() == 0
    assert world.document("t~task")["error"]["code"] == ("stopping" if wish == "stop" else "cancelled")


@pytest.mark.long
def test_a_store_that_hangs_at_the_end_costs_no_caller_his_result(world):
    agent = world.agent(env={"STORE_URL": "mem:?delay_ms=8000", "DRAIN_TIMEOUT": "500ms"})
    waiting = later(agent.run, image_prompt(), "t")
    until("ComfyUI to have run it", lambda: agent.comfy.state()["nodes_run"] == 2)
    time.sleep(0.2)
    agent.signal(signal.SIGTERM)
    reply = waiting.result()
    assert (reply.status, reply.headers["task-stored"]) == (200, "no"), reply
    agent.right_code = agent.wait()


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_a_second_signal_ends_it_at_once_and_comfyui_too(world, name):
    agent = world.agent()
    pgid = with_child(agent)
    waiting = held(agent, sleep_prompt(1), "t")
    number = getattr(signal, "SIG" + name)
    agent.signal(number)
    until("it to have heard", lambda: "stopping" in agent.text())
    agent.signal(number)
    agent.ends(128 + number)
    until("ComfyUI's group to be gone", lambda: not group(pgid))
    with pytest.raises((OSError, http.client.HTTPException)):
        waiting.result()


def test_a_comfyui_that_ignores_signals_is_ended_all_the_same(world):
    agent = world.agent()
    pgid = with_child(agent)
    agent.comfy.control({"at": "now", "do": "ignore"})
    agent.stop()
    assert not group(pgid)


@pytest.mark.long
def test_a_stop_that_hangs_is_given_up(world):
    agent = world.agent(env={"DRAIN_TIMEOUT": "1s"})
    (guard,) = map(int, pathlib.Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split())
    os.kill(guard, signal.SIGSTOP)  # it would have ended ComfyUI
    agent.signal(signal.SIGTERM)
    agent.ends(70)
    assert "takes too long" in agent.text()
    os.kill(guard, signal.SIGCONT)
    until("the guard to be gone", lambda: stat(guard) is None or stat(guard)[0] == "Z")


def test_a_killed_agent_takes_comfyui_along(world):
    agent = world.agent()
    pgid = with_child(agent)
    agent.signal(signal.SIGKILL)
    agent.wait()
    until("ComfyUI's group to be gone", lambda: not group(pgid))


# --- ComfyUI starts --------------------------------------------------------------------------------


def test_who_asks_while_comfyui_starts_waits_and_is_answered(world):
    agent = world.agent(ready=False, comfy_env={"STANDIN_BOOT_MS": "1200"})
    until("the agent to answer", agent.answers)
    assert agent.get("/readyz").status == 503
    waiting = [later(agent.run, image_prompt(n), f"t{n}") for n in range(5)]
    until("all to wait", lambda: agent.get("/readyz").json["tasks"]["waiting"] == 5)
    assert agent.get("/api/status?id=t1").status == 200
    assert [each.result().status for each in waiting] == [200] * 5
    assert agent.record("t0").json["phases"]["boot_ms"] > 100
    assert agent.run(image_prompt(9), "after").status == 200
    assert agent.record("after").json["phases"]["boot_ms"] < 100


def test_a_comfyui_that_starts_too_slowly_is_503(world):
    agent = world.agent(ready=False, env={"STARTUP_TIMEOUT": "700ms"}, comfy_env={"STANDIN_BOOT_MS": "600000"})
    until("the agent to answer", agent.answers)
    reply = agent.run(image_prompt(1), "t")
    assert (reply.status, reply.code) == (503, "comfyui_starting"), reply
    assert int(reply.headers["retry-after"]) > 0
    assert agent.record("t").json["status"] == "failed"
    until("it to be started again", lambda: agent.get("/readyz").json["comfyui"]["restarts"] > 0)


def made_before(world):
    """A task that has succeeded, and an agent that has gone."""
    agent = world.agent("before")
    assert agent.run(image_prompt(1), "made").status == 200
    agent.stop()


def starting(world, boot_ms, **env):
    agent = world.agent(ready=False, env=env, comfy_env={"STANDIN_BOOT_MS": str(boot_ms)})
    until("the agent to answer", agent.answers)
    assert agent.get("/readyz").status == 503
    return agent


def test_what_was_made_before_is_had_when_comfyui_has_started(world):
    made_before(world)
    agent = starting(world, 1200)
    asked = [later(agent.run, image_prompt(1), "made"),
             later(agent.run, image_prompt(1), "made", {"accept": "image/*"}),
             later(agent.get, "/api/tasks/made/outputs/0"),
             later(run_ws, agent, image_prompt(1), "?task-id=made")]
    late = agent.run(image_prompt(1), "made", {"prefer": "wait=0"})
    assert (late.status, late.headers["location"]) == (202, "/api/tasks/made")
    assert not any(each.done() for each in asked)
    replay, picture, output, talk = [each.result() for each in asked]
    assert (replay.status, picture.status, output.status) == (200, 200, 200)
    assert replay.json["2"]["results"] == talk.end["data"]["2"]["results"]
    assert base64.b64decode(replay.json["2"]["results"][0]) == picture.body == output.body
    assert agent.comfy.state()["prompts"] == []


def test_what_was_made_before_is_503_when_comfyui_starts_too_slowly(world):
    made_before(world)
    agent = starting(world, 600000, STARTUP_TIMEOUT="2s")
    began = time.monotonic()
    asked = [later(agent.run, image_prompt(1), "made"), later(agent.get, "/api/tasks/made/outputs/0")]
    for each in asked:
        reply = each.result()
        assert (reply.status, reply.code) == (503, "comfyui_unavailable") and reply.headers["retry-after"]
    assert 1.5 < time.monotonic() - began < 20


def test_who_leaves_while_comfyui_starts_leaves_nothing(world):
    made_before(world)
    agent = starting(world, 1500)
    replay = post("/api/run", image_prompt(1), "task-id: made")
    output = b"GET /api/tasks/made/outputs/0 HTTP/1.1\r\nHost: x\r\n\r\n"
    peers = [Peer(agent.port, said) for said in (replay, output) * 3]
    time.sleep(0.2)  # they have nothing to show for it
    for n, peer in enumerate(peers[:4]):
        peer.leave(reset=n % 2 == 0)
    assert peers[4].hear().status == peers[5].hear().status == 200


def test_a_stop_is_told_to_who_waits_for_what_was_made(world):
    made_before(world)
    agent = starting(world, 600000)
    asked = [later(agent.run, image_prompt(1), "made"), later(agent.get, "/api/tasks/made/outputs/0")]
    time.sleep(0.3)
    began = time.monotonic()
    agent.signal(signal.SIGTERM)
    for each in asked:
        assert (each.result().status, each.result().code) == (503, "comfyui_unavailable")
        assert "stopping" in each.result().json["error"]["detail"]
    assert time.monotonic() - began < 4  # answers that are under way have 5 s
    agent.ends(0)


@pytest.mark.long
def test_a_comfyui_that_exits_again_and_again_is_given_up(world):
    made_before(world)
    rules = json.dumps({"at": "boot", "do": "exit", "code": 3, "times": 0})
    agent = world.agent(ready=False, comfy_env={"STANDIN_MISBEHAVE": rules})
    until("the agent to answer", agent.answers)
    waiting = later(agent.run, image_prompt(1), "t")
    output = later(agent.get, "/api/tasks/made/outputs/0")
    until("it to be started again", lambda: agent.get("/readyz").json["comfyui"].get("last_exit"))
    reply = waiting.result()
    assert (output.result().status, output.result().code) == (503, "comfyui_unavailable")
    assert "exited too often" in output.result().json["error"]["detail"]
    assert (reply.status, reply.code) == (503, "comfyui_gave_up"), reply
    assert reply.json["error"]["exit"]["code"] == 3 and "code 3" in reply.json["error"]["detail"]
    agent.ends(1)  # so that another instance is started
    assert world.document("t~task")["error"]["code"] == "comfyui_gave_up"


def test_that_it_is_ready_is_seen_at_once(world):
    late = []
    for n in range(3):
        agent = world.agent(f"agent{n}", ready=False, comfy_env={"STANDIN_BOOT_MS": "500"})

        def is_up():
            with contextlib.suppress(OSError):
                return ask(agent.comfy.port, "GET", "/queue").status == 200

        until("ComfyUI to answer", is_up)
        up = time.monotonic()
        agent.wait_ready()
        late.append(time.monotonic() - up)
        agent.stop()
    assert min(late) < 0.2, late


# --- what ComfyUI prints ---------------------------------------------------------------------------


def test_floods_of_output_hold_nobody_up(world):
    agent = world.agent()
    agent.comfy.control({"at": "node", "do": "print", "lines": 20_000, "bytes": 200},
                        {"at": "executed", "do": "print", "text": "x" * 3_000_000, "end": ""})
    assert agent.run(image_prompt(1)).status == 200
    assert agent.run(image_prompt(2)).status == 200
    assert agent.get("/healthz").status == 200
    assert agent.log.stat().st_size < 2_000_000, "neither is the log flooded"


def test_a_progress_bar_is_a_few_lines(world):
    agent = world.agent()
    agent.comfy.control({"at": "node", "do": "bar", "steps": 300, "ms": 2},
                        {"at": "executed", "do": "print", "text": "after the bar"})
    assert agent.run(image_prompt(1)).status == 200
    until("the log", lambda: "after the bar" in agent.text())
    bars = [line for line in agent.text().splitlines() if "%|" in line]
    assert 1 <= len(bars) <= 20, bars
    assert any("100%" in line for line in bars), "its last state is told"


def test_the_last_lines_before_a_death_are_told(world):
    agent = world.agent(env={"MAX_ATTEMPTS": "1"})
    agent.comfy.control({"at": "node", "do": "print", "text": "CUDA error: out of \x1b[31mluck\x1b[0m \xe9"},
                        {"at": "executed", "do": "exit", "code": 7})
    reply = agent.run(image_prompt(1), "t")
    assert (reply.status, reply.code) == (502, "comfyui_died")
    error = reply.json["error"]
    assert error["exit"]["code"] == 7
    assert "CUDA error: out of" in error["log_tail"], error


# --- process 1 -------------------------------------------------------------------------------------


def namespaces():
    return shutil.which("unshare") is not None and subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not namespaces(), reason="process namespaces cannot be made here")
def test_as_process_1_it_buries_orphans_and_stops_when_told(world):
    agent = world.agent(prefix=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"])
    (inner,) = map(int, pathlib.Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split())
    assert " 1\n" in pathlib.Path(f"/proc/{inner}/status").read_text().split("NSpid:")[1].replace("\t", " ")
    assert agent.run(image_prompt(1)).status == 200
    agent.comfy.control(*[{"at": "now", "do": "fork", "ms": 300, "keep": []}] * 5)

    def children():
        """All below the agent."""
        found = {int(path.name): stat(path.name) for path in pathlib.Path("/proc").iterdir()
                 if path.name.isdigit()}
        below = {inner}
        for _ in range(5):
            below |= {pid for pid, about in found.items() if about and about[1] in below}
        return {pid: found[pid][0] for pid in below - {inner}}

    many = until("the children to be there", lambda: len(children()) >= 5 and children())
    comfy = [pid for pid in many if stat(pid) and b"main.py" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(min(comfy), signal.SIGKILL)  # its children become ours
    agent.wait_ready()
    assert agent.run(image_prompt(2)).status == 200
    until("the dead to be buried", lambda: "Z" not in children().values())
    os.kill(inner, signal.SIGTERM)
    assert agent.wait() == 0
    assert stat(inner) is None


# --- killed while it writes ------------------------------------------------------------------------


@pytest.mark.release
def test_200_kills_during_writes_leave_only_whole_documents(world):
    comfy = world.comfyui()
    store = pathlib.Path(world.store)
    large = "x" * 300_000  # is written for a while
    cut = documents = 0
    rng = random.Random(7)
    for n in range(200):
        world.store = store / str(n)
        world.store.mkdir(parents=True)
        agent = world.agent("killed", url=comfy.url, env={
            "STORE_URL": f"file:{world.store}?threads=4", "MAX_CONCURRENCY": "16", "LOG_LEVEL": "error"})
        peers = [Peer(agent.port, post("/api/run", {"1": node("TestText", text=f"{k}{large}")}, f"task-id: t{k}"))
                 for k in range(6)]
        enough = rng.randrange(1, 12)
        until("something to be written", lambda: len(os.listdir(world.store)) >= enough)
        time.sleep(rng.uniform(0, 0.002))
        watched = time.monotonic()
        while not any(name.endswith(".tmp") for name in os.listdir(world.store)):
            if time.monotonic() - watched > 0.02:
                break  # all is written: then it dies between two writes
        agent.signal(signal.SIGKILL)
        agent.wait()
        agent.close()
        world.processes.remove(agent)
        for peer in peers:
            peer.leave(reset=True)
        temporary = False
        for path in world.store.iterdir():
            if path.name.endswith(".tmp"):
                temporary = True
                continue
            documents += 1
            document = json.loads(path.read_bytes())
            assert isinstance(document, dict), path
        cut += temporary
        shutil.rmtree(world.store)
    print(f"{documents} documents; {cut} of 200 kills cut a write")
    assert cut > 20, "not killed in time"
    world.store = store


def test_a_call_that_comes_while_all_is_frozen_is_as_young_as_it_is(world):
    agent = world.agent(url=world.comfyui().url)
    peer = Peer(agent.port, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert peer.hear().status == 200
    agent.signal(signal.SIGSTOP)
    time.sleep(2.5)
    peer.say(post("/api/run", sleep_prompt(100)))
    agent.signal(signal.SIGCONT)
    reply = peer.hear()
    assert "did not run for" in agent.text()
    assert reply.status == 200, reply


@pytest.mark.parametrize("passed", ["0", "1"])
def test_comfyui_does_not_get_our_secrets(world, passed):
    agent = world.agent(ready=False, env={"API_KEY": "sesame", "ALIBABA_CLOUD_SECURITY_TOKEN": "token",
                                          "PASS_CREDENTIALS": passed})
    until("ComfyUI to be ready", lambda: "open for prompts" in agent.text())
    environ = pathlib.Path(f"/proc/{agent.comfy.state()['pid']}/environ").read_bytes().split(b"\0")
    names = {variable.split(b"=")[0] for variable in environ}
    assert b"PATH" in names and not names & {b"API_KEY", b"STORE_URL"}
    assert (b"ALIBABA_CLOUD_SECURITY_TOKEN" in names) == (passed == "1")
    ours = pathlib.Path(f"/proc/{agent.pid}/environ").read_bytes()
    assert b"PATH=" in ours and b"sesame" not in ours and b"token" not in ours
