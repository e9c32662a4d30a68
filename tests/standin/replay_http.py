"""Plays the recorded lists of requests (http-*.json) against a stand-in, each from the state its
recording began in."""

import io
import json
import os
import re
import time
import urllib.parse

from PIL import Image

from process import Process
from replay import compare_http
from script import load_http

LIMIT_BODY = 101 << 20
# What a list of names or numbers of the recording machine is: compared for its shape alone.
SHAPE_ONLY = ("/system_stats", "/internal/logs", "/internal/folder_paths", "/object_info", "/")


def png(mode: str, colour) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (32, 32), colour).save(out, "PNG")
    return out.getvalue()


PICTURES = {
    "A": png("RGB", (255, 0, 0)),
    "B": png("RGB", (0, 255, 0)),
    "C": png("RGB", (0, 0, 255)),
    "RGBA png": png("RGBA", (1, 2, 3, 128)),
}


class Requests:
    def __init__(self, server: Process, age: str, name: str):
        self.server, self.age = server, age
        self.events = load_http(age, name)
        self.known: dict[str, str] = {}
        self.slow = False  # a long prompt was posted and not ended yet
        self.differences: list[str] = []

    def live(self, text: str) -> str:
        for recorded, live in self.known.items():
            text = text.replace(recorded, live)
        return text

    def recorded(self, text: str) -> str:
        for recorded, live in self.known.items():
            text = text.replace(live, recorded)
        return text

    def send(self, event: dict):
        """(status, headers, body) of the stand-in."""
        headers = {name: self.live(value) for name, value in event.get("req_headers", {}).items()}
        body = event.get("req_body")
        if "req_json" in event:
            body = self.live(json.dumps(event["req_json"])).encode()
        elif isinstance(body, str):
            if body.startswith("multipart"):
                body, headers["Content-Type"] = multipart(body)
            elif "101 MiB" in body:
                body = b'{"a": "' + b"x" * LIMIT_BODY + b'"}'
            else:
                body = body.encode()
        return self.server.call(self.live(event["path"]), body, event["method"], headers)

    def play(self) -> list[str]:
        for event in self.events:
            status, headers, content = self.send(event)
            if event["path"] == "/prompt" and status == 200 and event["method"] == "POST":
                self.known[json.loads(event["body"])["prompt_id"]] = json.loads(content)[
                    "prompt_id"
                ]
            self.compare(event, status, headers, content)
            self.wait(event, status)
        return self.differences

    def wait(self, event: dict, status: int) -> None:
        """The recorder let each prompt end, except behind its long one, which it cancelled."""
        text = json.dumps(event.get("req_json", {}))
        if "LabSlowSampler" in text:
            self.slow = True
            self.server.until(lambda s: s["queue"]["running"])
        if event["path"] == "/interrupt" or event.get("label") == "cancel the running job":
            self.slow = self.slow and self.age == "0.3.7" and event["path"] != "/interrupt"
        if event["method"] == "POST" and status == 200 and not self.slow:
            self.server.idle()

    def compare(self, event: dict, status: int, headers, content: bytes) -> None:
        path = urllib.parse.urlparse(event["path"]).path.removeprefix("/api") or "/"
        if "keys_returned" in event:
            found = len(json.loads(content))
            if (status, found) != (event["status"], event["keys_returned"]):
                self.differences.append(
                    f"{event['path']}: {found} entries, recorded {event['keys_returned']}"
                )
        elif path in SHAPE_ONLY and event["status"] == 200:
            self.differences += compare_shape(event, status, headers, content)
        else:
            self.differences += compare_http(event, status, headers, content, self.recorded)


def compare_shape(event: dict, status: int, headers, content: bytes) -> list[str]:
    short = {**event, "body": None}
    found = compare_http(short, status, headers, content)
    if (
        event["path"].endswith("/system_stats")
        and content
        and "bytes in all" not in event.get("body", "bytes in all")
    ):
        old, new = json.loads(event["body"]), json.loads(content)
        for part in (
            lambda v: list(v["system"]),
            lambda v: list(v["devices"][0]),
            lambda v: v["system"]["comfyui_version"],
            lambda v: v["system"]["os"],
        ):
            if part(old) != part(new):
                found.append(f"{event['path']}: {part(new)}, recorded {part(old)}")
    return found


