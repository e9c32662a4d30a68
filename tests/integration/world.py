"""A world for one test: a ComfyUI (the stand-in), agents in front of it, a store, and ways to ask all
of them. Everything lies in one temporary directory and goes with it."""

import contextlib
import fcntl
import http.client
import io
import json
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[2]
AGENT = ROOT / os.environ.get("AGENT", "build/asan/src/comfy-agent")
PYTHON = "/usr/bin/python3"
STANDIN = ROOT / "tests" / "standin" / "main.py"
REAL = os.environ.get("REAL_COMFYUI")  # the directory of a ComfyUI that takes the stand-in's place
ATTACH = os.environ.get("ATTACH") == "1"  # no agent starts a ComfyUI: under valgrind it cannot start its guard
PATIENCE = 300 if REAL else 60  # seconds; only ever waited for when something is wrong

_ports = []  # locked files: the ports of this process


def free_port():
    """A port that nobody listens on, and that no other test run will choose: below the range that
    the kernel hands out, and locked by a file for as long as this process lives."""
    while True:
        port = random.randrange(10000, 32000)
        lock = open(pathlib.Path(tempfile.gettempdir()) / f"comfy-agent-test-port-{port}", "w")
        with contextlib.suppress(OSError), socket.socket() as probe:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            _ports.append(lock)
            return port
        lock.close()


def until(what, condition, patience=PATIENCE):
    """Waits for condition() to be true; its value."""
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain for: {what}")
        time.sleep(0.005)


def later(function, *args, **kwargs):
    """The function's result, from a thread of its own."""
    return ThreadPoolExecutor(1).submit(function, *args, **kwargs)


def running(agent, task_id):
    reply = agent.record(task_id)
    return reply.status == 200 and reply.json["status"] == "running"


def no_nan(token):
    raise AssertionError(f"{token} is not JSON")


class Reply:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body, parse_constant=no_nan)

    @property
    def code(self):
        return self.json["error"]["code"]

    def __repr__(self):
        return f"<{self.status} {dict(self.headers)} {self.body[:2000]!r}>"


