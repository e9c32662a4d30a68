"""Rules that make the stand-in behave badly at a named moment; README.md is their reference.

Every part of the program names its moments by calling `take` (and does the special actions itself)
or `act` / `act_async`, which do the actions that make sense anywhere: die, stall, print, fork.
Rules come from the environment or from POST /standin/control; `take` is called by the event loop
and by the worker thread alike, hence the lock.
"""

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field

HOLD_SECONDS = 60

ANYWHERE = {
    "exit",
    "signal",
    "sleep",
    "freeze",
    "hold",
    "kill_worker",
    "print",
    "bar",
    "fork",
    "ignore",
    "lose_history",
    "lose_queue",
    "clear_cache",
    "doze",
    "stop_listening",
}
ON_HTTP = {
    "answer",
    "close",
    "hang",
    "do_then_answer",
    "do_then_close",
    "do_then_hang",
    "finish",
    "garble",
    "truncate",
    "wrong_length",
    "chunked",
    "slow",
    "flood",
}
ON_SOCKET = {"drop", "close", "lose", "deaf", "garble", "text", "binary", "flood", "repeat"}
SPECIAL = {
    "now": {"ws_" + action for action in ("drop", "close", "deaf", "text", "binary", "flood")},
    "boot": {"never_bind"},
    "http": ON_HTTP,
    "ws": ON_SOCKET,
    "prompt_received": set(),
    "before_reply": set(),
    "node": set(),
    "progress": set(),
    "executed": set(),
    "success": {"lose_entry", "delay_entry"},
    "history": set(),
    "view": set(),
}
FILTERS = ("route", "ranged", "type", "sid", "node", "class", "value")
IN_WORKER = ("node", "progress", "executed", "success", "history")


class WorkerKilled(BaseException):
    """Ends the worker thread; not an Exception, so that no node's error handling catches it."""


class BadRule(ValueError):
    pass


@dataclass
class Rule:
    at: str
    do: str
    times: int = 1  # 0: always
    skip: int = 0
    filters: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)

    def get(self, name, default):
        return self.options.get(name, default)

    def shown(self) -> dict:
        return {
            "at": self.at,
            "do": self.do,
            "times": self.times,
            "skip": self.skip,
            **self.filters,
            **self.options,
        }


def parse(wanted) -> Rule:
    if not isinstance(wanted, dict):
        raise BadRule("a rule is an object")
    rest = dict(wanted)
    at, do = rest.pop("at", None), rest.pop("do", None)
    if at not in SPECIAL:
        raise BadRule(f"at: {at!r} is none of {sorted(SPECIAL)}")
    if do not in ANYWHERE | SPECIAL[at]:
        raise BadRule(f"do: {do!r} at {at!r} is none of {sorted(ANYWHERE | SPECIAL[at])}")
    rule = Rule(at, do, rest.pop("times", 1), rest.pop("skip", 0))
    if not isinstance(rule.times, int) or not isinstance(rule.skip, int):
        raise BadRule("times and skip are integers")
    rule.filters = {name: rest.pop(name) for name in FILTERS if name in rest}
    rule.options = rest
    if at == "http" and "route" not in rule.filters:
        raise BadRule("http wants a route")
    return rule


def _route_matches(wanted: str, method: str, path: str) -> bool:
    name, _, pattern = wanted.rpartition(" ")
    if name and name != method:
        return False
    if pattern.endswith("*"):
        return path.startswith(pattern[:-1])
    return path == pattern


def _matches(rule: Rule, facts: dict) -> bool:
    for name, wanted in rule.filters.items():
        if name == "route":
            if not _route_matches(wanted, facts["method"], facts["path"]):
                return False
        elif facts.get(name) != wanted:
            return False
    return True