def multipart(described: str) -> tuple[bytes, str]:
    """A form from the recorder's words about it, such as
    `multipart/form-data: image=<A> filename=u.png overwrite=true`."""
    raw = "name sent unencoded" in described
    fields: list[tuple[str, str | None, bytes]] = []
    name = re.search(r"filename='((?:[^'\\]|\\.)*)'|filename=([^ ,]+)", described)
    filename = "u.png" if name is None else name[2] or eval(f"'{name[1]}'")
    content = re.search(r"(image|file)=<([^>]*)>", described)
    if content:
        data = PICTURES.get(content[2], b"")
        if "bytes" in content[2]:
            data = b"hello world!"
        if "101 MiB" in content[2]:
            data = b"\0" * LIMIT_BODY
        fields.append((content[1], filename, data))
    else:
        fields.append(("image", None, b"just text"))
    for key, value in re.findall(
        r"(overwrite|subfolder|type)=([^ ,]+)", described.split("original_ref")[0]
    ):
        fields.append((key, None, value.encode()))
    if "original_ref=" in described:
        fields.append(
            ("original_ref", None, b'{"filename": "u.png", "type": "input", "subfolder": ""}')
        )
    boundary = "standin-boundary"
    parts = []
    for key, filename, data in fields:
        head = f'Content-Disposition: form-data; name="{key}"'
        if filename is not None:
            shown = filename.replace('"', "%22") if raw else urllib.parse.quote(filename, safe="")
            head += f'; filename="{shown}"\r\nContent-Type: application/octet-stream'
        parts.append(f"--{boundary}\r\n{head}\r\n\r\n".encode() + data + b"\r\n")
    return (
        b"".join(parts) + f"--{boundary}--\r\n".encode(),
        f"multipart/form-data; boundary={boundary}",
    )


# The states the recordings began in


def before_prompt_errors(server: Process, requests: Requests) -> None:
    posts = [e for e in requests.events if e.get("status") == 200]
    first = json.loads(posts[0]["body"])["number"]
    server.order({"replay": {"number": first - requests.events.index(posts[0])}})


def before_queue_history(server: Process, requests: Requests) -> None:
    """As many entries in the history as the recording had, less its own two."""
    total = next(e["keys_returned"] for e in requests.events if e["path"] == "/history")
    for number in range(total - 2):
        server.prompt({"1": {"class_type": "LabText", "inputs": {"text": str(number)}}})
    server.idle()
    server.order({"replay": {"number": json.loads(requests.events[0]["body"])["number"]}})


def before_view(server: Process, requests: Requests) -> None:
    output = server.folder / "output"
    (output / "sub dir").mkdir()
    (output / "rgba.png").write_bytes(png("RGBA", (9, 8, 7, 100)))
    (output / "sub dir" / "a b+c.png").write_bytes(PICTURES["A"])
    (output / "noext").write_bytes(b"\x00\x01\x02")
    (output / 'q"uote.txt').write_text("q")
    (output / "\u00e9t\u00e9.txt").write_text("u")
    (server.folder / "input" / "example.png").write_bytes(PICTURES["B"])
    _, headers, _ = server.call("/view?filename=rgba.png")
    first = requests.events[0]["headers"]
    requests.known |= {
        first["Etag"]: headers["Etag"],
        first["Last-Modified"]: headers["Last-Modified"],
    }


def before_info(server: Process, requests: Requests) -> None:
    """The files that other recordings had left behind, oldest first."""
    loads = next(e for e in requests.events if e["path"] == "/object_info/LoadImage")
    for name in json.loads(loads["body"])["LoadImage"]["input"]["required"]["image"][0]:
        (server.folder / "input" / name).write_bytes(b"")
    listed = next(e for e in requests.events if e["path"] == "/internal/files/output")
    if listed["status"] == 200:
        for age, name in enumerate(reversed(json.loads(listed["body"]))):
            path = server.folder / "output" / name.removesuffix(" [output]")
            path.touch()
            os.utime(path, (time.time() + age - 1000,) * 2)


BEFORE = {
    "http-prompt-errors": before_prompt_errors,
    "http-queue-history": before_queue_history,
    "http-view": before_view,
    "http-info": before_info,
}


def play(server: Process, age: str, name: str) -> list[str]:
    requests = Requests(server, age, name)
    if name in BEFORE:
        BEFORE[name](server, requests)
    return requests.play()
