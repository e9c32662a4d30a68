"""The stand-in's bad behaviour is what README.md says: an integration test that relies on a fault
that does not happen would prove nothing."""

import asyncio
import hashlib
import http.client
import json
import os
import signal
import socket
import struct
import time
from pathlib import Path

import aiohttp
import pytest

from nodes_trouble import MIB, PIXEL
from process import Process

TEXT = {"1": {"class_type": "TestText", "inputs": {"text": "hello"}}}
STEPS = {"1": {"class_type": "TestSteps", "inputs": {"n": 3, "ms": 1, "seed": 0}}}


@pytest.fixture
def server(tmp_path: Path):
    with Process(tmp_path / "comfyui") as one:
        yield one


class Listener:
    """One socket of the stand-in, read to its end."""

    def __init__(self, server: Process, sid: str = "listener"):
        self.server, self.sid = server, sid
        self.messages: list = []
        self.code: int | None = None

    async def __aenter__(self):
        self.client = aiohttp.ClientSession()
        self.ws = await self.client.ws_connect(
            f"{self.server.base}/ws?clientId={self.sid}", max_msg_size=0
        )
        self.messages.append((await self.ws.receive()).data)
        self.reader = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        async for message in self.ws:
            self.messages.append(message.data)
        self.code = self.ws.close_code

    async def __aexit__(self, *_):
        await self.ws.close()
        await self.client.close()
        self.reader.cancel()

    def types(self) -> list[str]:
        found = []
        for message in self.messages:
            try:
                found.append(json.loads(message)["type"])
            except (ValueError, UnicodeDecodeError):
                found.append("binary" if isinstance(message, bytes) else "garbage")
        return found

    async def until(self, condition) -> None:
        for _ in range(4000):
            if condition(self):
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"{self.types()} {self.code}")

    async def run(self, graph: dict) -> None:
        await asyncio.to_thread(self.server.run, graph, client_id=self.sid)


def listening(server: Process, scenario) -> None:
    async def inner() -> None:
        async with Listener(server) as listener:
            await scenario(listener)

    asyncio.run(inner())


# Control itself


def test_control_only_when_asked_for(tmp_path: Path):
    with Process(tmp_path / "comfyui", control=False) as server:
        assert server.call("/standin/state")[0] == 404
        assert server.call("/standin/control", {"reset": True})[0] == 405


@pytest.mark.parametrize(
    "rule",
    [
        {},
        [],
        7,
        {"at": "noon", "do": "exit"},
        {"at": "node", "do": "truncate"},
        {"at": "http", "do": "hang"},
        {"at": "now", "do": "exit", "times": "often"},
    ],
)
def test_wrong_rules_are_refused(server: Process, rule):
    status, _, _ = server.call("/standin/control", rule)
    assert status == (200 if rule == [] else 400)
    assert server.state()["rules"] == []


def test_state_tells_bodies_byte_for_byte(server: Process):
    body = (
        b'{ "prompt": {"1": {"class_type":"TestText","inputs":{"text":"\\u00e9"}}},'
        b'"client_id":"me", "x":1e2 }'
    )
    status, _, _ = server.call("/prompt", body)
    assert status == 200
    state = server.idle()
    assert state["prompts"][0]["sha256"] == hashlib.sha256(body).hexdigest()
    assert state["prompts"][0]["client_id"] == "me"
    assert server.call("/standin/body/0")[2] == body
    assert server.call("/standin/body/1")[0] == 404
    assert state["requests"] == {"POST /prompt": 1}
    assert list(state["ended"].values()) == ["success"]
    server.call("/api/history/some-id")
    assert server.state()["requests"]["GET /history/*"] == 1
    server.order({"reset": True})
    assert server.state()["prompts"] == [] and server.get("/history")


def test_times_and_skip(server: Process):
    server.control(
        {"at": "http", "route": "/queue", "do": "answer", "status": 503, "times": 2, "skip": 1}
    )
    statuses = [server.call(path)[0] for path in ("/queue", "/api/queue", "/queue", "/queue")]
    assert statuses == [200, 503, 503, 200]
    server.control({"at": "http", "route": "GET /history/*", "do": "answer", "times": 0})
    assert {server.call("/history/x")[0] for _ in range(4)} == {500}
    assert server.call("/history")[0] == 200


