"""A recorded case taken apart: what the client did, when, and what it had heard by then.

What the recorder did in the middle of a run is made independent of the machine's speed by gates:
the stand-in's worker holds before the progress step that came next in the recording until the
action is done.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

TRACES = Path(__file__).resolve().parent / "traces"
PAUSE = 0.25  # the recorder never worked so long: it waited for the server to be done
ENDS = ("execution_success", "execution_error", "execution_interrupted")


def load_case(age: str, name: str) -> list[dict]:
    with open(TRACES / age / f"{name}.jsonl", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def load_http(age: str, name: str) -> list[dict]:
    return json.loads((TRACES / age / f"{name}.json").read_text(encoding="utf-8"))[1:]


@dataclass
class Action:
    event: dict
    heard: dict[str, int]  # messages each socket must have heard before
    paused: bool  # the recorder had waited
    gate: str | None = None


class Script:
    """A recording, taken apart."""

    def __init__(self, events: list[dict]):
        self.events = events
        self.actions: list[Action] = []
        self.messages: dict[str, list[dict]] = {}  # by socket
        self.holds: list[dict] = []
        self._collect()
        self._set_gates()

    def _collect(self) -> None:
        for event in self.events:
            if event["ev"] in ("ws_text", "ws_binary"):
                self.messages.setdefault(event["ws"], []).append(event)
        times = [e["t"] for e in self.events if e["ev"] != "mark"]
        acting = [
            e for e in self.events if e["ev"] in ("http", "ws_open", "ws_send", "ws_client_close")
        ]
        for event in sorted(acting, key=lambda e: e.get("t0", e["t"])):
            start = event.get("t0", event["t"])
            heard = {name: self._heard(event, start, m) for name, m in self.messages.items()}
            if event["ev"] == "ws_open":
                heard.pop(event["ws"], None)
            before = max((t for t in times if t <= start and t != event["t"]), default=start)
            self.actions.append(Action(event, heard, start - before > PAUSE))

    @staticmethod
    def _heard(event: dict, start: float, messages: list[dict]) -> int:
        """How many of a socket's messages came before an action. A prompt was queued when its
        answer came, so everything another prompt said by then was earlier too."""
        count = sum(m["t"] <= start for m in messages)
        if event.get("path") != "/prompt" or event.get("status") != 200:
            return count
        own = json.loads(event["body"])["prompt_id"]
        for place, message in enumerate(messages):
            raw = message.get("raw", "")
            if message["t"] >= event["t"] or (message["t"] > start and own in raw):
                break
            if '"type": "status"' not in raw:
                count = max(count, place + 1)
        return count

    def _progress(self) -> list[tuple[float, str, int]]:
        """(time, prompt id, value) of each progress step, once each."""
        seen, steps = set(), []
        texts = [
            e for e in self.events if e["ev"] == "ws_text" and '"type": "progress",' in e["raw"]
        ]
        for event in sorted(texts, key=lambda e: e["t"]):
            data = json.loads(event["raw"])["data"]
            step = (data["prompt_id"], data["value"])
            if step not in seen:
                seen.add(step)
                steps.append((event["t"], *step))
        return steps

    def _set_gates(self) -> None:
        steps, values = self._progress(), {}
        for action in self.actions:
            event = action.event
            start, end = event.get("t0", event["t"]), event["t"]
            before = [s for s in steps if s[0] <= start]
            after = [s for s in steps if s[0] > end]
            last_end = max(
                (
                    e["t"]
                    for e in self.events
                    if e["ev"] == "ws_text"
                    and e["t"] <= start
                    and any(f'"{kind}"' in e["raw"][:40] for kind in ENDS)
                ),
                default=0,
            )
            cuts = event["ev"] == "ws_client_close" or event.get("path") == "/interrupt"
            running = bool(before) and before[-1][0] > last_end
            if cuts and running:
                prompt, value = before[-1][1], before[-1][2] + 1
            elif event.get("path") != "/prompt" and after and self._posted(after[0][1], start):
                prompt, value = after[0][1], after[0][2]
            elif (
                event.get("path") == "/prompt"
                and running
                and after
                and after[0][1] == before[-1][1]
            ):
                prompt, value = after[0][1], after[0][2]
            else:
                continue
            name = f"{prompt} {value}"
            if name not in values:
                values[name] = True
                skip = sum(1 for t, p, v in steps if v == value and p != prompt and t < start)
                self.holds.append(
                    {"at": "progress", "value": value, "do": "hold", "name": name, "skip": skip}
                )
            action.gate = name

    def _posted(self, prompt_id: str, start: float) -> bool:
        """The progress that follows belongs to what was there already."""
        return any(
            e.get("path") == "/prompt" and e["t"] <= start and prompt_id in e.get("body", "")
            for e in self.events
        )

    def first_cached(self) -> tuple[dict, list[str]] | None:
        """The first graph, and which of its nodes an earlier case had left in the cache."""
        graph = next(
            (
                a.event["req_json"]["prompt"]
                for a in self.actions
                if a.event.get("path") == "/prompt" and "req_json" in a.event
            ),
            None,
        )
        for event in self.events:
            text = event.get("raw", "") + event.get("body", "")
            found = re.search(r'"execution_cached", (?:"data": )?(\{.*?\})', text)
            if found and graph is not None:
                return graph, json.loads(found[1])["nodes"]
        return None

    def file_names(self) -> dict[tuple[str, str], int]:
        """(subfolder, base) -> the lowest number in a file name of the recording."""
        lowest = {}
        for event in self.events:
            text = event.get("raw", "") + event.get("body", "")
            for name, sub in re.findall(
                r'"filename": "([^"]+)", "subfolder": "([^"]*)", "type": "output"', text
            ):
                if found := re.fullmatch(r"(.+)_(\d{5})_\.\w+", name):
                    key = (sub, found[1])
                    lowest[key] = min(lowest.get(key, 99999), int(found[2]))
        return lowest

    def first_number(self) -> int:
        """What the counter must be at the start; each refused POST before the first answer took
        one."""
        posts = [a.event for a in self.actions if a.event.get("path") == "/prompt"]
        for earlier, event in enumerate(posts):
            if '"number"' in event.get("body", ""):
                return int(json.loads(event["body"])["number"]) - earlier
        return 0

    def output_order(self) -> list[str]:
        for event in self.events:
            found = re.search(
                r'"(?:prompt|queue_running)": \[.*?\}, (\["[^\]]*"\])\]', event.get("body", "")
            )
            if found:
                return json.loads(found[1])
        return []
