"""The page, driven by a browser: each of the *.test.mjs beside this, by node."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
NODE, NPM = shutil.which("node"), shutil.which("npm")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium-headless-shell")


@pytest.fixture(scope="session")
def packages():
    """node_modules as package-lock.json has it; one of several pytest processes makes it."""
    if None in (NODE, NPM, CHROMIUM):
        pytest.skip("needs node, npm and chromium-headless-shell: ./dev ui installs them")
    made = HERE / "node_modules" / ".package-lock.json"
    lock = HERE / "package-lock.json"
    with open(HERE / "package.json", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not made.exists() or made.stat().st_mtime < lock.stat().st_mtime:
            if subprocess.run([NPM, "ci", "--no-audit", "--no-fund", "--silent"], cwd=HERE).returncode != 0:
                pytest.skip("npm ci failed in tests/ui")


@pytest.mark.parametrize("part", sorted(path.name.split(".")[0] for path in HERE.glob("*.test.mjs")))
def test_page(packages, part, tmp_path):
    env = dict(os.environ, CHROMIUM=CHROMIUM)
    printed = tmp_path / "printed"  # a file, so that what it said is known even when it takes too long
    with open(printed, "wb") as out:
        # In a group of its own, so that nothing of it outlives a test that takes too long.
        node = subprocess.Popen([NODE, "--test", HERE / f"{part}.test.mjs"], cwd=HERE, env=env, stdin=subprocess.DEVNULL,
                                stdout=out, stderr=out, start_new_session=True)
    try:
        code = node.wait()
    except BaseException:
        print(printed.read_text(errors="replace"))
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
    assert code == 0, printed.read_text(errors="replace")
