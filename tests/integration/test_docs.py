"""What is written is so: README, bootstrap, demo."""

import os
import re
import shutil
import socket
import subprocess

import pytest

from world import AGENT, PYTHON, ROOT, free_port

README = (ROOT / "README.md").read_text(encoding="utf-8")


def agent_says(*arguments):
    done = subprocess.run([AGENT, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


# --- README ----------------------------------------------------------------------------------------


def test_the_settings_are_those_of_the_program():
    table = README.split("<!-- settings:")[1].split("-->\n", 1)[1].split("<!-- end of settings -->")[0]
    assert table == agent_says("--help=markdown"), "put the output of --help=markdown there"


def test_help_and_version():
    text = agent_says("--help")
    for name in re.findall(r"^\| `([A-Z_]+)` \|", README, re.M):
        assert name in text
    assert re.match(r"comfy-agent \d+\.\d+\.\d+ \(stores: .*file.*\)\n$", agent_says("--version"))


def test_the_routes_exist(agent):
    table = README.split("### Routes")[1].split("### ")[0]
    routes = re.findall(r"`(GET|POST|DELETE|PUT) (/[^`]*)`", table)
    assert len(routes) >= 5, table
    agent.run({"1": {"class_type": "TestText", "inputs": {"text": "x"}}}, "documented")
    for method, path in routes:
        path = path.replace("{id}", "documented").replace("{n}", "0")
        path += "documented" if path.endswith("id=") else ""
        wrong = agent.ask("PATCH", path)
        assert wrong.status == 405 and method in wrong.headers["allow"], (method, path, wrong)


def test_the_example_of_the_readme_runs(agent):
    (tiny,) = re.findall(r"```json\n(.*?)```", README, re.S)
    as_curl_sends_it = tiny.replace("\n", "")  # what -d does to a file
    assert agent.run(as_curl_sends_it, "hello-1").json["2"]["results"]
    record = agent.record("hello-1").json
    assert f'"prompt_sha256":"{record["prompt_sha256"]}"' in README
    shown = re.search(r'{"id":"hello-1".*}', README)[0]
    assert all(f'"{key}":' in shown for key in record), "the record that is shown has all that there is"


def started(**env):
    """A start that comes to nothing: the exit code, and the lines that say why."""
    done = subprocess.run([AGENT], capture_output=True, text=True, timeout=60, env={
        **os.environ, "STORE_URL": "mem:", "COMFYUI_URL": "http://127.0.0.1:9", "LISTEN_HOST": "127.0.0.1", **env})
    assert "Sanitizer" not in done.stderr, done.stderr
    return done.returncode, [line for line in done.stderr.splitlines() if " error " in line]


@pytest.mark.parametrize("url", ["", "ftp://x", "http://x/path"])
def test_wrong_settings_stop_the_start_with_every_fault_named(url):
    wrong = {"MAX_QUEUE": "many", "RUN_TIMEOUT": "1 fortnight", "LOG_LEVEL": "loud", "COMFYUI_URL": url,
             "STORE_URL": "foo:", "FETCH_ALLOW": "!!", "LISTEN_HOST": "localhost"}
    code, faults = started(**wrong)
    assert code == 78
    assert all(any(name in fault for fault in faults) for name in wrong) and len(faults) == len(wrong), faults
    assert subprocess.run([AGENT, "--no-such"], capture_output=True).returncode == 64


def test_one_wrong_setting_is_enough(tmp_path):
    """The store is open by then, and is closed again."""
    code, (fault,) = started(FETCH_ALLOW="!!", STORE_URL=f"file:{tmp_path}/store")
    assert code == 78 and "FETCH_ALLOW" in fault


@pytest.mark.parametrize("env", [{"RUN_URL": "ftp://x"}, {"RUN_URL": "http://x/?a=b"}, {"RUN_URL": "http://x/#a"},
                                 {"RUN_URL": "http://x", "STORE_URL": "mem:"}])
def test_settings_that_make_no_front_door(tmp_path, env):
    code, (fault,) = started(**{"COMFYUI_URL": "", "STORE_URL": f"file:{tmp_path}/store", **env})
    assert code == 78 and "RUN_URL" in fault


def test_an_address_of_another_machine_is_a_wrong_setting():
    code, (fault,) = started(LISTEN_HOST="192.0.2.1")
    assert code == 78 and "192.0.2.1" in fault


def test_a_port_that_is_taken_is_told_from_a_wrong_setting():
    with socket.create_server(("127.0.0.1", free_port())) as other:
        code, (fault,) = started(FC_SERVER_PORT=str(other.getsockname()[1]))
    assert code == 69 and "in use" in fault


def test_links_lead_somewhere():
    for page in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "tests/standin/README.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            assert "://" in target or ((ROOT / page).parent / target).exists(), (page, target)


# --- bootstrap -------------------------------------------------------------------------------------

FAKE = """#!/bin/sh
echo "cwd $(pwd)"
for word in "$@"; do echo "word $word"; done
env | grep -E '^(STORE_URL|COMFYUI_PORT|INPUT_DIR|OUTPUT_DIR)=' || true
"""


@pytest.fixture
def place(tmp_path):
    """A ComfyUI that is never run, and programs that say how they were called."""
    comfyui = tmp_path / "comfy ui"
    comfyui.mkdir()
    (comfyui / "main.py").write_text("")
    for name in ("python", "agent"):
        (tmp_path / name).write_text(FAKE)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def bootstrap(place, **env):
    settings = {"PATH": os.environ["PATH"], "NAS_DIR": str(place / "nas"), "COMFYUI_DIR": str(place / "comfy ui"),
                "PYTHON": str(place / "python"), "COMFY_AGENT": str(place / "agent"), **env}
    done = subprocess.run([ROOT / "bootstrap"], env=settings, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    done.words = [line[5:] for line in lines if line.startswith("word ")]
    done.cwd = [line[4:] for line in lines if line.startswith("cwd ")]
    done.env = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith(("word ", "cwd ")))
    return done


def folders(place):
    return ["--input-directory", f"{place}/nas/input", "--output-directory", f"{place}/nas/output"]


@pytest.mark.parametrize("env", [{}, {"USE_AGENT": ""}, {"USE_AGENT": "0"}, {"USE_AGENT": "false"}])
def test_bootstrap_becomes_comfyui_alone(place, env):
    done = bootstrap(place, **env, FC_SERVER_PORT="9100", CLI_ARGS="--cpu --verbose", EXTRA_ARGS="--x 1")
    assert done.returncode == 0, done.stderr
    assert done.cwd == [str(place / "comfy ui")]
    assert done.words == ["main.py", *folders(place), "--cpu", "--verbose", "--x", "1",
                          "--listen", "0.0.0.0", "--port", "9100"]
    assert all((place / "nas" / name).is_dir() for name in ("input", "output", "tasks"))


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_bootstrap_becomes_the_agent_with_comfyui_behind_it(place, value):
    done = bootstrap(place, USE_AGENT=value, CLI_ARGS="--cpu", COMFYUI_PORT="9201")
    assert done.returncode == 0, done.stderr
    assert done.words == ["--", str(place / "python"), "main.py", *folders(place), "--cpu",
                          "--listen", "127.0.0.1", "--port", "9201"]
    assert done.env["STORE_URL"] == f"file://{place}/nas/tasks"
    assert bootstrap(place, USE_AGENT=value, STORE_URL="mem:").env["STORE_URL"] == "mem:"


def test_bootstrap_becomes_a_front_door(place):
    (place / "comfy ui" / "main.py").unlink()
    done = bootstrap(place, USE_AGENT="1", RUN_URL="http://gpu.example")
    assert done.returncode == 0, done.stderr
    assert done.words == []
    assert done.env["STORE_URL"] == f"file://{place}/nas/tasks"
    assert (done.env["INPUT_DIR"], done.env["OUTPUT_DIR"]) == (f"{place}/nas/input", f"{place}/nas/output")
    assert all((place / "nas" / name).is_dir() for name in ("input", "output", "tasks"))
    assert bootstrap(place, USE_AGENT="0", RUN_URL="http://gpu.example").returncode == 78


def test_bootstrap_takes_other_folders_and_the_platform_port(place):
    done = bootstrap(place, INPUT_DIR=str(place / "in"), OUTPUT_DIR=str(place / "out"),
                     FC_CUSTOM_LISTEN_PORT="9300", FC_SERVER_PORT="9100")
    assert done.words[:5] == ["main.py", "--input-directory", str(place / "in"), "--output-directory",
                              str(place / "out")]
    assert done.words[-1] == "9300"
    assert (place / "in").is_dir() and (place / "out").is_dir()


def test_bootstrap_without_a_comfyui_says_so(place):
    (place / "comfy ui" / "main.py").unlink()
    done = bootstrap(place)
    assert done.returncode == 78 and "main.py" in done.stderr and done.words == []


def test_bootstrap_goes_on_without_a_nas(place):
    (place / "nas").write_text("in the way")
    done = bootstrap(place)
    assert done.returncode == 0 and "cannot be made" in done.stderr
    assert done.words[0] == "main.py"


# --- demo ------------------------------------------------------------------------------------------


def test_the_demo_leaves_a_picture(tmp_path):
    """In a copy: it works in its own folder, with the release program."""
    for name in ("bootstrap", "tests/demo.py", "tests/examples", "tests/standin"):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
    binary = tmp_path / "build/release/src/comfy-agent"
    binary.parent.mkdir(parents=True)
    binary.symlink_to(AGENT)
    done = subprocess.run([PYTHON, tmp_path / "tests/demo.py", "--once", "--port", str(free_port())],
                          capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / ".demo/picture.png").read_bytes().startswith(b"\x89PNG")
    assert "nodes" in done.stdout


# --- tests/contract --------------------------------------------------------------------------------


def test_the_list_of_what_every_store_must_do():
    build = AGENT.parents[1]
    if not (build / "tests" / "contract").is_dir():
        pytest.skip("the program was built without tests")
    done = subprocess.run([PYTHON, ROOT / "tests" / "contract" / "check_list.py", build], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
