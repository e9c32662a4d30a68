"""Starts stand-ins for tests: on a free port, with directories of their own, and surely ended."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

MAIN = Path(__file__).resolve().parent / "main.py"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def hear_interrupts() -> None:
    """A shell has what it starts in the background ignore SIGINT, and so would Python."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Process:
    """A running stand-in; `log` is its stderr so far."""

    def __init__(
        self,
        folder: Path,
        age: str = "0.33.0",
        flags=(),
        env=None,
        wait: bool = True,
        port: int | None = None,
        control: bool = True,
    ):
        self.folder, self.out, self.err = folder, folder / "stdout", folder / "stderr"
        folder.mkdir(parents=True, exist_ok=True)
        self.arguments = ["--base-directory", str(folder), "--age", age, "--cpu"]
        self.arguments += ["--standin-control"] if control else []
        self.arguments += flags
        self.environment = {**os.environ, **(env or {})}
        self._spawn(port or free_port())
        # Somebody else may take a free port before the child binds it.
        while wait and not self._wait_ready() and port is None and "already in use" in self.log:
            self._spawn(free_port())
        if wait and self.child.poll() is not None:
            raise AssertionError(f"exit code {self.child.returncode}\n{self.log}")

    def _spawn(self, port: int) -> None:
        self.port, self.base = port, f"http://127.0.0.1:{port}"
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.child = subprocess.Popen(
                [sys.executable, str(MAIN), "--port", str(port), *self.arguments],
                stdout=out,
                stderr=err,
                env=self.environment,
                start_new_session=True,
                preexec_fn=hear_interrupts,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()

    @property
    def log(self) -> str:
        return self.err.read_bytes().decode("utf-8", "replace")

    def _wait_ready(self, seconds: float = 30) -> bool:
        """Its own word for it, since another server might answer on the port; False if it ended."""
        end = time.monotonic() + seconds
        while "To see the GUI go to: " not in self.log:
            if self.child.poll() is not None:
                return False
            if time.monotonic() > end:
                raise AssertionError("never bound its port\n" + self.log)
            time.sleep(0.02)
        return True

    def call(
        self, path: str, body=None, method: str | None = None, headers=None, timeout: float = 30
    ):
        """(status, headers as a dict, body); a dict or list goes as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            try:
                connection.request(
                    method or ("GET" if data is None else "POST"), path, data, headers or {}
                )
            except (BrokenPipeError, ConnectionResetError):
                pass  # it may refuse a large body before it has all of it
            answer = connection.getresponse()
            shown = {
                name: value.encode("latin-1").decode("utf-8", "replace")
                for name, value in answer.getheaders()
            }
            return answer.status, shown, answer.read()
        finally:
            connection.close()

    def fails(self, path: str, body=None, timeout: float = 5) -> Exception:
        """The exception with which a call ends that gets no whole answer."""
        try:
            raise AssertionError(f"answered: {self.call(path, body, timeout=timeout)}")
        except (OSError, http.client.HTTPException) as error:
            return error

    def get(self, path: str):
        return json.loads(self.call(path)[2])

    def control(self, *rules) -> None:
        status, _, body = self.call("/standin/control", list(rules))
        assert status == 200, body

    def order(self, wanted: dict) -> None:
        status, _, body = self.call("/standin/control", wanted)
        assert status == 200, body

    def state(self) -> dict:
        return self.get("/standin/state")

    def until(self, condition, seconds: float = 20):
        """The state once `condition(state)` holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            state = self.state()
            if condition(state):
                return state
            time.sleep(0.01)
        raise AssertionError(f"waited {seconds} s in vain: {self.state()}\n{self.log[-2000:]}")

    def prompt(self, graph: dict, **more) -> str:
        status, _, body = self.call("/prompt", {"prompt": graph, **more})
        assert status == 200, body
        return json.loads(body)["prompt_id"]

    def idle(self) -> dict:
        return self.until(lambda s: not s["queue"]["running"] and not s["queue"]["pending"])

    def run(self, graph: dict, **more) -> dict:
        """The history entry of a graph that was run."""
        prompt_id = self.prompt(graph, **more)
        self.until(lambda s: prompt_id in s["ended"])
        return self.get(f"/history/{prompt_id}").get(prompt_id)

    def exit_code(self, seconds: float = 20) -> int:
        return self.child.wait(seconds)
