"""function.zip, unpacked into a Debian 12 that has nothing but itself."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import zipfile

import pytest

from world import ROOT, ask, free_port, until

BUILD = ROOT / os.environ.get("RELEASE_BUILD", "build/release")
SIZE_MAX = 15_000_000

# Stands for ComfyUI; PYTHON is sh. Tells how it was called, and stays.
MAIN = 'echo "comfyui: main.py $*"; exec sleep 1000\n'


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    if not (BUILD / "src/comfy-agent").exists():
        pytest.skip("there is no release build: ./dev build release")
    made = tmp_path_factory.mktemp("package")
    done = subprocess.run(["cpack", "--config", BUILD / "CPackConfig.cmake", "-B", made], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return made / "function.zip"


def install(package, system):
    """As the platform does: into /code, modes kept."""
    with zipfile.ZipFile(package) as archive:
        for entry in archive.infolist():
            path = pathlib.Path(archive.extract(entry, system.root / "code"))
            path.chmod((entry.external_attr >> 16) & 0o777 or path.stat().st_mode)
    (system.root / "comfyui").mkdir()
    (system.root / "comfyui/main.py").write_text(MAIN)


def answers(port, path="/healthz"):
    with contextlib.suppress(OSError):
        return ask(port, "GET", path).status == 200
    return False


def test_the_package_is_small_and_has_no_links(package):
    assert package.stat().st_size <= SIZE_MAX
    with zipfile.ZipFile(package) as archive:
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    assert modes["bootstrap"] & 0o777 == 0o755 and modes["comfy-agent"] & 0o777 == 0o755
    assert not [name for name, mode in modes.items() if mode & 0o170000 == 0o120000]
    assert any(name.startswith("lib/libuv.so") for name in modes)
    assert ("lib/libmariadb.so.3" in modes) == ("lib/caching_sha2_password.so" in modes)
    assert not [name for name in modes if re.search(r"/(ld-linux.*|lib(c|m|pthread))\.so", name)]


def test_the_package_asks_for_no_newer_glibc_than_common_images_have(package, tmp_path):
    with zipfile.ZipFile(package) as archive:
        archive.extractall(tmp_path)
    asked = set()
    for path in [tmp_path / "comfy-agent", *(tmp_path / "lib").iterdir()]:
        symbols = subprocess.run(["objdump", "-T", path], capture_output=True, text=True, check=True).stdout
        asked |= {tuple(map(int, version)) for version in re.findall(r"GLIBC_(\d+)\.(\d+)", symbols)}
    assert max(asked) <= (2, 35)  # Ubuntu 22.04's, on which most images with CUDA are built


def test_in_a_bare_system_the_agent_serves(package, bare):
    install(package, bare)
    port = free_port()
    child = bare.start(["/code/bootstrap"], {"USE_AGENT": "1", "FC_CUSTOM_LISTEN_PORT": str(port), "PYTHON": "sh",
                                             "COMFYUI_PORT": str(free_port()), "NAS_DIR": "/mnt/auto/comfyui"})
    until("the agent to answer", lambda: answers(port), 30)
    until("ComfyUI to be started", lambda: "comfyui: main.py" in bare.log(), 30)
    assert "--listen 127.0.0.1" in bare.log()
    assert (bare.root / "mnt/auto/comfyui/tasks").is_dir()
    assert bare.end(child) == 0, bare.log()


def test_in_a_bare_system_the_front_door_serves(package, bare):
    install(package, bare)
    shutil.rmtree(bare.root / "comfyui")
    port = free_port()
    child = bare.start(["/code/bootstrap"], {"USE_AGENT": "1", "FC_CUSTOM_LISTEN_PORT": str(port),
                                             "RUN_URL": "https://gpu.example", "NAS_DIR": "/mnt/auto/comfyui"})
    until("the door to answer", lambda: answers(port), 30)
    until("the door to be ready", lambda: answers(port, "/readyz"), 30)
    assert bare.end(child) == 0, bare.log()


def test_in_a_bare_system_without_use_agent_comfyui_is_alone(package, bare):
    install(package, bare)
    port = free_port()
    bare.start(["/code/bootstrap"], {"FC_CUSTOM_LISTEN_PORT": str(port), "PYTHON": "sh", "CLI_ARGS": "--cpu",
                                     "EXTRA_ARGS": "--lowvram --verbose"})
    line = until("ComfyUI to be started", lambda: re.search(r"comfyui: (.*)", bare.log()), 30)[1]
    assert line == ("main.py --input-directory /mnt/auto/comfyui/input --output-directory /mnt/auto/comfyui/output "
                    f"--cpu --lowvram --verbose --listen 0.0.0.0 --port {port}")
    assert not answers(port)


def test_bootstrap_says_what_is_missing(package, bare):
    install(package, bare)
    shutil.rmtree(bare.root / "comfyui")
    assert bare.start(["/code/bootstrap"]).wait(30) == 78
    assert "COMFYUI_DIR" in bare.log()
