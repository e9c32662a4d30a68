"""The stand-in against the recordings of two real ComfyUIs, 0.3.7 and 0.33.0. Where they differ,
the stand-in is wrong.

Compared, for both ages:

- All 36 cases (*.jsonl). Every action of the recorded client is repeated as soon as its sockets
  have heard what the recorded ones had heard; then each socket's messages are compared one by one
  (type, order, every field and value, 1 apart from 1.0, order of fields), and every HTTP answer
  (status, headers, body), close codes, and whether the process lives or with which code it ended.
- All of http-prompt-errors, http-queue-history, http-view, http-upload, http-info,
  http-origin-check.
- ws-raw: the handshakes and frames that ComfyUI or its library decide on and that a client can
  rely on.
- lifecycle: the ready line, port in use, signals and exit codes, an unknown flag, a reader that
  does not read.

Not compared, or only by type or shape:

- ids (prompt ids, server-chosen sids, temp file names): they are mapped, so that each must appear
  where its counterpart does; timestamps; Date, Server, ETag, Last-Modified; Content-Length (the
  bodies are compared); the frames of tracebacks; absolute paths, but for the file's name.
- The bytes of pictures (kind and first bytes are compared), since models and PyTorch are missing.
- Lists and objects that are a Python set's in ComfyUI (`executed`, `current_outputs`, output ids,
  the older age's `outputs`) are compared without order; the order in which outputs run, a set's
  too, is told to the stand-in.
- When a POST's `status` comes relative to what the worker says: recorded both ways. The values of
  status are compared in their order, and that one comes before each `executing` with node null.
- The first requests of 03 and 16 are shown wrongly in the recordings (the recorder changed the
  graph in place for its second request); history tells what was sent, and that is posted.
- What names the recording machine: /system_stats (keys and version are compared), /internal/logs,
  /internal/folder_paths, /object_info as a whole (single classes are compared), the page at /.
- http-raw, and in ws-raw unmasked frames, reserved bits, bad UTF-8, versions and keys: all of it is
  aiohttp's work, and aiohttp is what runs here too. Its idle timeout of 75 s and 20 s of silence
  on a socket would only cost time.
- lifecycle: durations, and the exact text of the slow start.
"""

import asyncio
import base64
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

import replay_http
from process import MAIN, Process
from replay import Player
from script import TRACES, Script, load_case

AGES = ("0.3.7", "0.33.0")
CASES = sorted(path.stem for path in (TRACES / AGES[0]).glob("*.jsonl"))
LISTS = sorted(
    path.stem for path in (TRACES / AGES[0]).glob("http-*.json") if path.stem != "http-raw"
)

both_ages = pytest.mark.parametrize("age", AGES)


@both_ages
@pytest.mark.parametrize("name", CASES)
def test_case(tmp_path: Path, age: str, name: str):
    script = Script(load_case(age, name))
    with Process(tmp_path / "comfyui", age) as server:
        player = Player(server, script)
        player.prepare()
        asyncio.run(player.play())
        differences = player.judge()
        assert not differences, "\n".join(differences)


@both_ages
@pytest.mark.parametrize("name", LISTS)
def test_list(tmp_path: Path, age: str, name: str):
    with Process(tmp_path / "comfyui", age) as server:
        differences = replay_http.play(server, age, name)
        assert not differences, "\n".join(differences)


# The dead worker of cases 30 and 32 shows on stderr and nowhere else.


@pytest.mark.parametrize(
    "age, body",
    [
        ("0.3.7", {"extra_data": None}),
        ("0.3.7", {}),
        ("0.33.0", {}),
    ],
)
def test_dead_worker_is_told_on_stderr(tmp_path: Path, age: str, body: dict):
    graph = {"1": {"class_type": "LabText", "inputs": {"text": ""}}}
    if not body:
        graph["9"] = {"class_type": "ImageInvert"}
    with Process(tmp_path / "comfyui", age) as server:
        server.prompt(graph, **body)
        server.until(lambda s: not s["worker_alive"])
        assert "Exception in thread Thread-1 (prompt_worker)" in server.log
        assert server.call("/queue")[0] == 200


# ws-raw


