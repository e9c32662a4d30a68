#!/usr/bin/env python3
"""Function Compute on this machine, as far as an HTTP function can see it: a gateway in front of
instances of the agent.

- Headers in the platform's spelling, many of them empty; clients cannot send any of them. Limits: 8 KiB
  of headers, 32 MB of body, 128 KiB for asynchronous calls.
- `X-Fc-Invocation-Type: Async`: 202 at once, a queue, deliveries repeated after an error of the function
  (`x-fc-status: 404`, a 5xx, a broken connection), an id of a task is taken once (409).
- An instance takes `concurrency` requests. It is frozen (SIGSTOP to all of its processes) after the
  Initializer and whenever it has no request, thawed for the next.
- Initializer before the first request, PreStop before the end, SIGKILL to what exceeds its time.
- `POST /2023-03-30/functions/NAME/invocations` is InvokeFunction: it arrives as POST /invoke, and our
  status and headers are lost.

    ./dev fc [--port 9000] [--concurrency 20] [--timeout 600] [--door 9010] [--help] [-- COMMAND …]

COMMAND starts an instance: `{port}` in it is its port, `{comfy}` a second one. Without one, it is
./bootstrap with the stand-in ComfyUI, or the one in COMFYUI_DIR, and with its files under .demo/fc. `--door`: a
second function at that port, the front door of the first. Tests
use class LocalFc. What the real platform does where its manual is silent is a choice here, `marks`
and `errors` say which.
"""
import argparse
import collections
import contextlib
import http.client
import http.server
import os
import pathlib
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADERS_MAX, BODY_MAX, ASYNC_BODY_MAX = 8 * 1024, 32 * 1024 * 1024, 128 * 1024
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "host", "content-length"}
ASKED = {"x-fc-invocation-type", "x-fc-async-task-id", "x-fc-async-delay", "x-fc-log-type"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Killed(Exception):
    """The instance was killed under the request, or died."""


class Instance:
    """One instance: the agent and all that it starts."""

    def __init__(self, fc, number):
        self.fc, self.id = fc, f"c-{number}-{uuid.uuid4().hex[:8]}"
        self.port, self.comfy_port = fc.port_of(), fc.port_of()
        self.lock = threading.Lock()
        self.busy, self.frozen, self.dead, self.leaving = 0, False, False, False
        self.log = fc.directory / f"instance-{number}.log"
        env = dict(os.environ, FC_INSTANCE_ID=self.id, FC_CUSTOM_LISTEN_PORT=str(self.port), FC_FUNCTION_NAME=fc.name,
                   FC_REGION="local", FC_ACCOUNT_ID="1", FC_FUNCTION_MEMORY_SIZE="512", **fc.env)
        command = [word.replace("{port}", str(self.port)).replace("{comfy}", str(self.comfy_port))
                   for word in fc.command]
        env = {name: value.replace("{comfy}", str(self.comfy_port)) for name, value in env.items()}
        with open(self.log, "ab") as out:
            self.child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                          start_new_session=True)
        self.initialized = False

    # --- its processes: the agent puts ComfyUI into a session of its own

    def processes(self):
        children = collections.defaultdict(list)
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rsplit(")", 1)[1].split()
                children[int(fields[1])].append(int(stat.parent.name))
        found, todo = [], [self.child.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += children[pid]
        return found

    def signal_all(self, number):
        """Also those that are started meanwhile."""
        told = set()
        while new := [pid for pid in self.processes() if pid not in told]:
            for pid in new:
                told.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def freeze(self):
        if not self.frozen and not self.dead and not self.leaving:
            self.frozen = True
            self.signal_all(signal.SIGSTOP)
            self.fc.count["frozen"] += 1

    def thaw(self):
        if self.frozen:
            self.signal_all(signal.SIGCONT)
            self.frozen = False

    def kill(self):
        self.dead = True
        self.signal_all(signal.SIGKILL)
        self.child.wait()

    # --- requests

    def request(self, method, path, body, headers, timeout):
        """(status, headers, body). Killed: there is no answer."""
        with self.lock:
            self.busy += 1
            self.thaw()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        except TimeoutError:
            self.fc.count["timeouts"] += 1
            self.kill()
            raise Killed("it took longer than the function's timeout") from None
        except (OSError, http.client.HTTPException) as error:
            self.dead = self.dead or self.child.poll() is not None
            raise Killed(f"no answer: {error!r}") from None
        finally:
            connection.close()
            with self.lock:
                self.busy -= 1
                if self.busy == 0 and self.fc.freezes:
                    self.freeze()

    def wait_listening(self):
        end = time.monotonic() + 120
        while time.monotonic() < end and self.child.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.01)
        self.kill()
        raise Killed("Function instance health check failed")

    def start(self):
        self.wait_listening()
        limit = self.fc.initializer
        if limit:
            headers = self.fc.headers("/initialize", str(uuid.uuid4()))
            headers["X-Fc-Initialization-Timeout"] = str(limit) if self.fc.tells_limits else ""
            status = self.request("POST", "/initialize", None, headers, limit)[0]
            self.fc.count["initialized"] += 1
            if status >= 300:
                self.kill()
                raise Killed(f"InitializationError: {status}")
        if self.fc.freezes: # until the first call
            with self.lock:
                self.freeze()

    def stop(self):
        """As when it is not needed any more: PreStop, then the end."""
        answer = None
        self.leaving = True
        if not self.dead and self.fc.pre_stop:
            with contextlib.suppress(Killed):
                answer = self.request("GET", "/pre-stop", None, self.fc.headers("", str(uuid.uuid4())), self.fc.pre_stop)
        self.thaw()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(10 if answer else 0.1)
        self.signal_all(signal.SIGTERM)
        try:
            self.child.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
        self.dead = True
        return answer


