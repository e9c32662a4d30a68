"""The WebSocket side: who is connected, who hears what, in which order.

As in ComfyUI there is one table from sid to socket and one loop that writes to all sockets in turn.
Two of its faults follow from that and are kept: a second socket of a sid goes deaf when the first
is closed, and one reader that does not read stops everybody.
"""

import asyncio
import json
import struct
import uuid

from aiohttp import ClientError, WSMsgType, web

from ages import Age
from misbehave import Misbehaviour, Rule

PREVIEW, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4  # types of binary messages


class Hub:
    def __init__(self, age: Age, misbehaviour: Misbehaviour, features: dict):
        self.age, self.misbehaviour, self.features = age, misbehaviour, features
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.open: set[web.WebSocketResponse] = set()  # also those the table has forgotten
        self.opened = 0
        self.flags: dict[str, dict] = {}
        self.deaf: set[web.WebSocketResponse] = set()
        # Of the prompt that runs: written by the worker.
        self.client_id = None
        self.last_node_id = None
        self.messages: asyncio.Queue = asyncio.Queue()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.status = lambda: {"exec_info": {"queue_remaining": 0}}

    # From any thread

    def send(self, kind: str, data, sid=None) -> None:
        self.loop.call_soon_threadsafe(self.messages.put_nowait, (kind, data, sid))

    def send_bytes(self, event: int, payload: bytes, sid=None) -> None:
        self.send("binary", struct.pack(">I", event) + payload, sid)

    def send_status(self) -> None:
        self.send("status", {"status": self.status()})

    def wants_metadata(self) -> bool:
        return bool(self.flags.get(self.client_id, {}).get("supports_preview_metadata"))

    # On the loop

    async def publish(self) -> None:
        """Ends only with an exception: data that JSON cannot encode takes the process down."""
        while True:
            kind, data, sid = await self.messages.get()
            targets = [
                (name, socket) for name, socket in self.sockets.items() if sid in (None, name)
            ]
            if not targets:
                continue
            payload = data if kind == "binary" else json.dumps({"type": kind, "data": data})
            for name, socket in targets:
                await self.deliver(name, socket, kind, payload)

    async def deliver(self, sid: str, socket: web.WebSocketResponse, kind: str, payload) -> None:
        copies = 1
        for rule in await self.misbehaviour.act_async("ws", type=kind, sid=sid):
            if rule.do == "repeat":
                copies += rule.get("count", 1)
            elif rule.do == "lose":
                copies = 0
            elif rule.do == "garble":
                payload = payload[: len(payload) // 2]
            else:
                await self._spoil(rule, socket)
        for _ in range(copies):
            await self._write(socket, payload)

    async def _write(self, socket: web.WebSocketResponse, payload) -> None:
        if socket in self.deaf or socket.closed:
            return
        try:
            if isinstance(payload, bytes):
                await socket.send_bytes(payload)
            else:
                await socket.send_str(payload)
        except (ClientError, ConnectionError, RuntimeError):
            pass  # it is closing; its own handler takes it off the table

    async def _spoil(self, rule: Rule, socket: web.WebSocketResponse) -> None:
        action = rule.do.removeprefix("ws_")
        if action == "drop":
            socket._req.transport.abort()
            self.deaf.add(socket)
        elif action == "close":
            await socket._writer.close(
                rule.get("code", 1001)
            )  # close() itself would wait for the answer
            self.deaf.add(socket)
        elif action == "deaf":
            self.deaf.add(socket)
        elif action == "text":
            await self._write(socket, rule.get("text", "{not json"))
        elif action == "binary":
            await self._write(socket, bytes.fromhex(rule.get("hex", "00")))
        elif action == "flood":
            size = rule.get("bytes", 5 << 20)
            filler = '{"type": "standin.flood", "data": "' + "x" * max(size - 37, 0) + '"}'
            await self._write(socket, filler.encode() if rule.get("binary", False) else filler)

    def misbehave(self, rule: Rule) -> None:
        """A rule for `now`: all sockets at once, the forgotten ones included."""
        sid = rule.filters.get("sid")
        for socket in list(self.open):
            if sid is None or self.sockets.get(sid) is socket:
                asyncio.ensure_future(self._spoil(rule, socket))

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sid = request.rel_url.query.get("clientId", "") or uuid.uuid4().hex
        self.sockets[sid] = socket
        self.flags.pop(sid, None)
        self.open.add(socket)
        self.opened += 1
        try:
            await self._greet(sid, socket)
            await self._listen(sid, socket)
        finally:
            self.sockets.pop(sid, None)  # whoever it belongs to by now
            self.open.discard(socket)
            self.deaf.discard(socket)
        return socket

    async def _greet(self, sid: str, socket: web.WebSocketResponse) -> None:
        hello = {"type": "status", "data": {"status": self.status(), "sid": sid}}
        await self.deliver(sid, socket, "status", json.dumps(hello))
        if self.client_id == sid and self.last_node_id is not None:
            running = {"type": "executing", "data": {"node": self.last_node_id}}
            await self.deliver(sid, socket, "executing", json.dumps(running))

    async def _listen(self, sid: str, socket: web.WebSocketResponse) -> None:
        first = True
        async for message in socket:
            if message.type != WSMsgType.TEXT or not self.age.async_executor:
                continue
            try:
                said = json.loads(message.data)
                if first and said.get("type") == "feature_flags":
                    self.flags[sid] = said.get("data", {})
                    answer = json.dumps({"type": "feature_flags", "data": self.features})
                    await self.deliver(sid, socket, "feature_flags", answer)
                first = False
            except (ValueError, AttributeError):
                pass  # not JSON, or no object: as if it had not been said
