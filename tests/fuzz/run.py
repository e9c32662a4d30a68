#!/usr/bin/env python3
"""./dev fuzz [SECONDS] [NAME…]: builds the fuzz targets and runs each for so long.

What a target finds stays in build/fuzz/findings; a finding that was understood moves to
tests/fuzz/corpus/<name>, where the ordinary tests replay it for ever. What it learned about good
inputs stays in build/fuzz/learned and is where the next run begins. <name>.dict has words that it may
put in.
"""
import pathlib
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
CORPUS = TOP / "tests" / "fuzz" / "corpus"
BUILD = TOP / "build" / "fuzz"


def build(names):
    subprocess.run(["cmake", "--preset", "fuzz"], cwd=TOP, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", "--preset", "fuzz", "-j", "2", "--target", *names], cwd=TOP,
                   check=True, stdout=subprocess.DEVNULL)


def fuzz(name, seconds):
    """True: nothing was found."""
    learned = BUILD / "learned" / name
    findings = BUILD / "findings" / name
    learned.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    command = [BUILD / "tests" / "fuzz" / name, learned, CORPUS / name,
               f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048",
               "-max_len=70000", f"-artifact_prefix={findings}/", "-print_final_stats=1",
               "-verbosity=0"]
    words = CORPUS.parent / f"{name}.dict"
    if words.exists():
        command.append(f"-dict={words}")
    result = subprocess.run(command, cwd=TOP, capture_output=True, text=True, errors="replace")
    found = sorted(set(findings.iterdir()) - before)
    runs = [line.split()[-1] for line in result.stderr.splitlines() if "executed_units" in line]
    if result.returncode == 0 and not found:
        print(f"{name}: {runs[0] if runs else '?'} inputs in {seconds} s, nothing found")
        return True
    print(f"{name}: FOUND (exit code {result.returncode})", *found, sep="\n    ")
    print(result.stderr[-6000:])
    return False


def main(arguments):
    seconds = 60
    if arguments and arguments[0].isdigit():
        seconds = int(arguments.pop(0))
    names = arguments or sorted(path.stem for path in CORPUS.parent.glob("fuzz_*.c"))
    build(names)
    return 0 if all([fuzz(name, seconds) for name in names]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