class LocalFc:
    """`marks`: headers that an asynchronous call still has when it arrives: "id", "type", both or none of
    them. `errors`: is a 5xx without `x-fc-status` an error of the function?"""

    def __init__(self, directory, command, name="local", env=None, concurrency=1, timeout=600, initializer=0,
                 pre_stop=90, retries=2, instances=4, freezes=True, marks=("id",), errors=True, tells_limits=True,
                 port_of=free_port):
        self.directory, self.command, self.name = pathlib.Path(directory), command, name
        self.env = env or {}
        self.concurrency, self.timeout, self.instances_max = concurrency, timeout, instances
        self.initializer, self.pre_stop, self.retries = initializer, pre_stop, retries
        self.freezes, self.marks, self.errors, self.tells_limits = freezes, marks, errors, tells_limits
        self.port_of = port_of
        self.count = collections.Counter()
        self.instances, self.started, self.task_ids = [], 0, {}
        self.lock = threading.Lock()
        self.queue = collections.deque()
        self.wake = threading.Condition()
        self.closing = False
        self.results = {}  # task id: (status of FC's, our answer)
        for _ in range(16):
            threading.Thread(target=self.deliver_all, daemon=True).start()

    # --- instances

    def headers(self, control_path, request_id, retry=0, task_id=""):
        """All that the gateway adds."""
        return {"X-Fc-Request-Id": request_id, "X-Fc-Control-Path": control_path, "X-Fc-Function-Name": self.name,
                "X-Fc-Function-Handler": "index.handler", "X-Fc-Function-Memory": "512", "X-Fc-Region": "local",
                "X-Fc-Function-Timeout": str(self.timeout), "X-Fc-Account-Id": "1", "X-Fc-Qualifier": "LATEST",
                "X-Fc-Version-Id": "", "X-Fc-Access-Key-Id": "", "X-Fc-Access-Key-Secret": "",
                "X-Fc-Security-Token": "", "X-Fc-Service-Logproject": "", "X-Fc-Service-Logstore": "",
                "X-Fc-Base-Path": "", "X-Fc-Retry-Count": str(retry), "X-Fc-Client-Ip": "",
                "X-Fc-Async-Task-Id": task_id, "X-Fc-Tracing-Opentracing-Span-Context": "",
                "X-Forwarded-For": "10.0.0.1, 10.0.0.2", "X-Forwarded-Proto": "http,http"}

    def take_instance(self):
        """One with room for a request, which is reserved; a new one if there is none."""
        with self.lock:
            for instance in self.instances:
                with instance.lock:
                    if not instance.dead and not instance.leaving and instance.initialized and instance.busy < self.concurrency:
                        instance.busy += 1
                        return instance
            alive = [instance for instance in self.instances if not instance.dead]
            if len(alive) >= self.instances_max:
                return None
            instance = Instance(self, self.started)
            instance.busy = 1
            self.started += 1
            self.instances.append(instance)
        try:
            instance.start()
        except Killed:
            instance.dead = True
            raise
        instance.initialized = True
        return instance

    def call(self, method, path, body, headers):
        """One delivery."""
        instance = self.take_instance()
        if instance is None:
            return 429, [], b'{"ErrorCode": "ConcurrencyQuotaExceeded"}'
        try:
            return instance.request(method, path, body, headers, self.timeout)
        finally:
            with instance.lock:
                instance.busy -= 1
                if instance.busy == 0 and self.freezes:
                    instance.freeze()

    # --- asynchronous calls

    def deliver_all(self):
        while True:
            with self.wake:
                while not self.queue:
                    if self.closing:
                        return
                    self.wake.wait(0.1)
                due, job = self.queue.popleft()
                if due > time.monotonic():
                    self.queue.append((due, job))
                    job = None
            if job is None:
                time.sleep(0.01)
            else:
                self.deliver(job)

    def deliver(self, job):
        control, method, path, body, headers, task_id, request_id, retry = job
        sent = {**headers, **self.headers(control, request_id, retry, task_id if "id" in self.marks else "")}
        if "type" in self.marks:
            sent["X-Fc-Invocation-Type"] = "Async"
        self.count["delivered"] += 1
        try:
            status, answered, content = self.call(method, path, body, sent)
            told = dict((name.lower(), value) for name, value in answered).get("x-fc-status")
            failed = told == "404" or (told is None and self.errors and status >= 500)
            busy = status == 429 and told is None
        except Killed as error:
            status, content, failed, busy = 0, str(error).encode(), True, False
        if busy or (failed and retry < self.retries):
            self.later(0.2, (control, method, path, body, headers, task_id, request_id, retry + (0 if busy else 1)))
        else:
            self.results[task_id] = ("Failed" if failed else "Succeeded", status, content, retry)

    def later(self, seconds, job):
        with self.wake:
            self.queue.append((time.monotonic() + seconds, job))
            self.wake.notify()

    def deliver_again(self, task_id):
        """What "at least once" means: a call that was delivered is delivered once more."""
        self.later(0, self.task_ids[task_id])

    def submit(self, control, method, path, body, headers, task_id):
        request_id = str(uuid.uuid4())
        task_id = task_id or request_id
        if task_id in self.task_ids:
            return 409, {}, b'{"ErrorCode": "StatefulAsyncInvocationAlreadyExists"}'
        job = (control, method, path, body, headers, task_id, request_id, 0)
        self.task_ids[task_id] = job
        self.later(0, job)
        return 202, {"X-Fc-Request-Id": request_id, "X-Fc-Async-Task-Id": task_id}, b""

    # --- the gateway

    def gateway(self, method, path, body, headers):
        """(status, headers, body) for a client."""
        if sum(len(name) + len(value) for name, value in headers.items()) > HEADERS_MAX or len(path) > 4096:
            return 400, {}, b'{"ErrorCode": "InvalidArgument"}'
        is_async = headers.get("X-Fc-Invocation-Type", "").lower() == "async"
        if len(body) > (ASYNC_BODY_MAX if is_async else BODY_MAX):
            return 400, {}, b'{"ErrorCode": "EntityTooLarge"}'
        task_id = headers.get("X-Fc-Async-Task-Id", "")
        passed = {name: value for name, value in headers.items()
                  if name.lower() not in HOP_BY_HOP and not name.lower().startswith("x-fc-")}
        control = "/http-invoke"
        if path == f"/2023-03-30/functions/{self.name}/invocations":
            control, method, path = "/invoke", "POST", "/invoke"
            passed = {"Content-Type": "application/octet-stream"}
        if is_async:
            return self.submit(control, method, path, body, passed, task_id)
        request_id = str(uuid.uuid4())
        try:
            status, answered, content = self.call(method, path, body or None,
                                                  {**passed, **self.headers(control, request_id)})
        except Killed as error:
            kind = "InitializationError" if "Initialization" in str(error) else "FunctionUnhandledError"
            return 200, {"X-Fc-Error-Type": kind, "X-Fc-Request-Id": request_id}, str(error).encode()
        kept = {name: value for name, value in answered
                if name.lower() not in HOP_BY_HOP | {"date", "server"} and not name.lower().startswith("x-fc-")}
        if control == "/invoke":
            status, kept = 200, {}
        return status, {**kept, "X-Fc-Request-Id": request_id}, content

    def serve(self, port, host="127.0.0.1"):
        fc = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                given = {name.title(): value for name, value in self.headers.items()}
                status, headers, content = fc.gateway(self.command, self.path, body, given)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = answer

            def log_message(self, *_):
                pass

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request, address):
                if not isinstance(sys.exc_info()[1], ConnectionError):  # clients may leave
                    super().handle_error(request, address)

        self.server = Server((host, port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.closing = True
        if hasattr(self, "server"):
            self.server.shutdown()
            self.server.server_close()
        for instance in self.instances:
            if not instance.dead:
                instance.stop()


def demo_env(directory):
    return {"USE_AGENT": "1", "NAS_DIR": str(directory / "nas"), "COMFYUI_PORT": "{comfy}", "OUTPUT_FOLDER": "task",
            "COMFYUI_DIR": str(pathlib.Path(os.environ.get("COMFYUI_DIR") or ROOT / "tests/standin").resolve()),
            "COMFY_AGENT": str(ROOT / "build/release/src/comfy-agent"),
            "PYTHON": os.environ.get("PYTHON", "/usr/bin/python3")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--concurrency", type=int, default=20)
    parser.add_argument("--timeout", type=int, default=600)
    parser.add_argument("--initializer", type=int, default=60)
    parser.add_argument("--instances", type=int, default=2)
    parser.add_argument("--door", type=int, default=0)
    parser.add_argument("--directory", default=str(ROOT / ".demo" / "fc"))
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    directory = pathlib.Path(arguments.directory)
    directory.mkdir(parents=True, exist_ok=True)
    fc = LocalFc(directory, command or [str(ROOT / "bootstrap")], env={} if command else demo_env(directory),
                 concurrency=arguments.concurrency, timeout=arguments.timeout, initializer=arguments.initializer,
                 instances=arguments.instances)
    fc.serve(arguments.port)
    print(f"a local Function Compute at http://127.0.0.1:{arguments.port}; "
          f"instances log to {fc.directory.resolve()}/instance-*.log", flush=True)
    door = None
    if arguments.door:
        (directory / "door").mkdir(exist_ok=True)
        door = LocalFc(directory / "door", [str(ROOT / "bootstrap")], name="door", concurrency=100, timeout=arguments.timeout,
                       env={**demo_env(directory), "RUN_URL": f"http://127.0.0.1:{arguments.port}"})
        door.serve(arguments.door)
        print(f"its front door at http://127.0.0.1:{arguments.door}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass
    finally:
        if door:
            door.close()
        fc.close()


if __name__ == "__main__":
    main()
