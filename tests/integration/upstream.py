"""A server in ComfyUI's place that answers what a test wants, byte for byte, and keeps what it was asked."""

import contextlib
import json
import socketserver
import threading


class Upstream(socketserver.ThreadingTCPServer):
    """`routes`: path (without query) → a function of (connection, request), which writes the answer and
    returns None, or anything else to close. What is not among them is answered by `otherwise`: with what was
    asked, as JSON. `asked`: what came through the proxy; the agent has questions of its own."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, otherwise=None):
        self.asked = []
        self.otherwise = otherwise or echo
        self.routes = {"/system_stats": lambda c, _: reply(c, b'{"system":{"comfyui_version":"0.33.0"}}'),
                       "/features": lambda c, _: reply(c, b"{}", status="404 Not Found")}
        super().__init__(("127.0.0.1", 0), Connection)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self):
        self.shutdown()
        self.server_close()


class Request:
    def __init__(self, line, headers, body):
        self.method, self.target, _ = line.split(" ")
        self.headers = headers  # as they came: pairs
        self.body = body

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]


def reply(connection, body=b"", status="200 OK", headers=()):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


class Connection(socketserver.StreamRequestHandler):
    def handle(self):
        with contextlib.suppress(OSError, ValueError):
            while self.one():
                pass

    def line(self):
        """Of whatever bytes: a header may hold any above 127."""
        return self.rfile.readline().decode(errors="surrogateescape").strip()

    def one(self):
        line = self.line()
        if not line:
            return False
        headers = []
        while (field := self.line()):
            name, value = field.split(":", 1)
            headers.append((name, value.strip()))
        given = {name.lower(): value for name, value in headers}
        request = Request(line, headers, self.body(given))
        if "x-forwarded-for" in given:
            self.server.asked.append(request)
        route = self.server.routes.get(request.target.split("?")[0], self.server.otherwise)
        return route(self.connection, request) is None

    def body(self, headers):
        if "content-length" in headers:
            body = self.rfile.read(int(headers["content-length"]))
            if len(body) < int(headers["content-length"]):
                raise ValueError("broken off")
            return body
        body = b""
        while "transfer-encoding" in headers:
            size = int(self.rfile.readline(), 16)
            body += self.rfile.read(size)
            self.rfile.readline()
            if size == 0:
                break
        return body


def echo(connection, request):
    told = {"method": request.method, "target": request.target, "headers": request.headers,
            "body": len(request.body)}
    reply(connection, json.dumps(told).encode(), headers=["Content-Type: application/json"])
