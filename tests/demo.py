#!/usr/bin/python3
"""The whole way once, as a user would see it: bootstrap starts the agent, the agent starts ComfyUI
(the stand-in, unless COMFYUI_DIR names a real one), a prompt goes in by POST /api/run, its progress
is read from /api/status, and the picture lands in .demo/picture.png.

    ./dev demo            goes on serving afterwards and prints the address
    ./dev demo --once     ends by itself
    ./dev demo --port N --prompt FILE
"""

import argparse
import base64
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = ROOT / ".demo"
STANDIN = ROOT / "tests" / "standin"
START_SECONDS = 600
END_SECONDS = 90


# The environment may name a proxy, which cannot know our address.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(url, body=None, headers=None, timeout=3600):
    """(status, headers, body) whatever the status is."""
    request = urllib.request.Request(url, data=body, headers=headers or {})
    try:
        with OPENER.open(request, timeout=timeout) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def free_port():
    """9000, unless it or ComfyUI's after it is taken: then we would talk to somebody else's server."""
    for port in range(9000, 9100, 2):
        try:
            for one in (port, port + 1):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("0.0.0.0", one))
            return port
        except OSError:
            continue
    sys.exit("demo: ports 9000 to 9099 are taken; give one with --port")


def start(port):
    comfyui = pathlib.Path(os.environ.get("COMFYUI_DIR") or STANDIN).resolve()
    WORK.mkdir(exist_ok=True)
    env = dict(
        os.environ,
        USE_AGENT="1",
        NAS_DIR=str(WORK / "nas"),
        COMFYUI_DIR=str(comfyui),
        WORKFLOWS_DIR=os.environ.get("WORKFLOWS_DIR") or str(ROOT / "tests" / "examples" / "workflows"),
        COMFYUI_PORT=str(port + 1),
        FC_SERVER_PORT=str(port),
        CLI_ARGS=os.environ.get("CLI_ARGS", "--preview-method auto"),
        COMFY_AGENT=str(ROOT / "build" / "release" / "src" / "comfy-agent"),
        PYTHON=os.environ.get("PYTHON", "/usr/bin/python3"),
    )
    env.pop("FC_CUSTOM_LISTEN_PORT", None)
    # In a session of its own: Ctrl-C would reach it too, and our SIGTERM would be the second signal,
    # which means "leave at once".
    with open(WORK / "agent.log", "w", encoding="utf-8") as log:
        return subprocess.Popen([str(ROOT / "bootstrap")], env=env, stdin=subprocess.DEVNULL,
                                stdout=log, stderr=log, start_new_session=True)


def finish(agent):
    if agent.poll() is None:
        agent.send_signal(signal.SIGTERM)
    try:
        return agent.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        agent.kill()
        return agent.wait()


def interrupt(_signum, _frame):
    raise KeyboardInterrupt


def wait_until_ready(base, agent):
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if agent.poll() is not None:
            fail(f"bootstrap ended with {agent.returncode}")
        try:
            if call(base + "/readyz", timeout=5)[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    fail("ComfyUI did not become ready")


def fail(why):
    tail = (WORK / "agent.log").read_text(encoding="utf-8", errors="replace").splitlines()[-30:]
    print("\n".join(tail), file=sys.stderr)
    sys.exit(f"demo: {why} (the whole log: .demo/agent.log)")


def progress_line(nodes):
    done = sum(1 for n in nodes.values() if n["max"] and n["value"] >= n["max"])
    steps = [f"node {i}: {n['value']}/{n['max']}" for i, n in nodes.items()
             if 0 < n["value"] < n["max"]]
    width = 30
    filled = width * done // max(len(nodes), 1)
    return f"[{'#' * filled}{'.' * (width - filled)}] {done}/{len(nodes)} nodes  {' '.join(steps)}"


def show_progress(base, task, stop):
    last, over = "", False
    while not over:  # once more after the end: the last line is the whole
        over = stop.wait(0.1)
        try:
            status, _, body = call(f"{base}/api/status?id={task}")
        except OSError:
            return  # the caller's own request will say why
        line = progress_line(json.loads(body)) if status == 200 else ""
        if line and line != last:
            end = "\r" if sys.stdout.isatty() else "\n"
            print(line.ljust(78), end=end, flush=True)
            last = line


def run(base, prompt_file):
    task = "demo-" + uuid.uuid4().hex[:8]
    stop = threading.Event()
    watcher = threading.Thread(target=show_progress, args=(base, task, stop), daemon=True)
    watcher.start()
    try:
        status, headers, body = call(base + "/api/run", prompt_file.read_bytes(), {"task-id": task})
    except OSError as error:
        fail(f"POST /api/run: {error}")
    finally:
        stop.set()
        watcher.join()
    print()
    if status != 200:
        fail(f"POST /api/run answered {status}: {body.decode()}")
    assert headers["task-id"] == task
    pictures = [(image["filename"], content) for node in json.loads(body).values()
                for image, content in zip(node["images"], node.get("results", []))]
    if not pictures:
        fail("the run made no picture")
    picture = WORK / "picture.png"
    picture.write_bytes(base64.b64decode(pictures[0][1], validate=True))
    print(f"{pictures[0][0]} -> {picture} ({picture.stat().st_size} bytes)")


def serve(base, prompt_file, agent):
    print(f"serving until Ctrl-C: open {base}/ui in a browser, or try\n"
          f"  curl -d @{os.path.relpath(prompt_file)} {base}/api/run", flush=True)
    try:
        agent.wait()
    except KeyboardInterrupt:
        pass


def main():
    parser = argparse.ArgumentParser(prog="./dev demo")
    parser.add_argument("--once", action="store_true", help="end after the run")
    parser.add_argument("--port", type=int, help="9000, or the next that is free")
    parser.add_argument("--prompt", type=pathlib.Path,
                        default=ROOT / "tests" / "examples" / "text_to_image.json")
    args = parser.parse_args()
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, interrupt)
    port = args.port or free_port()
    base = f"http://127.0.0.1:{port}"
    agent = start(port)
    try:
        print("starting ComfyUI behind the agent ...", flush=True)
        wait_until_ready(base, agent)
        run(base, args.prompt)
        if not args.once:
            serve(base, args.prompt, agent)
    finally:
        code = finish(agent)
    if code != 0:
        fail(f"the agent ended with {code}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("demo: interrupted")
