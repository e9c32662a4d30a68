"""Clients that follow a run: python3-websockets for /api/run/ws, plain HTTP for event streams, and
sockets that are opened and never read."""

import asyncio
import http.client
import json
import os
import socket

import websockets

from world import PATIENCE


class Talk:
    """What a WebSocket run said, message by message, and how it ended."""

    def __init__(self):
        self.messages = []
        self.previews = []
        self.code = None
        self.reason = None
        self.headers = None

    @property
    def types(self):
        return [message["type"] for message in self.messages]

    @property
    def end(self):
        return self.messages[-1]

    @property
    def error(self):
        assert self.end["type"] == "error", self.end
        return self.end["data"]["error"]


async def converse(agent, first, query="", headers=None, on_message=None):
    talk = Talk()
    address = f"ws://127.0.0.1:{agent.port}/api/run/ws{query}"
    async with websockets.connect(address, max_size=None, extra_headers=headers,
                                  open_timeout=PATIENCE, close_timeout=PATIENCE) as ws:
        talk.headers = ws.response_headers
        if first is not None:
            await ws.send(first if isinstance(first, (str, bytes)) else json.dumps(first))
        try:
            while True:
                message = await asyncio.wait_for(ws.recv(), PATIENCE)
                if isinstance(message, bytes):
                    talk.previews.append(message)
                else:
                    talk.messages.append(json.loads(message))
                if on_message is not None:
                    await on_message(ws, message)
        except websockets.ConnectionClosed:
            pass
    talk.code, talk.reason = ws.close_code, ws.close_reason
    return talk


def run_ws(agent, first, query="", headers=None, on_message=None):
    return asyncio.run(converse(agent, first, query, headers, on_message))


class Events:
    """A stream of Server-Sent Events."""

    def __init__(self, agent, task_id, last=None):
        self.connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=PATIENCE)
        headers = {} if last is None else {"last-event-id": str(last)}
        self.connection.request("GET", f"/api/tasks/{task_id}/events", headers=headers)
        self.answer = self.connection.getresponse()
        self.status = self.answer.status
        self.last = None
        self.comments = 0

    def __iter__(self):
        """(event, id, data) until the stream ends in form."""
        event = {}
        for line in self.answer:
            line = line.decode().rstrip("\n")
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif "data" in event:
                self.last = int(event["id"])
                yield event["event"], self.last, json.loads(event["data"])
                event = {}
            else:
                event = {}

    def close(self):
        self.connection.close()


def silent(agent, request):
    """A client that asks and reads nothing of itself; its kernel takes as little as it can."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", agent.port))
    client.sendall(request)
    return client


def silent_events(agent, task_id):
    return silent(agent, f"GET /api/tasks/{task_id}/events HTTP/1.1\r\nhost: x\r\n\r\n".encode())


def ws_request(path, first=None):
    """A handshake and, at once, a first message: what a client says that waits for no answer."""
    head = (f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n").encode()
    if first is None:
        return head
    text = json.dumps(first).encode()
    if len(text) < 126:
        size = bytes([0x80 | len(text)])
    elif len(text) < 65536:  # a longer form than needed is refused
        size = b"\xfe" + len(text).to_bytes(2, "big")
    else:
        size = b"\xff" + len(text).to_bytes(8, "big")
    return head + b"\x81" + size + b"\0\0\0\0" + text


def silent_ws(agent, prompt, query=""):
    return silent(agent, ws_request(f"/api/run/ws{query}", prompt))


def each_costs(agent, clients, ask, hears):
    """Bytes of memory that each of so many clients costs when all have heard this; `ask` makes one."""
    before = memory(agent)
    there = [ask(number) for number in range(clients)]
    for client in there:
        heard = b""
        client.settimeout(PATIENCE)
        while hears not in heard:
            part = client.recv(4096)
            assert part, heard
            heard += part
    cost = (memory(agent) - before) / clients
    for client in there:
        client.close()
    return cost


def memory(agent):
    """Bytes of the program that are in memory."""
    with open(f"/proc/{agent.pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