# HTTP


def test_answers_that_lie(server: Process):
    server.control(
        {"at": "http", "route": "POST /prompt", "do": "do_then_answer"},
        {"at": "http", "route": "POST /prompt", "do": "do_then_answer", "finish": True, "skip": 1},
        {"at": "http", "route": "POST /prompt", "do": "finish", "skip": 2},
    )
    status, _, body = server.call("/prompt", {"prompt": TEXT})
    assert (status, body) == (500, b"500 Internal Server Error\n\nServer got itself in trouble")
    server.idle()
    assert server.call("/prompt", {"prompt": STEPS})[0] == 500
    assert len(server.state()["ended"]) == 2
    status, _, body = server.call("/prompt", {"prompt": TEXT})
    assert json.loads(body)["prompt_id"] in server.state()["ended"]
    assert [entry["status"] for entry in server.state()["prompts"]] == [200] * 3


def test_no_answers(server: Process):
    for action in ("close", "do_then_close"):
        server.control({"at": "http", "route": "POST /prompt", "do": action})
        assert not isinstance(server.fails("/prompt", {"prompt": TEXT}), TimeoutError)
    for action in ("hang", "do_then_hang"):
        server.control({"at": "http", "route": "POST /prompt", "do": action})
        assert isinstance(server.fails("/prompt", {"prompt": TEXT}, timeout=0.3), TimeoutError)
    server.until(lambda s: len(s["ended"]) == 2)
    assert server.state()["requests"]["POST /prompt"] == 4


def test_broken_bodies(server: Process):
    true = server.call("/features")[2]
    server.control({"at": "http", "route": "/features", "do": "garble"})
    status, headers, junk = server.call("/features")
    assert status == 200 and len(junk) == len(true) and junk != true
    assert headers["Content-Type"].startswith("application/json")
    server.control({"at": "http", "route": "/features", "do": "truncate", "bytes": 10})
    assert server.fails("/features").partial == true[:10]
    server.control({"at": "http", "route": "/features", "do": "wrong_length", "by": 5})
    assert server.fails("/features").partial == true
    server.control({"at": "http", "route": "/features", "do": "wrong_length", "by": -5})
    assert server.call("/features")[2] == true[:-5]
    server.control({"at": "http", "route": "/features", "do": "chunked"})
    status, headers, body = server.call("/features")
    assert body == true and "Content-Length" not in headers
    server.control({"at": "http", "route": "/features", "do": "flood", "bytes": 300000})
    assert len(json.loads(server.call("/features")[2])) == 299998


def test_slow_and_late_answers(server: Process):
    true = server.call("/features")[2]
    server.control({"at": "http", "route": "/features", "do": "slow", "bytes_per_s": 4 * len(true)})
    began = time.monotonic()
    assert server.call("/features")[2] == true
    assert time.monotonic() - began > 0.15
    server.control({"at": "http", "route": "/features", "do": "sleep", "ms": 150})
    began = time.monotonic()
    assert server.call("/features")[0] == 200
    assert time.monotonic() - began > 0.14


def test_view_is_twisted_like_the_rest(server: Process):
    graph = {
        "1": {
            "class_type": "TestBigImage",
            "inputs": {"bytes": 3 * MIB + 7, "filename_prefix": "big"},
        }
    }
    image = server.run(graph)["outputs"]["1"]["images"][0]
    path = f"/view?filename={image['filename']}"
    true = server.call(path)[2]
    assert len(true) == 3 * MIB + 7
    starts = range(len(PIXEL), 3 * MIB, MIB)
    assert [struct.unpack(">Q", true[at : at + 8])[0] for at in starts] == list(starts)
    server.control({"at": "http", "route": "/view", "do": "truncate", "bytes": MIB})
    assert server.fails(path).partial == true[:MIB]
    server.control({"at": "http", "route": "/view", "do": "wrong_length", "by": 1})
    assert server.fails(path).partial == true
    assert server.call(path, headers={"Range": "bytes=5-9"})[2] == true[5:10]
    server.control({"at": "view", "do": "exit", "code": 7})
    assert 0 < len(server.fails(path).partial) < len(true)
    assert server.exit_code() == 7


