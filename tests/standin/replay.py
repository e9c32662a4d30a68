"""Plays a recorded case against a stand-in and says where the two differ.

A recording tells when the client did something and what it had heard by then. The player repeats
each action as soon as each socket has heard as much as in the recording (script.py tells when).
"""

import asyncio
import http.client
import json
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from yarl import URL

from process import Process
from script import Script

PATIENCE = 20
QUIET = 0.15  # how long to listen for messages that should not come
TEMP = re.compile(r"ComfyUI_temp_[a-z]{5}_")

# Compared as sets: lists that are a Python set's in ComfyUI.
UNORDERED = {"executed", "current_outputs"}
# Objects whose members come in a set's order there, in the older age.
SORTED = {"outputs", "meta"}
# Only their type is compared.
TIMES = {"timestamp", "create_time", "execution_start_time", "execution_end_time"}
HEADERS_IGNORED = {"Date", "Server", "Content-Length"}
HEADERS_OF_THE_FILE = {"Etag", "Last-Modified"}


def settle(value, key: str = ""):
    """A JSON value without what differs from run to run."""
    if key in TIMES:
        return type(value).__name__
    if key == "traceback":
        return [type(line).__name__ for line in value][:1]
    if key == "fullpath":
        return Path(value).name
    if isinstance(value, dict):
        names = sorted(value) if key in SORTED else value
        return {name: settle(value[name], name) for name in names}
    if isinstance(value, list):
        items = [settle(each) for each in value]
        if len(items) == 5 and isinstance(items[2], dict) and isinstance(items[4], list):
            items[4] = sorted(items[4])  # a queue item's output ids are a set too
        return sorted(items) if key in UNORDERED else items
    if isinstance(value, str):
        return TEMP.sub("ComfyUI_temp_xxxxx_", value)
    if isinstance(value, float) and value != value:
        return "NaN"
    return value


def settled(text: str) -> str:
    """Canonical text; the order of an object's keys stays, and so do 1 against 1.0."""
    try:
        return json.dumps(settle(json.loads(text)))
    except ValueError:
        return re.sub(r"actual body size \d+", "actual body size n", text)


@dataclass
class Heard:
    """What came on one socket of the stand-in."""

    socket: aiohttp.ClientWebSocketResponse
    messages: list = field(default_factory=list)
    close_code: int | None = None


