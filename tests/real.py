#!/usr/bin/python3
"""Runs the integration cases marked `real` against a real ComfyUI, and says of each how it went.

    tests/real.py DIR [--keep] [CASE...]

DIR holds ComfyUI's main.py; it is started with --cpu and with input, output, temp and user folders
of our own, under an agent (env AGENT, default build/asan/src/comfy-agent). No model is needed. CASE
is a part of a test's name. --keep leaves the logs and the pictures. The exit code is 1 when a case
failed, 2 when none was run.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
CASES = ROOT / "tests" / "integration"
CASE_SECONDS = 600


def version_of(comfyui):
    """As its files tell; those before 0.3.8 do not, but may come with their history."""
    for name in ("comfyui_version.py", "pyproject.toml"):
        file = comfyui / name
        found = file.is_file() and re.search(r'^(?:__version__|version) *= *"([^"]+)"', file.read_text(), re.M)
        if found:
            return found[1]
    described = ""
    if (comfyui / ".git").exists():
        described = subprocess.run(["git", "-C", str(comfyui), "describe", "--tags"], capture_output=True,
                                   text=True, check=False).stdout.strip()
    return described or f"of unknown version ({comfyui.name})"


def run_cases(comfyui, scratch, names):
    """pytest's own output goes to a file: what counts is in the report that it writes beside."""
    report = scratch / "report.xml"
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "real", "--timeout",
            str(CASE_SECONDS), f"--junitxml={report}", f"--basetemp={scratch / 'worlds'}", str(CASES)]
    if names:
        argv += ["-k", " or ".join(names)]
    log = scratch / "pytest.log"
    with open(log, "w", encoding="utf-8") as out:
        subprocess.run(argv, cwd=ROOT, env=dict(os.environ, REAL_COMFYUI=str(comfyui)), stdout=out, stderr=out,
                       check=False)
    if not report.is_file():
        sys.exit(log.read_text(encoding="utf-8"))
    return list(xml.etree.ElementTree.parse(report).iter("testcase"))


def verdict_of(case):
    for kind, word in (("failure", "FAILED"), ("error", "FAILED"), ("skipped", "skipped")):
        found = case.find(kind)
        if found is not None:
            return word, (found.get("message") or "").splitlines()[0][:160]
    return "ok", ""


def main():
    parser = argparse.ArgumentParser(prog="tests/real.py")
    parser.add_argument("comfyui", type=pathlib.Path, metavar="DIR")
    parser.add_argument("case", nargs="*")
    parser.add_argument("--keep", action="store_true", help="leave logs and pictures, and say where")
    args = parser.parse_args()
    comfyui = args.comfyui.resolve()
    if not (comfyui / "main.py").is_file():
        parser.error(f"there is no {comfyui}/main.py")
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="comfy-agent-real-"))
    try:
        print(f"ComfyUI {version_of(comfyui)}", flush=True)
        cases = run_cases(comfyui, scratch, args.case)
        failed = 0
        for case in cases:
            word, why = verdict_of(case)
            failed += word == "FAILED"
            name = case.get("name").split("[")[0].removeprefix("test_").replace("_", " ")
            print(f"  {word:8} {float(case.get('time')):6.1f} s  {name}" + (f"\n           {why}" if why else ""))
        print(f"{len(cases) - failed} of {len(cases)} cases hold")
    finally:
        if args.keep:
            print(f"kept: {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    sys.exit(2 if not cases else 1 if failed else 0)


if __name__ == "__main__":
    main()
