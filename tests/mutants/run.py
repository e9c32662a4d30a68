#!/usr/bin/env python3
"""./dev mutants [NAME…]: puts each known fault in, one at a time, and sees that its test fails.

A fault is a patch beside this file. Its first line says which test must see it: the name of a ctest
test, or a pytest node id that begins with tests/.

Works in copies of the files that git knows or would add, as they are now, under build/mutants. Each has
a build of its own that later runs go on with, so a fault costs one file's compilation and one
link. Exit code 0: every test passes without faults, and every fault makes its test fail.

--look only sees that each fault still fits into the files as they are, and that its test exists, by the
tests that build/asan was configured with.
"""
import argparse
import collections
import concurrent.futures
import fcntl
import json
import os
import pathlib
import queue
import re
import signal
import subprocess
import sys
import threading

TOP = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
COPIES = TOP / "build" / "mutants"
TEST_SECONDS = 200  # a fault may make a test hang; that is seen, too

Mutant = collections.namedtuple("Mutant", "name test patch")
CAUGHT = "caught"


def read_mutants(names):
    found = []
    for patch in sorted(HERE.glob("*.patch")):
        with open(patch, encoding="utf-8") as file:
            match = re.match(r"# test: (\S+)$", file.readline())
        if not match:
            sys.exit(f"{patch.name}: the first line must be `# test: NAME`")
        if not names or patch.stem in names:
            found.append(Mutant(patch.stem, match[1], patch))
    missing = set(names) - {mutant.name for mutant in found}
    if missing:
        sys.exit(f"no such mutant: {', '.join(sorted(missing))}")
    return found


def read_files():
    """{name: (mode, bytes)}, once: who goes on working in the meantime does not disturb."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=TOP,
                            check=True, capture_output=True)
    names = [name for name in os.fsdecode(listed.stdout).split("\0") if name and (TOP / name).is_file()]
    return {name: ((TOP / name).stat().st_mode, (TOP / name).read_bytes()) for name in names}


class Copy:
    """Those files in a folder of their own, built there."""

    def __init__(self, number, files):
        self.top = COPIES / str(number)
        self.build = self.top / "build" / "asan"
        self.files = files
        self.top.mkdir(parents=True, exist_ok=True)
        self.sync()
        self.command("cmake", "--preset", "asan", check=True)

    def command(self, *argv, check=False):
        """What it printed is in .stdout. git must not take the outer repository for this folder's."""
        env = dict(os.environ, GIT_CEILING_DIRECTORIES=str(self.top.parent),
                   AGENT=str(self.build / "src" / "comfy-agent"))
        process = subprocess.Popen([str(word) for word in argv], cwd=self.top, env=env, text=True,
                                   errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, start_new_session=True)
        try:
            printed = process.communicate(timeout=TEST_SECONDS * 5)[0]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        done = subprocess.CompletedProcess(argv, process.returncode, printed)
        if check and done.returncode != 0:
            sys.exit(f"{' '.join(map(str, argv))}:\n{done.stdout[-4000:]}")
        return done

    def sync(self):
        """Takes the fault out again. The time of files that are as they should be stays, so that
        nothing is compiled for nothing."""
        for name, (mode, content) in self.files.items():
            target = self.top / name
            if not target.is_file() or target.read_bytes() != content:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            target.chmod(mode)
        for folder in ("src", "store", "tests", "cmake"):
            for path in (self.top / folder).rglob("*"):
                if path.is_file() and str(path.relative_to(self.top)) not in self.files:
                    path.unlink()

    def make_all(self):
        built = self.make("all")
        if built.returncode != 0:
            sys.exit(f"does not build without any fault:\n{built.stdout[-4000:]}")
        # Only a program that is there is told.
        shown = self.command("ctest", "--test-dir", self.build, "--show-only=json-v1", check=True)
        self.programs = {test["name"]: pathlib.Path(test["command"][0]).name
                         for test in json.loads(shown.stdout)["tests"] if test.get("command")}

    def make(self, *targets):
        return self.command("cmake", "--build", "--preset", "asan", "-j", "2", "--target", *targets)

    def programs_of(self, test):
        """None: there is no such test."""
        if test.startswith("tests/"):
            return "comfy-agent", "load"
        return (self.programs[test],) if test in self.programs else None

    def run(self, test):
        """(passed, failed, what it printed): neither when it was skipped or does not exist."""
        if test.startswith("tests/"):
            done = self.command("/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider",
                                "--timeout", TEST_SECONDS, test)
            passed = done.returncode == 0 and " passed" in done.stdout and " skipped" not in done.stdout
            return passed, done.returncode == 1, done.stdout
        done = self.command("ctest", "--test-dir", self.build, "--no-tests=error", "--output-on-failure",
                            "--timeout", TEST_SECONDS, "-R", f"^{re.escape(test)}$")
        skipped = "(Skipped)" in done.stdout or "(Not Run)" in done.stdout
        known = test in self.programs
        return (known and done.returncode == 0 and not skipped,
                known and done.returncode != 0 and not skipped, done.stdout)

    def check_unpatched(self, test):
        if self.programs_of(test) is None:
            return "no such test", ""
        passed, _, printed = self.run(test)
        return ("" if passed else "fails without any fault"), printed

    def check(self, mutant):
        """(verdict, what was printed)."""
        applied = self.command("git", "apply", "-p1", "-C1", self.top / "tests" / "mutants" / mutant.patch.name)
        if applied.returncode != 0:
            return "does not apply", applied.stdout
        try:
            built = self.make(*self.programs_of(mutant.test))
            if built.returncode != 0:
                return "does not compile", built.stdout
            _, failed, printed = self.run(mutant.test)
            return (CAUGHT if failed else "SURVIVES"), printed
        finally:
            self.sync()