def test_stop_listening(server: Process):
    server.control({"at": "now", "do": "stop_listening"})
    with pytest.raises(OSError):
        for _ in range(100):
            server.call("/queue")
            time.sleep(0.01)
    assert server.child.poll() is None


# WebSocket


@pytest.mark.parametrize("action, code", [("drop", 1006), ("close", 1001)])
def test_sockets_are_ended(server: Process, action: str, code: int):
    async def scenario(listener: Listener) -> None:
        server.control({"at": "ws", "type": "executing", "do": action})
        await listener.run(TEXT)
        await listener.until(lambda one: one.code == code)
        assert "executing" not in listener.types()

    listening(server, scenario)

    async def at_once(listener: Listener) -> None:
        server.control({"at": "now", "do": f"ws_{action}"})
        await listener.until(lambda one: one.code == code)

    listening(server, at_once)


def test_messages_are_spoilt(server: Process):
    async def scenario(listener: Listener) -> None:
        server.control(
            {"at": "ws", "type": "execution_start", "do": "text"},
            {"at": "ws", "type": "execution_cached", "do": "lose"},
            {"at": "ws", "type": "executed", "do": "garble"},
            {"at": "ws", "type": "execution_success", "do": "repeat"},
            {"at": "ws", "type": "executing", "skip": 1, "do": "binary", "hex": "000000ff01"},
        )
        await listener.run(TEXT)
        await listener.until(lambda one: one.types().count("executing") == 2)
        types = [kind for kind in listener.types() if kind not in ("status", "progress_state")]
        assert types == [
            "garbage",
            "execution_start",
            "executing",
            "garbage",
            "execution_success",
            "execution_success",
            "binary",
            "executing",
        ]

    listening(server, scenario)


def test_floods(server: Process):
    async def scenario(listener: Listener) -> None:
        server.control(
            {"at": "now", "do": "ws_flood"}, {"at": "now", "do": "ws_flood", "binary": True}
        )
        await listener.until(lambda one: len(one.messages) == 3)
        assert {len(message) for message in listener.messages[1:]} == {5 * MIB}
        assert len({type(message) for message in listener.messages[1:]}) == 2

    listening(server, scenario)


def test_deaf_socket_stays_open(server: Process):
    async def scenario(listener: Listener) -> None:
        server.control({"at": "ws", "type": "execution_start", "do": "deaf"})
        await listener.run(TEXT)
        await asyncio.sleep(0.1)
        assert set(listener.types()) == {"status"}
        assert listener.code is None and server.state()["ws"]["open"] == 1

    listening(server, scenario)


def test_a_refused_and_an_unfinished_handshake(server: Process):
    async def scenario() -> None:
        async with aiohttp.ClientSession() as client:
            server.control({"at": "http", "route": "GET /ws", "do": "answer", "status": 503})
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await client.ws_connect(server.base + "/ws")
            server.control({"at": "http", "route": "GET /ws", "do": "hang"})
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.ws_connect(server.base + "/api/ws"), 0.3)

    asyncio.run(scenario())


# The worker and the process


@pytest.mark.parametrize(
    "moment",
    ["prompt_received", "before_reply", "node", "progress", "executed", "success", "history"],
)
def test_death_at_each_moment(server: Process, moment: str):
    server.control({"at": moment, "do": "signal"})
    try:
        server.call("/prompt", {"prompt": STEPS})
        assert moment not in ("prompt_received", "before_reply")
    except (OSError, http.client.HTTPException):
        pass
    assert server.exit_code() == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["node", "progress", "executed", "success", "history"])
def test_worker_dies_and_http_lives(server: Process, moment: str):
    server.control({"at": moment, "do": "kill_worker"})
    prompt_id = server.prompt(STEPS)
    state = server.until(lambda s: not s["worker_alive"])
    assert (prompt_id in state["queue"]["running"]) == (moment != "history")
    assert "Exception in thread Thread-1 (prompt_worker)" in server.log
    later = server.prompt(TEXT)
    assert server.state()["queue"]["pending"] == [later]


def test_hold_and_release(server: Process):
    server.control({"at": "progress", "value": 2, "do": "hold", "name": "second"})
    prompt_id = server.prompt(STEPS)
    server.until(lambda s: s["fired"] == [{"at": "progress", "do": "hold"}])
    assert server.get(f"/history/{prompt_id}") == {}
    server.order({"release": "second"})
    server.until(lambda s: prompt_id in s["ended"])