class Misbehaviour:
    def __init__(self):
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._holds: dict[str, threading.Event] = {}
        self.fired: list[dict] = []
        self.kill_next = False  # the worker dies when it takes its next prompt
        self.stand_in = None  # set by main: what lose_history and its like act on

    def add(self, wanted) -> int:
        rules = [parse(one) for one in (wanted if isinstance(wanted, list) else [wanted])]
        with self._lock:
            self._rules += [rule for rule in rules if rule.at != "now"]
        for rule in rules:
            if rule.at == "now":
                self._note(rule)
                self.now(rule)
        return len(self._rules)

    def reset(self) -> None:
        with self._lock:
            self._rules.clear()
            self.fired.clear()
            holds, self._holds = self._holds, {}
        for event in holds.values():
            event.set()

    def release(self, name: str) -> None:
        self._hold(name).set()

    def waiting(self) -> list[dict]:
        with self._lock:
            return [rule.shown() for rule in self._rules]

    def _note(self, rule: Rule) -> None:
        self.fired.append({"at": rule.at, "do": rule.do})

    def take(self, at: str, **facts) -> list[Rule]:
        """The rules whose turn it is; each call counts as one match of each rule that fits."""
        if not self._rules:
            return []
        due = []
        with self._lock:
            for rule in list(self._rules):
                if rule.at != at or not _matches(rule, facts):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                due.append(rule)
                self._note(rule)
                if rule.times > 0:
                    rule.times -= 1
                    if rule.times == 0:
                        self._rules.remove(rule)
        return due

    def expects(self, at: str) -> bool:
        with self._lock:
            return any(rule.at == at for rule in self._rules)

    def _hold(self, name: str) -> threading.Event:
        with self._lock:
            return self._holds.setdefault(name, threading.Event())

    def _wait_for_release(self, rule: Rule) -> None:
        """A release that came first counts: it lets the next hold of that name pass."""
        event = self._hold(rule.get("name", "hold"))
        event.wait(HOLD_SECONDS)
        event.clear()

    def act(self, at: str, **facts) -> list[Rule]:
        """For the worker and for boot: does what is due here; returns what the caller must do."""
        rest = []
        for rule in self.take(at, **facts):
            if rule.do == "sleep":
                time.sleep(rule.get("ms", 100) / 1000)
            elif rule.do == "hold":
                self._wait_for_release(rule)
            elif rule.do == "kill_worker" and at in IN_WORKER:
                raise WorkerKilled(f"killed at {at}")
            elif not self._anywhere(rule):
                rest.append(rule)
        return rest

    async def act_async(self, at: str, **facts) -> list[Rule]:
        """The same for the event loop, which a sleep must not block."""
        return [rule for rule in self.take(at, **facts) if not await self.perform(rule)]

    async def perform(self, rule: Rule) -> bool:
        if rule.do == "sleep":
            await asyncio.sleep(rule.get("ms", 100) / 1000)
        elif rule.do == "hold":
            await asyncio.get_running_loop().run_in_executor(None, self._wait_for_release, rule)
        else:
            return self._anywhere(rule)
        return True

    def now(self, rule: Rule) -> None:
        if rule.do.startswith("ws_"):
            self.stand_in.hub.misbehave(rule)
        elif rule.do == "sleep":
            time.sleep(rule.get("ms", 100) / 1000)
        else:
            self._anywhere(rule)

    def _anywhere(self, rule: Rule) -> bool:
        act = getattr(self, "_do_" + rule.do, None)
        if act is None:
            return False
        act(rule)
        return True

    def _do_exit(self, rule: Rule) -> None:
        sys.stderr.flush()
        os._exit(rule.get("code", 1))

    def _do_signal(self, rule: Rule) -> None:
        os.kill(os.getpid(), signal.Signals["SIG" + rule.get("signal", "KILL")])

    def _do_freeze(self, rule: Rule) -> None:
        # A C call that keeps the interpreter lock, as loading a model can: nothing runs, signals
        # with a default action still work.
        ctypes.PyDLL(None).usleep(int(rule.get("ms", 100)) * 1000)

    def _do_kill_worker(self, rule: Rule) -> None:
        self.kill_next = True

    def _do_print(self, rule: Rule) -> None:
        stream = sys.stdout if rule.get("to", "stderr") == "stdout" else sys.stderr
        end = rule.get("end", "\n")
        if "text" in rule.options:
            stream.write(rule.options["text"] + end)
        else:
            line = "x" * rule.get("bytes", 80) + end
            for _ in range(rule.get("lines", 1)):
                stream.write(line)
        stream.flush()

    def _do_bar(self, rule: Rule) -> None:
        steps = rule.get("steps", 20)
        for step in range(steps + 1):
            done = 100 * step // steps
            sys.stderr.write(f"\r{done:3}%|{'#' * (done // 5):20}| {step}/{steps}")
            sys.stderr.flush()
            time.sleep(rule.get("ms", 20) / 1000)

    def _do_fork(self, rule: Rule) -> None:
        if os.fork() != 0:
            return
        # The child shares the process group and the pipes, and lives by itself for a while.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        keep = {
            {"stdin": 0, "stdout": 1, "stderr": 2}[name]
            for name in rule.get("keep", ["stdout", "stderr"])
        }
        for fd in set(range(3)) - keep:
            os.close(fd)
        os.closerange(3, 1024)
        time.sleep(rule.get("ms", 60000) / 1000)
        os._exit(0)

    def _do_ignore(self, rule: Rule) -> None:
        if threading.current_thread() is not threading.main_thread():
            self.stand_in.loop.call_soon_threadsafe(self._do_ignore, rule)
            return
        for name in rule.get("signals", ["TERM", "INT"]):
            signal.signal(signal.Signals["SIG" + name], signal.SIG_IGN)

    def _do_lose_history(self, rule: Rule) -> None:
        self.stand_in.queue.clear_history()

    def _do_lose_queue(self, rule: Rule) -> None:
        self.stand_in.queue.forget_pending()

    def _do_clear_cache(self, rule: Rule) -> None:
        self.stand_in.executor.clear_cache()

    def _do_doze(self, rule: Rule) -> None:
        self.stand_in.queue.dozes = True

    def _do_stop_listening(self, rule: Rule) -> None:
        self.stand_in.loop.call_soon_threadsafe(self.stand_in.stop_listening)