class Copies:
    """Each is used by one thread at a time."""

    def __init__(self, count):
        self.free = queue.Queue()
        self.printing = threading.Lock()
        files = read_files()
        for number in range(count):
            self.free.put(Copy(number, files))

    def with_one(self, function):
        copy = self.free.get()
        try:
            return function(copy)
        finally:
            self.free.put(copy)

    def say(self, name, test, verdict, printed):
        with self.printing:
            print(f"{name:34} {test:50} {verdict}", flush=True)
            if verdict != CAUGHT:
                print("    " + "\n    ".join(printed.splitlines()[-25:]), flush=True)


def pytest_names():
    """Node ids, and those of all the cases of a test."""
    done = subprocess.run(["/usr/bin/python3", "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "tests"],
                          cwd=TOP, env=dict(os.environ, AGENT="none"), text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit(done.stdout[-4000:] + done.stderr[-4000:])
    names = {line for line in done.stdout.splitlines() if "::" in line}
    return names | {name.split("[")[0] for name in names}


def ctest_names():
    done = subprocess.run(["ctest", "--test-dir", TOP / "build" / "asan", "--show-only=json-v1"], check=True, text=True,
                          capture_output=True)
    return {test["name"] for test in json.loads(done.stdout)["tests"]}


def look(mutants):
    tests = pytest_names() | ctest_names()
    bad = 0
    for mutant in mutants:
        applied = subprocess.run(["git", "apply", "--check", "-p1", "-C1", mutant.patch], cwd=TOP, text=True,
                                 stderr=subprocess.PIPE)
        if applied.returncode != 0:
            print(f"{mutant.name}: does not apply\n{applied.stderr}")
        if mutant.test not in tests:
            print(f"{mutant.name}: no such test: {mutant.test}")
        bad += applied.returncode != 0 or mutant.test not in tests
    return 0 if bad == 0 else 1


def main():
    parser = argparse.ArgumentParser(prog="./dev mutants")
    parser.add_argument("names", nargs="*", metavar="NAME", help="patches, without .patch (all)")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="how many at once (2)")
    parser.add_argument("--look", action="store_true", help="only whether they fit, and their tests exist")
    args = parser.parse_args()
    mutants = read_mutants(args.names)
    if args.look:
        return look(mutants)
    COPIES.mkdir(parents=True, exist_ok=True)
    alone = open(COPIES / "lock", "w")  # released when this process ends
    fcntl.flock(alone, fcntl.LOCK_EX)
    copies = Copies(min(args.jobs, len(mutants)))
    bad = 0

    def unpatched(test):
        return test, *copies.with_one(lambda copy: copy.check_unpatched(test))

    def patched(mutant):
        return mutant, *copies.with_one(lambda copy: copy.check(mutant))

    for copy in list(copies.free.queue):
        copy.make_all()
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        broken = set()
        for test, verdict, printed in pool.map(unpatched, sorted({mutant.test for mutant in mutants})):
            if verdict:
                copies.say("-", test, verdict, printed)
                broken.add(test)
        todo = [mutant for mutant in mutants if mutant.test not in broken]
        for mutant, verdict, printed in pool.map(patched, todo):
            copies.say(mutant.name, mutant.test, verdict, printed)
            bad += verdict != CAUGHT
    print(f"{len(todo) - bad} of {len(mutants)} caught")
    return 0 if bad == 0 and not broken else 1


if __name__ == "__main__":
    sys.exit(main())