def test_history_late_and_lost(server: Process):
    server.control(
        {"at": "success", "do": "delay_entry", "ms": 200},
        {"at": "success", "do": "lose_entry", "skip": 1},
    )
    first, second = server.prompt(TEXT), server.prompt(STEPS)
    server.until(lambda s: second in s["ended"])
    assert server.get(f"/history/{second}") == {}
    end = time.monotonic() + 10
    while not server.get(f"/history/{first}"):
        assert time.monotonic() < end
        time.sleep(0.01)
    server.control({"at": "now", "do": "lose_history"})
    assert server.get("/history") == {}


def test_a_worker_that_dozes_sees_flags_behind_the_next_prompt(server: Process):
    server.run(TEXT)
    server.control({"at": "now", "do": "doze"})
    assert server.call("/free", {"unload_models": True, "free_memory": True})[0] == 200
    assert server.state()["flags"] == ["unload_models", "free_memory"]
    cached = server.run(TEXT)["status"]["messages"][1][1]["nodes"]
    server.until(lambda s: s["flags"] == [])
    assert cached and server.run(TEXT)["status"]["messages"][1][1]["nodes"] == []


def test_lost_queue_and_cache(server: Process):
    server.run(TEXT)
    server.control({"at": "now", "do": "clear_cache"})
    assert server.run(TEXT)["status"]["messages"][1][1]["nodes"] == []
    server.control({"at": "node", "do": "hold"})
    server.prompt(STEPS)
    server.until(lambda s: s["queue"]["running"])
    server.prompt(TEXT)
    server.control({"at": "now", "do": "lose_queue"})
    assert server.state()["queue"]["pending"] == []
    server.order({"release": "hold"})
    server.idle()


def test_freeze_stops_http_but_not_signals(server: Process):
    server.control({"at": "node", "do": "freeze", "ms": 500})
    began = time.monotonic()
    server.prompt(TEXT)
    server.idle()
    assert time.monotonic() - began > 0.4
    server.control({"at": "node", "do": "freeze", "ms": 20000})
    try:
        server.call(
            "/prompt", {"prompt": STEPS}, timeout=0.5
        )  # the freeze may come before the answer
    except TimeoutError:
        pass
    assert isinstance(server.fails("/queue", timeout=0.3), TimeoutError)
    server.child.terminate()
    assert server.exit_code() == -signal.SIGTERM


def test_ignored_signals(server: Process):
    server.control({"at": "now", "do": "ignore"})
    for number in (signal.SIGTERM, signal.SIGINT):
        server.child.send_signal(number)
    assert server.call("/queue")[0] == 200
    server.child.kill()
    assert server.exit_code() == -signal.SIGKILL


def test_forked_child_stays_and_keeps_the_pipe(server: Process):
    server.control({"at": "now", "do": "fork"})
    server.child.kill()
    server.exit_code()
    os.killpg(server.child.pid, 0)  # the group has a member still


def test_boot(tmp_path: Path):
    rules = [
        {"at": "boot", "do": "print", "lines": 3, "bytes": 10},
        {"at": "boot", "do": "bar", "ms": 1},
        {"at": "boot", "do": "print", "text": "to stdout", "to": "stdout"},
        {"at": "boot", "do": "exit", "code": 9},
    ]
    with Process(
        tmp_path / "a", env={"STANDIN_MISBEHAVE": json.dumps(rules)}, wait=False
    ) as server:
        assert server.exit_code() == 9
        assert server.log.count("x" * 10 + "\n") == 3
        assert "\r100%" in server.log and "To see the GUI" not in server.log
        assert server.out.read_text() == "to stdout\n"
    never = json.dumps({"at": "boot", "do": "never_bind"})
    with Process(tmp_path / "b", env={"STANDIN_MISBEHAVE": never}, wait=False) as server:
        time.sleep(0.6)
        assert server.child.poll() is None
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", server.port), 1)
    with Process(tmp_path / "c", env={"STANDIN_BOOT_MS": "300"}) as server:
        assert "Import times" in server.log
