"""Clients of npm that know nothing of us: `ws` on our own WebSocket, two clients of ComfyUI's API
through the proxy. Their scripts and versions are in tests/clients; `npm ci` there installs them."""

import base64
import json
import shutil
import subprocess

import pytest

from world import PATIENCE, ROOT, image_prompt, node

CLIENTS = ROOT / "tests" / "clients"
BIG = 8 * 1024 * 1024

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="there is no node"),
    pytest.mark.skipif(not (CLIENTS / "node_modules").is_dir(), reason="npm ci has not been run in tests/clients"),
]


def node_says(script, agent, prompt):
    done = subprocess.run(["node", script, str(agent.port)], cwd=CLIENTS, input=json.dumps(prompt),
                          capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_ws_gets_a_large_result_and_previews(both):
    agent = both.agent()
    prompt = {"1": node("TestBigImage", bytes=BIG, filename_prefix="b"), "2": node("TestFlood", n=20, bytes=5000),
              "3": node("TestSteps", n=10, ms=20, seed=0)}
    heard = node_says("run_ws.mjs", agent, prompt)
    assert heard["code"] == 1000 and heard["upgrade"] == "from-node"
    assert heard["types"][-1] == "result" and set(heard["types"][:-1]) == {"progress"} and heard["previews"] > 0
    assert len(base64.b64decode(heard["last"]["data"]["1"]["results"][0])) == BIG
    record = agent.record("from-node").json
    assert record["status"] == "succeeded" and record["outputs"][0]["size"] == BIG


def test_ws_is_told_of_a_failure(world):
    heard = node_says("run_ws.mjs", world.agent(), {"1": node("TestRaise", message="no", kind="RuntimeError")})
    assert (heard["code"], heard["types"][-1]) == (1011, "error")
    assert heard["last"]["data"]["error"]["code"] == "node_error"


@pytest.mark.parametrize("script", ["saintno.mjs", "stable_canvas.mjs"])
def test_a_client_of_comfyui_runs_a_prompt_through_us(both, script):
    agent = both.agent()
    # Both begin to listen for news of a prompt when its POST was answered: without us they would miss it too.
    agent.comfy.control({"at": "node", "class": "SaveImage", "do": "sleep", "ms": 1000})
    heard = node_says(script, agent, image_prompt(5, prefix="from-node"))
    (picture,) = both.output.iterdir()
    assert picture.name.startswith("from-node") and picture.name in str(heard["image"])
    assert base64.b64decode(heard["content"]) == picture.read_bytes()
    (posted,) = agent.comfy.prompts
    assert posted["status"] == 200