class RawSocket:
    """Bytes on a TCP connection, as the recorder saw them."""

    def __init__(self, server: Process, target: str, extra: str = ""):
        self.connection = socket.create_connection(("127.0.0.1", server.port), 5)
        self.connection.sendall(
            f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n"
            f"{extra}\r\n".encode()
        )
        self.stream = self.connection.makefile("rb")
        self.head = b"".join(iter(self.stream.readline, b"\r\n")).decode().splitlines()

    def send(self, op: int, payload: bytes = b"") -> None:
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else struct.pack(">BQ", 0x80 | 127, size)
        self.connection.sendall(bytes([0x80 | op]) + length + b"\0\0\0\0" + payload)

    def frame(self) -> tuple[int, int, bytes]:
        first, size = self.stream.read(2)
        if size == 126:
            (size,) = struct.unpack(">H", self.stream.read(2))
        return first & 15, first >> 4 & 7, self.stream.read(size)

    def quiet(self) -> bool:
        """A ping, sent now, is answered by nothing before its pong."""
        self.send(9, b"quiet?")
        return self.frame() == (10, 0, b"quiet?")


def recorded_check(age: str, label: str) -> dict:
    checks = json.loads((TRACES / age / "ws-raw.json").read_text(encoding="utf-8"))["checks"]
    return next(check for check in checks if check["label"] == label)


def head_of(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith(("Date:", "Server:"))]


@both_ages
@pytest.mark.parametrize(
    "label, target, extra",
    [
        ("plain handshake", "/ws?clientId=raw1", ""),
        ("/api/ws", "/api/ws?clientId=raw2", ""),
        (
            "permessage-deflate offered",
            "/ws?clientId=raw1",
            "Sec-WebSocket-Extensions: permessage-deflate\r\n",
        ),
        ("subprotocol offered", "/ws?clientId=raw1", "Sec-WebSocket-Protocol: chat\r\n"),
    ],
)
def test_handshake(tmp_path: Path, age: str, label: str, target: str, extra: str):
    recorded = recorded_check(age, label)
    with Process(tmp_path / "comfyui", age) as server:
        raw = RawSocket(server, target, extra)
        assert head_of(raw.head) == head_of(recorded["response_head"].splitlines())
        op, reserved, payload = raw.frame()
        if "frames" in recorded:
            frame = recorded["frames"][0]
            assert (op, reserved, len(payload)) == (frame["op"], frame["rsv"], frame["len"])
            assert payload.decode() == frame["text"] if "text" in frame else reserved == 4


@both_ages
def test_client_frames(tmp_path: Path, age: str):
    flags = b'{"type": "feature_flags", "data": {}}'
    answers = age == "0.33.0"
    with Process(tmp_path / "comfyui", age) as server:
        raw = RawSocket(server, "/ws?clientId=%20sp%2Fx")
        assert json.loads(raw.frame()[2])["data"]["sid"] == " sp/x"
        raw.send(10, b"unsolicited")
        raw.send(1, b"this is not JSON")
        raw.send(2, b"\0\1")
        assert raw.quiet()
        raw.send(1, flags)
        if answers:
            text = recorded_check(age, "feature_flags as the first text message")["frames"][0][
                "text"
            ]
            assert raw.frame() == (1, 0, text.encode())
        raw.send(1, flags)  # no longer the first
        assert raw.quiet()
        raw.send(8, struct.pack(">H", 1000))
        assert raw.frame() == (8, 0, struct.pack(">H", 1000))
        assert raw.stream.read() == b""

        other = RawSocket(server, "/ws?ClientID=x")  # the key is case-sensitive
        assert len(json.loads(other.frame()[2])["data"]["sid"]) == 32
        other.send(1, b'{"type": "something else"}')
        other.send(1, flags)
        assert other.quiet()


@both_ages
def test_client_message_limit(tmp_path: Path, age: str):
    with Process(tmp_path / "comfyui", age) as server:
        raw = RawSocket(server, "/ws?clientId=a")
        raw.frame()
        raw.send(1, b"x" * ((4 << 20) - 1))
        assert raw.quiet()
        try:
            raw.send(1, b"x" * (4 << 20))
            assert raw.frame() == (8, 0, struct.pack(">H", 1009))
        except ConnectionResetError:
            pass  # the connection's end overtook the close frame, as it did in a recording


# lifecycle