class Player:
    def __init__(self, server: Process, script: Script):
        self.server, self.script = server, script
        self.known: dict[str, str] = {}  # ids of the recording -> ids of this run
        self.sockets: dict[str, Heard] = {}
        self.readers: list[asyncio.Task] = []
        self.differences: list[str] = []
        self.session: aiohttp.ClientSession | None = None

    # Before

    def prepare(self) -> None:
        for (sub, base), number in self.script.file_names().items():
            folder = self.server.folder / "output" / sub
            folder.mkdir(parents=True, exist_ok=True)
            if number > 1:
                (folder / f"{base}_{number - 1:05}_.png").touch()
        cached = self.script.first_cached()
        if cached and cached[1]:
            graph = {node_id: cached[0][node_id] for node_id in cached[1]}
            graph["warm"] = {
                "class_type": "LabSilentOutput",
                "inputs": {"image": [cached[1][-1], 0]},
            }
            self.server.run(graph)
        self.server.order({"reset": True})
        self.server.order(
            {
                "replay": {
                    "number": self.script.first_number(),
                    "output_order": self.script.output_order(),
                }
            }
        )
        self.server.control(*self.script.holds)

    # During

    async def play(self) -> None:
        async with aiohttp.ClientSession(auto_decompress=False) as self.session:
            for place, action in enumerate(self.script.actions):
                await self._hear(action.heard)
                if action.gate is not None:
                    await self._until(
                        lambda s: all(r.get("name") != action.gate for r in s["rules"])
                    )
                elif action.paused:
                    await self._until(
                        lambda s: not s["worker_alive"]
                        or not (s["queue"]["running"] or s["queue"]["pending"] or s["flags"])
                    )
                await self._do(action.event)
                gates = {later.gate for later in self.script.actions[place + 1 :]}
                if action.gate is not None and action.gate not in gates:
                    await asyncio.sleep(0.02)
                    await asyncio.to_thread(self.server.order, {"release": action.gate})
            await self._hear(
                {name: len(messages) for name, messages in self.script.messages.items()}
            )
            await asyncio.sleep(QUIET)
            for heard in self.sockets.values():
                await heard.socket.close()
            for reader in self.readers:
                await reader

    async def _until(self, condition) -> None:
        try:
            await asyncio.to_thread(self.server.until, condition)
        except (OSError, http.client.HTTPException):
            pass  # it has died, as it may

    async def _hear(self, wanted: dict[str, int]) -> None:
        waited = 0.0
        while any(
            name in self.sockets
            and len(self.sockets[name].messages) < count
            and self.sockets[name].close_code is None
            for name, count in wanted.items()
        ):
            await asyncio.sleep(0.005)
            waited += 0.005
            if waited > PATIENCE:
                return  # the comparison will tell what is missing

    async def _do(self, event: dict) -> None:
        if event["ev"] == "http":
            self._learn_temp_names()
            await self._http(event)
        elif event["ev"] == "ws_open":
            url = self.server.base + self._live(event["path"])
            socket = await self.session.ws_connect(url, max_msg_size=0)
            heard = self.sockets[event["ws"]] = Heard(socket)
            self.readers.append(asyncio.create_task(self._read(heard)))
            while not heard.messages:
                await asyncio.sleep(0.002)
            self._learn_sid(event["ws"])
        elif event["ev"] == "ws_send":
            await self.sockets[event["ws"]].socket.send_str(event["raw"])
        else:
            await self.sockets[event["ws"]].socket.close()

    async def _read(self, heard: Heard) -> None:
        async for message in heard.socket:
            heard.messages.append(message.data)
        heard.close_code = heard.socket.close_code

    def _learn_sid(self, name: str) -> None:
        recorded = json.loads(self.script.messages[name][0]["raw"])["data"]["sid"]
        self.known[recorded] = json.loads(self.sockets[name].messages[0])["data"]["sid"]

    def _learn_temp_names(self) -> None:
        """They are random; their order of appearance is not."""
        old = [
            name
            for events in self.script.messages.values()
            for e in events
            for name in TEMP.findall(e.get("raw", ""))
        ]
        new = [
            name
            for heard in self.sockets.values()
            for m in heard.messages
            if isinstance(m, str)
            for name in TEMP.findall(m)
        ]
        self.known.update(zip(dict.fromkeys(old), dict.fromkeys(new)))

    def _live(self, text: str) -> str:
        for recorded, live in self.known.items():
            text = text.replace(recorded, live)
        return text

    def _recorded(self, text: str) -> str:
        for recorded, live in self.known.items():
            text = text.replace(live, recorded)
        return text

    async def _http(self, event: dict) -> None:
        body = event.get("req_body")
        if "req_json" in event:
            body = self._live(json.dumps(self._true_request(event)))
        if event.get("path") == "/upload/image":
            body = self._upload(event["req_body"])
        url = URL(self.server.base + self._live(event["path"]), encoded=True)
        if "error" in event:
            await asyncio.to_thread(self.server.exit_code)
        try:
            async with self.session.request(
                event["method"], url, data=body, headers=event.get("req_headers")
            ) as answer:
                content = await answer.read()
        except aiohttp.ClientError:
            if "error" not in event:
                self.differences.append(f"{event['method']} {event['path']}: the connection failed")
            return
        if "error" in event:
            self.differences.append(
                f"{event['method']} {event['path']}: answered, but should have failed"
            )
            return
        if event["path"] == "/prompt" and event["status"] == 200 and answer.status == 200:
            self.known[json.loads(event["body"])["prompt_id"]] = json.loads(content)["prompt_id"]
            # The recorded workers always took a prompt before the next one came.
            await self._until(lambda s: s["queue"]["running"] or not s["queue"]["pending"])
        if "asking history at once" in event.get("mark", "") and content == b"{}":
            return
        self.differences += compare_http(
            event, answer.status, answer.headers, content, self._recorded
        )

    def _true_request(self, event: dict) -> dict:
        """Two recordings show the second graph of the case in both requests, since the recorder
        changed it in place; the first is given back its own value."""
        wanted = json.loads(json.dumps(event["req_json"]))
        name = self.script.events[0]["name"]
        first = event is next(
            a.event for a in self.script.actions if a.event.get("path") == "/prompt"
        )
        if first and name == "03-partial-cache":
            wanted["prompt"]["2"]["inputs"]["width"] = 32
        if first and name == "16-execution-blocked":
            wanted["prompt"]["2"]["inputs"]["message"] = "not this time"
        return wanted

    @staticmethod
    def _upload(described: str) -> aiohttp.FormData:
        from PIL import Image
        import io

        out = io.BytesIO()
        Image.new("RGB", (16, 16), (200, 10, 10) if "16x16" in described else (10, 200, 10)).save(
            out, "PNG"
        )
        form = aiohttp.FormData()
        form.add_field("image", out.getvalue(), filename="in.png", content_type="image/png")
        form.add_field("overwrite", "true")
        form.add_field("subfolder", "job1")
        return form

    # After

    def judge(self) -> list[str]:
        for name, recorded in self.script.messages.items():
            heard = self.sockets[name].messages
            self._same(name, [written(m) for m in recorded], [self._written(m) for m in heard])
        for event in self.script.events:
            if event["ev"] == "ws_closed" and event["close_code"] is not None:
                if self.sockets[event["ws"]].close_code != event["close_code"]:
                    self.differences.append(
                        f"{event['ws']}: closed with {self.sockets[event['ws']].close_code}"
                    )
            if event["ev"] == "process":
                code = self.server.child.poll() if event["alive"] else self.server.exit_code()
                if code != event["exit_code"]:
                    self.differences.append(f"exit code {code}, recorded {event['exit_code']}")
        return self.differences

    def _written(self, message) -> tuple[str, str]:
        if isinstance(message, bytes):
            return binary(message, self._recorded)
        return text(self._recorded(message))

    def _same(self, name: str, recorded: list, live: list) -> None:
        """Everything but status in its order; the values of status in theirs (a POST's status may
        come a little sooner or later than what the worker says); and a status before each end."""
        for what, kept in (
            ("message", lambda m: m[0] != "status"),
            ("status", lambda m: m[0] == "status"),
        ):
            one, two = [m for m in recorded if kept(m)], [m for m in live if kept(m)]
            for place in range(max(len(one), len(two))):
                old = one[place] if place < len(one) else ("nothing", "")
                new = two[place] if place < len(two) else ("nothing", "")
                if old != new:
                    self.differences.append(
                        f"{name}, {what} {place}:\n  recorded {old}\n  stand-in {new}"
                    )
                    break
        for side, messages in (("recorded", recorded), ("stand-in", live)):
            for place, (kind, data) in enumerate(messages):
                if kind == "executing" and '"node": null' in data and place > 0:
                    if messages[place - 1][0] != "status":
                        self.differences.append(f"{name}: {side} has no status before {data}")


