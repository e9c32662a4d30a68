"""What only a browser does: its EventSource comes back by itself, its origins are kept apart. The
driver is tests/browser; `npm ci` there installs it."""

import contextlib
import http.server
import json
import pathlib
import re
import shutil
import socket
import subprocess
import threading

import pytest

from world import PATIENCE, ROOT, image_prompt, later, node, running, until

BROWSER = ROOT / "tests" / "browser"

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="there is no node"),
    pytest.mark.skipif(not pathlib.Path("/usr/bin/chromium-headless-shell").exists(), reason="there is no chromium"),
    pytest.mark.skipif(not (BROWSER / "node_modules").is_dir(), reason="npm ci has not been run in tests/browser"),
]


def browse(url, script):
    """What the script returns in a page that is open at the URL."""
    done = subprocess.run(["node", "browse.mjs", url], cwd=BROWSER, input=script, capture_output=True, text=True,
                          timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Cutter:
    """A TCP proxy that can cut what goes through it, and knows what was said on each connection."""

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.to = port
        self.talks = []  # what the client said, what the server said
        self.ends = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.to))
                talk = bytearray(), bytearray()
                self.ends += [client, server]
                self.talks.append(talk)
                threading.Thread(target=self.pass_on, args=(client, server, talk[0]), daemon=True).start()
                threading.Thread(target=self.pass_on, args=(server, client, talk[1]), daemon=True).start()

    def pass_on(self, source, sink, said):
        with contextlib.suppress(OSError):
            while part := source.recv(65536):
                said += part
                sink.sendall(part)
            sink.shutdown(socket.SHUT_WR)

    def of(self, path):
        """The requests for a path and their answers, as far as they have come."""
        talks = [(bytes(asked), bytes(answered)) for asked, answered in self.talks]
        return [talk for talk in talks if f"GET {path} ".encode() in talk[0]]

    def cut(self):
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()
        self.cut()


@pytest.fixture
def cutter():
    made = []

    def make(port):
        made.append(Cutter(port))
        return made[-1]

    yield make
    for one in made:
        one.close()


FOLLOW = """
const source = new EventSource("/api/tasks/t/events"), events = [];
let opened = 0;
source.onopen = () => opened++;
source.addEventListener("progress", () => fetch("/heard").catch(() => null), {once: true});
for (const type of ["progress", "result"])
  source.addEventListener(type, event => events.push([type, Number(event.lastEventId), JSON.parse(event.data)]));
while (source.readyState !== EventSource.CLOSED)
  await new Promise(done => setTimeout(done, 20));
return {events, opened};
"""


def test_an_event_source_follows_a_task_across_a_cut_connection(both, cutter):
    agent = both.agent()
    through = cutter(agent.port)
    agent.comfy.control({"at": "node", "class": "TestSleep", "do": "hold"})
    run = later(agent.run, {"1": node("TestSleep", ms=1, seed=0)}, "t")
    until("the task to run", lambda: running(agent, "t"))
    page = later(browse, f"http://127.0.0.1:{through.port}/", FOLLOW)
    path = "/api/tasks/t/events"
    until("the page to hear of it", lambda: page.done() or through.of("/heard"))
    through.cut()
    until("it to come back", lambda: page.done() or len(through.of(path)) > 1)
    agent.comfy.release()
    saw = page.result()
    assert run.result().status == 200
    events = saw["events"]
    ids = [rev for _, rev, _ in events]
    assert events[-1] == ["result", agent.record("t").json["rev"], agent.record("t").json], events
    assert [kind for kind, _, _ in events].count("result") == 1 and ids == sorted(ids)
    assert saw["opened"] == 2
    # It comes back from where it was; the last time it has seen the end, and is told to stay away.
    asked = "".join(said.decode() for said, _ in through.of(path))
    last = [int(number) for number in re.findall(r"last-event-id: (\d+)", asked, re.IGNORECASE)]
    assert len(last) == 2 and last[0] in ids and last[1] == ids[-1], asked


# --- origins -------------------------------------------------------------------------------------


class Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, *_):
        pass


@pytest.fixture
def elsewhere():
    """A page of another origin, and of another site."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


CALL = """
const got = {};
const tries = async (name, does) => {
  try { got[name] = await does(); } catch (error) { got[name] = "refused"; }
};
const talk = (path, first) => new Promise((done, failed) => {
  const socket = new WebSocket("ws://" + HOST + path);
  socket.onopen = () => first && socket.send(first);
  socket.onmessage = event => {
    const {type} = JSON.parse(event.data);
    if (type !== "progress") { done(type); socket.close(); }
  };
  socket.onerror = failed;
});
const at = path => "http://" + HOST + path;
await tries("run", async () => {
  const reply = await fetch(at("/api/run"), {method: "POST", body: PROMPT,
    headers: {"task-id": "mine", "x-of-our-own": "1", "content-type": "application/json"}});
  return [reply.status, reply.headers.get("task-id"), Object.keys(await reply.json())];
});
await tries("blind run", async () =>
  (await fetch(at("/api/run"), {method: "POST", mode: "no-cors", body: PROMPT})).type);
await tries("status", async () => {
  const reply = await fetch(at("/api/status?id=mine"));
  return [reply.status, reply.headers.get("task-status"), reply.headers.get("etag") !== null];
});
await tries("proxied", async () => (await fetch(at("/queue"))).status);
const body = JSON.stringify({prompt: JSON.parse(PROMPT)});
await tries("proxied prompt", async () => (await fetch(at("/prompt"), {method: "POST", body,
  headers: {"content-type": "application/json", "x-of-our-own": "1"}})).status);
await tries("blind prompt", async () =>
  (await fetch(at("/prompt"), {method: "POST", mode: "no-cors", body})).type);
await tries("run/ws", () => talk("/api/run/ws", PROMPT));
await tries("ws", () => talk("/ws?clientId=page"));
return got;
"""


def calls(agent, page):
    prompt = json.dumps(image_prompt())
    return browse(page, f"const HOST = '127.0.0.1:{agent.port}', PROMPT = {json.dumps(prompt)};" + CALL)


def test_a_page_that_is_allowed_can_do_everything(both, elsewhere):
    agent = both.agent(env={"ALLOW_ORIGINS": f"https://other.example,{elsewhere}"})
    assert calls(agent, elsewhere) == {
        "run": [200, "mine", ["1", "2"]], "blind run": "opaque", "status": [200, "succeeded", True], "proxied": 200,
        "proxied prompt": 200, "blind prompt": "opaque", "run/ws": "result", "ws": "status"}
    assert len(agent.comfy.prompts) == 5


@pytest.mark.parametrize("allowed", ["", "http://127.0.0.1,https://localhost"])
def test_any_other_page_can_do_nothing(both, elsewhere, allowed):
    agent = both.agent(env={"ALLOW_ORIGINS": allowed})
    got = calls(agent, elsewhere)
    assert got.pop("blind run") == got.pop("blind prompt") == "opaque"  # which tells the page nothing
    assert set(got.values()) == {"refused"} and len(got) == 6
    assert agent.comfy.prompts == []
    assert agent.comfy.state()["ws"]["opened"] == 1  # ours
