"""The Dockerfile without a container engine: its rules, and its shell steps in a bare system."""

import contextlib
import json
import re
import shutil
import subprocess

import pytest

from world import ROOT, ask, free_port, until


def instructions():
    """[(stage, instruction, rest)], continued lines joined, comments left out."""
    stage, found, pending = None, [], ""
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if not pending and (not line.strip() or line.startswith("#")):
            continue
        pending += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        word, rest = pending.strip().split(None, 1)
        if word == "FROM":
            stage = rest.split(" AS ")[1] if " AS " in rest else "final"
        found.append((stage, word, " ".join(rest.split())))
        pending = ""
    return found


STEPS = instructions()


def steps(stage, word):
    return [rest for at, instruction, rest in STEPS if (at, instruction) == (stage, word)]


def arguments(stage):
    return dict(rest.replace('"', "").split("=", 1) for rest in steps(stage, "ARG"))


def test_images_are_pinned():
    for rest in (rest for _, word, rest in STEPS if word == "FROM"):
        assert rest == "${BASE_IMAGE}" or re.match(r"[\w./-]+:\w*\d[\w.-]* AS \w+$", rest), rest
    assert steps(None, "ARG") == ["BASE_IMAGE=comfyui"]
    assert re.match(r"v\d+\.\d+\.\d+$", arguments("comfyui")["COMFYUI"])


def test_the_usual_rules():
    """Those of hadolint's that can be broken by a change here."""
    assert not [word for _, word, _ in STEPS if word in ("ADD", "MAINTAINER", "USER")]
    for _, word, rest in STEPS:
        if word in ("ENTRYPOINT", "CMD"):
            json.loads(rest)
        if word != "RUN":
            continue
        assert not re.search(r"\b(sudo|apt|cd)\s", rest), rest
        assert "|" not in rest.replace("||", ""), "a pipe hides the exit code of what is before it"
        if "apt-get install" in rest:
            assert "apt-get install -y --no-install-recommends " in rest
            assert rest.startswith("apt-get update && ") and rest.endswith("rm -rf /var/lib/apt/lists/*")
        if "pip install" in rest:
            assert "pip install --no-cache-dir " in rest


def test_process_one_is_ours_and_nothing_is_copied_at_start():
    assert steps("final", "ENTRYPOINT") == ['["/opt/comfy-agent/bootstrap"]']
    code = re.sub(r"#.*", "", (ROOT / "bootstrap").read_text())
    # ComfyUI alone, the agent alone, the agent in front: whatever is started takes the place of the shell.
    assert len(re.findall(r"\bexec ", code)) == 3
    assert not re.search(r'^\s*"\$(agent|@|python)"', code, re.M)
    assert not re.search(r"\b(cp|rsync|tar|ln)\b", code)


def test_what_is_copied_is_there():
    for rest in steps("build", "COPY"):
        assert rest == ". ."
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    wanted = [line[1:] for line in ignored if line.startswith("!")]
    assert "*" in ignored
    assert all((ROOT / name).exists() for name in wanted)


def copy_source(system):
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    wanted = [line[1:] for line in ignored if line.startswith("!")]
    files = subprocess.run(["git", "ls-files", *wanted], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in files.stdout.splitlines():
        target = system.root / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)


def health(port):
    """The image's own check; this machine's python3 runs it."""
    check = json.loads(steps("final", "HEALTHCHECK")[0].split(" CMD ")[1])
    env = {"PATH": "/usr/bin:/bin", "FC_CUSTOM_LISTEN_PORT": str(port)}
    return subprocess.run(check, env=env, capture_output=True).returncode


@pytest.mark.timeout(900)
def test_its_shell_steps_make_what_it_starts(bare):
    bare.configure_apt()
    copy_source(bare)
    install, build = steps("build", "RUN")
    bare.run(["bash", "-o", "pipefail", "-c", install])
    bare.run(["bash", "-o", "pipefail", "-c", f"cd /source && {build}"])
    with_models = bare.root / "comfyui/models"
    with_models.mkdir(parents=True)
    (with_models / "put_models_here").write_text("")
    (bare.root / "comfyui/main.py").write_text('echo "comfyui: $*"; exec sleep 1000\n')
    (last,) = steps("final", "RUN")
    bare.run(["sh", "-c", last], arguments("final"))
    for name in ("models", "custom_nodes", "input", "output"):
        link = bare.root / "comfyui" / name
        assert link.is_symlink() and str(link.readlink()) == f"/mnt/auto/comfyui/{name}"
    (entry,) = json.loads(steps("final", "ENTRYPOINT")[0])
    port = free_port()
    child = bare.start([entry], {"FC_CUSTOM_LISTEN_PORT": str(port), "USE_AGENT": "1", "PYTHON": "sh",
                                 "COMFYUI_PORT": str(free_port())})

    def answers():
        with contextlib.suppress(OSError):
            return ask(port, "GET", "/healthz").status == 200
        return False

    until("the agent to answer", answers, 30)
    assert health(port) == 0
    assert health(free_port()) != 0
    assert (bare.root / "mnt/auto/comfyui/custom_nodes").is_dir()
    assert bare.end(child) == 0, bare.log()