def text(raw: str) -> tuple[str, str]:
    found = re.match(r'\{"type": "([^"]+)", "data": ', raw)
    return found[1] if found else "?", settled(raw)


def written(event: dict) -> tuple[str, str]:
    if event["ev"] == "ws_text":
        return text(event["raw"])
    if event["event"] == 1:
        return "binary 1", f"format {event['image_format']} {event['image_magic_hex'][:6]}"
    if event["event"] == 4:
        return "binary 4", f"{settled(event['meta_raw'])} {event['image_magic_hex'][:6]}"
    return f"binary {event['event']}", f"{event['node_id']} {event['text']}"


def binary(message: bytes, rename) -> tuple[str, str]:
    kind, number = struct.unpack(">II", message[:8])
    if kind == 1:
        return "binary 1", f"format {number} {message[8:11].hex()}"
    head, rest = message[8 : 8 + number].decode(), message[8 + number :]
    if kind == 4:
        return "binary 4", f"{settled(rename(head))} {rest[:3].hex()}"
    return f"binary {kind}", f"{head} {rest.decode()}"


def header_facts(headers) -> dict[str, str]:
    facts = {
        n.title(): TEMP.sub("", v) for n, v in headers.items() if n.title() not in HEADERS_IGNORED
    }
    facts |= {name: "of the file" for name in HEADERS_OF_THE_FILE & facts.keys()}
    if "Content-Range" in facts:  # the size of the file is not that of the recording's
        facts["Content-Range"] = facts["Content-Range"].rpartition("/")[0]
    return facts


def compare_http(
    event: dict, status: int, headers, content: bytes, rename=lambda t: t
) -> list[str]:
    where = f"{event['method']} {event['path']} ({event.get('label', '')})"
    if status != event["status"]:
        return [f"{where}: status {status}, recorded {event['status']}: {content[:300]!r}"]
    found = []
    old, new = header_facts(event.get("headers", {})), header_facts(headers)
    if event.get("reason") is None:  # recorded with a client that kept only the type
        new = {"Content-Type": new.get("Content-Type", "")}
        old["Content-Type"] = old["Content-Type"] or new["Content-Type"]
    if old != new:
        found.append(f"{where}: headers\n  recorded {old}\n  stand-in {new}")
    if isinstance(event.get("body"), str) and "bytes in all)" not in event["body"]:
        one, two = settled(event["body"]), settled(rename(content.decode()))
        if one != two:
            found.append(f"{where}: body\n  recorded {one}\n  stand-in {two}")
    elif "body_head_hex" in event and content[:4].hex() != event["body_head_hex"][:8]:
        found.append(
            f"{where}: begins with {content[:4].hex()}, recorded {event['body_head_hex'][:8]}"
        )
    return found
