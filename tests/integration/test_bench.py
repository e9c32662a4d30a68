"""That ./dev bench can measure whatever it is to measure: never how much that is. And that its generator of
load counts as failed what has failed."""

import json
import re
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from world import AGENT, PYTHON, ROOT, until

BUILD = AGENT.parents[1]
NUMBER = re.compile(r"-?[\d,]+(\.\d+)?(e[+-]\d+)?")

pytestmark = pytest.mark.skipif(not (BUILD / "tests/bench/load").exists(), reason="this build has no benchmark")


@pytest.mark.long
def test_every_line_has_its_figure(tmp_path):
    table = tmp_path / "table.md"
    done = subprocess.run([PYTHON, ROOT / "tests/bench/run.py", "--quick", "--build", BUILD, "--out", table],
                          capture_output=True, text=True, timeout=280)
    assert done.returncode in (0, 77), done.stderr[-6000:]
    lines = [[cell.strip() for cell in line.split("|")] for line in table.read_text().splitlines()
             if line.startswith("| ")]
    assert len(lines) == 1 + 84
    for _, name, unit, agent, beside, ratio, _ in lines[1:]:
        assert NUMBER.fullmatch(agent), (name, agent)
        if beside and beside != "nginx is not installed":
            assert NUMBER.fullmatch(beside.split(": ")[1]), (name, beside)
            assert NUMBER.fullmatch(ratio) or name.startswith("idle: ") or name.endswith(": p50, added to direct"), (
                name, ratio)
    if done.returncode == 77:
        pytest.skip("nginx is not installed: what is compared with it was not measured")


@pytest.mark.parametrize("texts, faults", [(44, 1), (45, 0)])
def test_who_tells_too_little_is_not_measured(texts, faults):
    sys.path.insert(0, str(ROOT / "tests/bench"))
    from run import Lab

    lab = SimpleNamespace(failures=[])
    Lab.check_news(lab, "a flood", "agent", {"texts": texts, "good": 20}, 2.25)
    assert len(lab.failures) == faults


@pytest.fixture
def load(tmp_path):
    """What the generator of load says of ten requests to the fake ComfyUI."""
    with subprocess.Popen([BUILD / "tests/bench/fake_comfy"], stdout=subprocess.PIPE, text=True) as fake:
        fake_port = fake.stdout.readline().strip()

        def load(*options, body=None, port=fake_port):
            if body is not None:
                (tmp_path / "body").write_text(json.dumps(body))
                options = (*options, "--body", tmp_path / "body")
            return json.loads(subprocess.run(
                [BUILD / "tests/bench/load", "--port", port, "--connections", "2", "--count", "10", *options],
                check=True, capture_output=True, timeout=30).stdout)

        load.port = fake_port
        yield load
        fake.kill()


PICTURE = {"7": {"class_type": "SaveImage", "inputs": {"filename_prefix": "bench_100000"}}}
SMALL_PICTURE = {"7": {"class_type": "SaveImage", "inputs": {"filename_prefix": "bench_1000"}}}


def test_what_is_good_counts(load):
    said = load("--path", "/view?filename=bench_100000_.png", "--warmup", "4")
    assert (said["good"], said["failed"], said["bytes"]) == (10, 0, 1_000_000), said
    assert said["p99_us"] >= said["p50_us"] > 0 and said["rate"] > 0
    assert load("--path", "/system_stats", "--expect", '"devices"')["good"] == 10
    said = load("--direct", body=PICTURE)
    assert (said["good"], said["texts"]) == (10, 2 + 10 * 6), said  # two greetings


def test_a_watched_run_counts_when_its_result_is_there(load, world):
    agent = world.agent(ready=False, url=f"http://127.0.0.1:{load.port}")
    until("the agent to answer", agent.answers)
    until("the agent to be ready", lambda: agent.get("/readyz").status == 200)

    def watched(expected):
        return load("--watch", "--path", "/api/run/ws", "--expect", expected, port=str(agent.port), body=SMALL_PICTURE)

    said = watched('"results"')
    assert (said["good"], said["failed"]) == (10, 0) and said["texts"] >= 10, said
    said = watched("unheard of")
    assert (said["good"], said["failed"]) == (0, 10) and said["first_failure"].startswith("the result has no"), said


def test_a_text_of_any_length_is_no_trap(load):
    """Its head and its length are nothing together, in 64 bits."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def once():
            peer, _ = server.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"HTTP/1.1 101 x\r\nupgrade: websocket\r\n\r\n\x81\x7f" + b"\xff" * 7 + b"\xf6")
                peer.recv(4096)

        peers = threading.Thread(target=lambda: [once() for _ in range(10)], daemon=True)
        peers.start()
        said = load("--direct", port=str(server.getsockname()[1]), body=PICTURE)
    assert (said["good"], said["failed"]) == (0, 10) and said["first_failure"].startswith("a text without an end"), said


@pytest.mark.parametrize("options, body, why", [
    (["--path", "/nowhere"], None, "status 404"),
    (["--path", "/system_stats", "--expect", "unheard of"], None, "the answer has no"),
    (["--path", "/prompt"], [], "status 400"),
    (["--direct"], {"7": {"class_type": "PreviewAny", "inputs": {}}}, "a run without a picture"),
    (["--watch", "--path", "/ws"], PICTURE, "not a result"),
    (["--watch", "--path", "/system_stats"], PICTURE, "status 200"),
])
def test_what_fails_does_not(load, options, body, why):
    said = load(*options, body=body)
    assert (said["good"], said["failed"]) == (0, 10), said
    assert said["first_failure"].startswith(why)


def test_one_silence_is_enough(load):
    said = load("--direct", "--patience", "0.1", body={"7": {"class_type": "Hold", "inputs": {}}})
    assert (said["good"], said["failed"]) == (0, 2), said  # one a connection
    assert said["first_failure"].startswith("no answer in time")
