"""The test nodes and the example graph."""

import io
import json
import signal
from pathlib import Path

import pytest
from PIL import Image

from process import Process


@pytest.fixture
def server(tmp_path: Path):
    with Process(tmp_path / "comfyui") as one:
        yield one


def test_output_nodes(server: Process):
    graph = {
        "many": {"class_type": "TestMany", "inputs": {"n": 3, "bytes": 64}},
        "video": {"class_type": "TestVideo", "inputs": {"bytes": 100}},
        "sound": {"class_type": "TestAudio", "inputs": {"seconds": 0.01}},
        "echo": {"class_type": "TestEcho", "inputs": {"value": {"a": 18446744073709551615}}},
        "free": {"class_type": "TestOutputs", "inputs": {"json": '{"x": [1, null, "y"]}'}},
    }
    outputs = server.run(graph)["outputs"]
    assert [file["filename"] for file in outputs["many"]["files"]] == [
        f"file_0000{n}_.bin" for n in (1, 2, 3)
    ]
    assert outputs["video"]["gifs"][0]["filename"] == "clip_00001_.mp4"
    assert outputs["sound"]["audio"][0]["filename"].endswith(".wav")
    assert outputs["echo"]["echo"] == [{"a": 18446744073709551615}]
    assert outputs["free"] == {"x": [1, None, "y"]}
    for output in outputs.values():
        for file in (file for files in output.values() for file in files if isinstance(file, dict)):
            if "filename" in file:
                query = "&".join(f"{key}={file[key]}" for key in ("filename", "subfolder", "type"))
                assert server.call(f"/view?{query}")[0] == 200


def test_odd_nodes(server: Process):
    def status(name: str, **inputs) -> dict:
        return server.run({"1": {"class_type": name, "inputs": inputs}})["status"]

    assert status("TestBlocked", message="no")["completed"]
    assert status("TestExpand", n=2, ms=1)["completed"]
    assert status("TestUnknownFrames", text="t")["completed"]
    assert status("TestSurrogate")["completed"]
    error = status("TestRaise", message="why not", kind="RuntimeError")["messages"][-1]
    assert error[0] == "execution_error" and error[1]["exception_message"] == "why not\n"
    server.prompt({"1": {"class_type": "TestBadUI", "inputs": {}}}, client_id="nobody")
    server.until(lambda s: len(s["ended"]) == 6)  # nobody listens: it lives
    server.control(
        {"at": "http", "route": "POST /prompt", "do": "do_then_hang"}
    )  # or it may answer
    crash = {"1": {"class_type": "TestCrash", "inputs": {"how": "segv", "code": 0}}}
    server.fails("/prompt", {"prompt": crash})
    assert server.exit_code() == -signal.SIGSEGV


def test_hanging_node_ignores_interrupts(server: Process):
    prompt_id = server.prompt({"1": {"class_type": "TestHang", "inputs": {"ms": 300}}})
    server.until(lambda s: s["nodes_run"] == 1)
    server.call("/interrupt", {"prompt_id": prompt_id})
    state = server.until(lambda s: prompt_id in s["ended"])
    assert state["interrupts"] == [{"prompt_id": prompt_id, "hit": True}]
    assert state["ended"][prompt_id] == "success"


def test_pictures_depend_on_seed_and_text(server: Process):
    example = Path(__file__).resolve().parent.parent / "examples" / "text_to_image.json"
    graph = json.loads(example.read_text(encoding="utf-8"))
    assert len(graph) == 7 and graph["5"]["inputs"]["seed"] == -1
    assert server.call("/prompt", {"prompt": graph})[0] == 400  # the agent fills the seed in

    def picture(seed: int, text: str) -> bytes:
        graph["5"]["inputs"] |= {"seed": seed, "steps": 1}
        graph["2"]["inputs"]["text"] = text
        file = server.run(graph)["outputs"]["7"]["images"][0]
        assert file["filename"].startswith("text_to_image_0000")
        return pixels(server.call(f"/view?filename={file['filename']}")[2])

    assert len({picture(1, "a"), picture(2, "a"), picture(1, "b")}) == 3
    assert picture(1, "a") == picture(1, "a")


def pixels(content: bytes) -> bytes:
    image = Image.open(io.BytesIO(content))
    assert image.size == (512, 512)
    return image.tobytes()