@both_ages
def test_ready_line_and_second_instance(tmp_path: Path, age: str):
    with Process(tmp_path / "comfyui", age) as server:
        line = f"To see the GUI go to: http://127.0.0.1:{server.port}"
        assert server.log.splitlines()[-1] == (
            f"\x1b[32m[INFO]\x1b[0m {line}" if age == "0.33.0" else line
        )
        assert server.out.read_bytes() == b""
        with Process(tmp_path / "second", age, wait=False, port=server.port) as second:
            assert second.exit_code() == 1
            last = second.log.rstrip().splitlines()[-1]
            if age == "0.33.0":
                assert last == (
                    f"\x1b[1m\x1b[31m[ERROR]\x1b[0m Port {server.port} is already in use on "
                    "address 127.0.0.1. Please close the other application or use a different "
                    "port with --port."
                )
            else:
                assert last.startswith("OSError: [Errno 98]")


SLOW = {"1": {"class_type": "TestSteps", "inputs": {"n": 1000, "ms": 20, "seed": 1}}}
OPAQUE = {"1": {"class_type": "TestSleep", "inputs": {"ms": 20000, "seed": 1}}}


@both_ages
@pytest.mark.parametrize("graph", [None, SLOW, OPAQUE], ids=["idle", "progress", "opaque"])
@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_signals(tmp_path: Path, age: str, name: str, graph: dict | None):
    number = signal.Signals[f"SIG{name}"]

    async def close_code(server: Process) -> int:
        async with aiohttp.ClientSession() as client, client.ws_connect(server.base + "/ws") as ws:
            await ws.receive()
            server.child.send_signal(number)
            while (await ws.receive()).type == aiohttp.WSMsgType.TEXT:
                pass
            return ws.close_code

    with Process(tmp_path / "comfyui", age) as server:
        if graph:
            server.prompt(graph)
            server.until(lambda s: s["nodes_run"] == 1)
        assert asyncio.run(close_code(server)) == 1006
        assert server.exit_code() == (0 if name == "INT" else -signal.SIGTERM)
        assert ("Stopped server" in server.log) == (name == "INT")
        assert (server.folder / "temp").exists() == (name == "TERM")


def test_unknown_flag():
    done = subprocess.run(
        [sys.executable, str(MAIN), "--no-such-flag"], capture_output=True, timeout=20
    )
    assert done.returncode == 2


def test_known_flags_that_change_nothing(tmp_path: Path):
    flags = [
        "--disable-auto-launch",
        "--user-directory",
        str(tmp_path),
        "--database-url",
        "sqlite://",
        "--cache-lru",
        "5",
        "--verbose",
        "--fast",
    ]
    with Process(tmp_path / "comfyui", flags=flags) as server:
        assert server.call("/queue")[0] == 200


@both_ages
def test_a_reader_that_does_not_read_stalls_the_others(tmp_path: Path, age: str):
    async def scenario(server: Process) -> None:
        async with aiohttp.ClientSession() as client, client.ws_connect(
            server.base + "/ws"
        ) as healthy:
            stuck = socket.create_connection(("127.0.0.1", server.port))
            stuck.sendall(
                b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)) + b"\r\n"
                b"Sec-WebSocket-Version: 13\r\n\r\n"
            )
            await asyncio.to_thread(server.until, lambda s: s["ws"]["open"] == 2)
            flood = {"1": {"class_type": "TestFlood", "inputs": {"n": 200, "bytes": 100000}}}
            prompt_id = await asyncio.to_thread(server.prompt, flood)
            await asyncio.to_thread(server.until, lambda s: prompt_id in s["ended"])
            got = 0
            try:
                while True:
                    got += (await healthy.receive(timeout=0.5)).type == aiohttp.WSMsgType.BINARY
            except asyncio.TimeoutError:
                pass
            assert got < 200
            stuck.close()
            while got < 200:
                got += (await healthy.receive(timeout=20)).type == aiohttp.WSMsgType.BINARY

    with Process(tmp_path / "comfyui", age) as server:
        asyncio.run(scenario(server))


def test_start_is_quick(tmp_path: Path):
    """Many tests start one; the time of the process itself, not of a loaded machine, counts."""
    with Process(tmp_path / "comfyui") as server:
        used = os.sysconf("SC_CLK_TCK")
        fields = Path(f"/proc/{server.child.pid}/stat").read_text().rpartition(")")[2].split()
        assert (int(fields[11]) + int(fields[12])) / used < 1.5