def ask(port, method, path, body=None, headers=None, timeout=PATIENCE):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return Reply(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


class Stream(io.BufferedReader):
    """HTTPResponse closes what it has read one answer from; others may follow."""

    def close(self):
        pass


class Peer:
    """A client that says what it likes, byte for byte."""

    def __init__(self, port, said=b"", timeout=PATIENCE):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = Stream(socket.SocketIO(self.socket, "r"))
        self.say(said)

    def say(self, said):
        self.socket.sendall(said)

    def hear(self, method="GET"):
        """The next answer."""
        answer = http.client.HTTPResponse(self.socket, method=method)
        answer.fp = self.stream  # what was read ahead belongs to the answers to come
        answer.begin()
        return Reply(answer.status, answer.headers, answer.read())

    def hears_the_end(self):
        try:
            return self.stream.read(1) == b""
        except ConnectionResetError:
            return True

    def leave(self, reset=False):
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def post(path, body, *headers):
    """The bytes of a request."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Process:
    """A child with its output in a file. `group`: gets a session of its own."""

    def __init__(self, directory, name, argv, env=None, cwd=None):
        self.log = directory / f"{name}.log"
        self.out = open(self.log, "ab")
        self.child = subprocess.Popen(argv, stdout=self.out, stderr=self.out, env=env, cwd=cwd,
                                      stdin=subprocess.DEVNULL)
        self.pid = self.child.pid
        self.killed = False  # by the test
        self.right_code = 0

    def text(self):
        return self.log.read_text(errors="replace")

    def signal(self, number):
        self.killed = self.killed or number == signal.SIGKILL
        self.child.send_signal(number)
        if number == signal.SIGSTOP:  # returns when each of its threads has stopped, or it has ended
            look = os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG
            with contextlib.suppress(ChildProcessError):
                until("it to stop", lambda: os.waitid(os.P_PID, self.child.pid, look))

    def wait(self, timeout=PATIENCE):
        return self.child.wait(timeout)

    def ends(self, code):
        """Waits for an end with an exit code that is right although it is not 0."""
        assert self.wait() == code, self.text()[-6000:]
        self.right_code = code

    @property
    def ended_well(self):
        code = self.child.returncode
        return code == self.right_code or (self.killed and code == -signal.SIGKILL)

    @property
    def lives(self):
        return self.child.poll() is None

    @property
    def broke(self):
        """By a signal that was not the test's, or of a sanitizer's finding."""
        return not self.ended_well and (self.child.returncode < 0 or self.child.returncode == 99)

    def close(self):
        if self.lives:
            self.child.kill()
            self.child.wait()
        self.out.close()


def never_again():
    """What was seen here no second try can take back: see integration() in ./dev."""
    if "NEVER_AGAIN" in os.environ:
        pathlib.Path(os.environ["NEVER_AGAIN"]).touch()


class Comfy:
    """What can be asked of a stand-in, whoever started it."""

    def __init__(self, port):
        self.port = port

    def control(self, *rules):
        reply = ask(self.port, "POST", "/standin/control", json.dumps(list(rules)))
        assert reply.status == 200, reply
        return reply.json

    def is_idle(self):
        return self.state()["queue"] == {"running": [], "pending": []}

    def reset(self):
        ask(self.port, "POST", "/standin/control", json.dumps({"reset": True}))

    def release(self, name="hold"):
        ask(self.port, "POST", "/standin/control", json.dumps({"release": name}))

    def await_hold(self, at):
        """Until a `hold` at that moment is reached."""
        until(f"the hold at {at}", lambda: {"at": at, "do": "hold"} in self.state()["fired"])

    def state(self):
        return ask(self.port, "GET", "/standin/state").json

    def body(self, number):
        return ask(self.port, "GET", f"/standin/body/{number}").body

    @property
    def prompts(self):
        return self.state()["prompts"]


class Agent(Process):
    """The program. It looks after a ComfyUI of its own, or attaches to the one at `url`."""

    def __init__(self, world, name, env=None, comfy_env=None, url=None, prefix=()):
        self.port = free_port()
        self.comfy = Comfy(free_port()) if url is None else Comfy(int(url.rsplit(":", 1)[1]))
        settings = dict(
            os.environ,
            FC_SERVER_PORT=str(self.port),
            LISTEN_HOST="127.0.0.1",
            STORE_URL=world.store_url,
            ASAN_OPTIONS="detect_leaks=1:exitcode=99:abort_on_error=0",
            UBSAN_OPTIONS="print_stacktrace=1",
            STANDIN_AGE=world.age,
        )
        argv = [*prefix, str(AGENT)]
        if url is None:
            settings["COMFYUI_PORT"] = str(self.comfy.port)
            argv += ["--", *world.comfy_argv(self.comfy.port)]
        else:
            settings["COMFYUI_URL"] = url
        settings.update(comfy_env or {})
        settings.update(env or {})
        super().__init__(world.directory, name, argv, settings)

    def ask(self, method, path, body=None, headers=None, timeout=PATIENCE):
        return ask(self.port, method, path, body, headers, timeout)

    def get(self, path, **headers):
        return self.ask("GET", path, headers=headers)

    def run(self, prompt, task_id=None, headers=None, query="", timeout=PATIENCE):
        headers = dict(headers or {})
        if task_id is not None:
            headers["task-id"] = task_id
        body = prompt if isinstance(prompt, (bytes, str)) else json.dumps(prompt)
        return self.ask("POST", "/api/run" + query, body, headers, timeout)

    def record(self, task_id):
        return self.get(f"/api/tasks/{task_id}")

    def is_ready(self):
        assert self.lives, f"the agent has ended with {self.child.returncode}:\n{self.text()}"
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.get("/readyz").status == 200
        return False

    def answers(self):
        assert self.lives, f"the agent has ended with {self.child.returncode}:\n{self.text()}"
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.get("/healthz").status == 200
        return False

    def wait_ready(self):
        until("the agent to be ready", self.is_ready)
        return self

    def stop(self):
        """As an orchestrator would: SIGTERM, and the exit code must be 0."""
        self.signal(signal.SIGTERM)
        code = self.wait()
        assert code == 0, f"exit code {code}:\n{self.text()[-6000:]}"


class World:
    def __init__(self, directory, age="0.33.0"):
        self.directory = pathlib.Path(directory)
        self.age = age
        self.store = self.directory / "store"
        self.store_url = f"file:{self.store}"
        self.output = self.directory / "output"
        self.input = self.directory / "input"
        self.processes = []

    def comfy_argv(self, port):
        if REAL:
            return self.real_argv(port)
        return [PYTHON, str(STANDIN), "--listen", "127.0.0.1", "--port", str(port), "--age", self.age,
                "--standin-control", "--output-directory", str(self.output), "--input-directory",
                str(self.input), "--temp-directory", str(self.directory / f"temp{port}")]

    def real_argv(self, port):
        """A ComfyUI without a GPU that writes nothing outside this world."""
        argv = [PYTHON, str(pathlib.Path(REAL).resolve() / "main.py"), "--cpu", "--listen", "127.0.0.1",
                "--port", str(port)]
        for option, path in (("input", self.input), ("output", self.output),
                             ("temp", self.directory / f"temp{port}"), ("user", self.directory / "user")):
            path.mkdir(exist_ok=True)
            argv += [f"--{option}-directory", str(path)]
        return argv

    def agent(self, name="agent", ready=True, **kwargs):
        if ATTACH and kwargs.get("url") is None:
            kwargs["url"] = self.comfyui(kwargs.pop("comfy_env", None)).url
        agent = Agent(self, name, **kwargs)
        self.processes.append(agent)
        return agent.wait_ready() if ready else agent

    def comfyui(self, env=None, port=None):
        """A ComfyUI that no agent looks after."""
        port = port or free_port()
        process = Process(self.directory, "comfyui", self.comfy_argv(port), dict(os.environ, **(env or {})))
        self.processes.append(process)
        comfy = Comfy(port)
        comfy.process = process
        comfy.url = f"http://127.0.0.1:{port}"

        def is_up():
            with contextlib.suppress(OSError):
                return ask(port, "GET", "/queue").status == 200

        until("ComfyUI to answer", is_up)
        return comfy

    def document(self, key):
        """A stored document, or None."""
        with contextlib.suppress(FileNotFoundError):
            return json.loads((self.store / key).read_text())

    def close(self, failed):
        """Ends what is left. No agent may have died but by the test's hand, whatever it was asked last."""
        problems = []
        for process in reversed(self.processes):
            if isinstance(process, Agent) and process.lives:
                process.child.send_signal(signal.SIGCONT)
                process.child.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
            if isinstance(process, Agent) and process.lives:
                problems.append(f"{process.log.name}: did not stop")
                never_again()
            elif isinstance(process, Agent) and not process.ended_well:
                problems.append(f"{process.log.name}: ended with {process.child.returncode}")
                if process.broke:
                    never_again()
            process.close()
        for process in self.processes:
            text = process.text()
            if "Sanitizer" in text or "assertion failed" in text:
                never_again()
                problems.append(f"{process.log.name}: {text[-8000:]}")
            elif failed or problems:
                print(f"----- {process.log.name}\n{text[-6000:]}", file=sys.stderr)
        assert not problems, "\n".join(problems)


# --- prompts ----------------------------------------------------------------------------------


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def image_prompt(color=1, prefix="x", size=16):
    """Runs in a few milliseconds and saves one picture."""
    return {"1": node("EmptyImage", width=size, height=size, batch_size=1, color=color),
            "2": node("SaveImage", images=["1", 0], filename_prefix=prefix)}


def steps_prompt(n=50, ms=20, seed=0):
    """Reports n steps, each taking so long."""
    return {"1": node("TestSteps", n=n, ms=ms, seed=seed)}


def sleep_prompt(ms, seed=0):
    return {"1": node("TestSleep", ms=ms, seed=seed)}
