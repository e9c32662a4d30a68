"""The prompt queue and the history: in memory, under one lock, used by the loop and the worker.

A queue item is what GET /queue shows: [number, prompt_id, graph, extra_data, [output ids]]. The
queue is a heap of plain tuples; two with equal number and equal id cannot be compared, so that the
second POST ends in 500 and yet runs, as it does in ComfyUI.
"""

import copy
import heapq
import threading

HISTORY_MAX = 10000


class PromptQueue:
    def __init__(self, hub, journal):
        self.hub, self.journal = hub, journal
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.pending: list[tuple] = []
        self.running: dict[int, tuple] = {}
        self.taken = 0
        self.history: dict[str, dict] = {}
        self.flags: dict[str, bool] = {}
        self.dozes = False

    def put(self, item: tuple) -> None:
        with self.lock:
            heapq.heappush(self.pending, item)
            self.hub.send_status()
            self.changed.notify()

    def get(self) -> tuple[int, tuple] | None:
        """The next prompt, or None when there are only flags to look at."""
        with self.lock:
            while not self.pending:
                if self.flags and not self.dozes:
                    return None
                self.changed.wait()
            item = heapq.heappop(self.pending)
            self.dozes = self.dozes and not self.flags
            self.taken += 1
            self.running[self.taken] = copy.deepcopy(item)
            self.journal.started.append(item[1])
            self.hub.send_status()
            return self.taken, item

    def done(self, place: int, result: dict, status: dict, keep: bool = True) -> None:
        with self.lock:
            item = self.running.pop(place)
            if keep:
                self.remember(item, result, status)
            self.hub.send_status()

    def remember(self, item: tuple, result: dict, status: dict) -> None:
        with self.lock:
            while len(self.history) > HISTORY_MAX:
                self.history.pop(next(iter(self.history)))
            self.history.pop(item[1], None)
            self.history[item[1]] = {
                "prompt": list(item),
                "outputs": result["outputs"],
                "status": status,
                "meta": result["meta"],
            }

    def remaining(self) -> int:
        with self.lock:
            return len(self.pending) + len(self.running)

    def snapshot(self) -> tuple[list, list]:
        with self.lock:
            return list(self.running.values()), list(self.pending)

    def clear(self) -> None:
        with self.lock:
            self.pending = []
            self.journal.cleared += 1
            self.hub.send_status()

    def delete(self, prompt_id: str) -> bool:
        with self.lock:
            for place, item in enumerate(self.pending):
                if item[1] == prompt_id:
                    self.pending.pop(place)
                    heapq.heapify(self.pending)
                    self.journal.deleted.append(prompt_id)
                    self.hub.send_status()
                    return True
        return False

    def forget_pending(self) -> None:
        with self.lock:
            self.pending = []

    def is_running(self, prompt_id) -> bool:
        with self.lock:
            return any(item[1] == prompt_id for item in self.running.values())

    def entries(
        self, prompt_id: str | None = None, most: int | None = None, offset: int = -1
    ) -> dict:
        with self.lock:
            if prompt_id is not None:
                entry = self.history.get(prompt_id)
                return {} if entry is None else {prompt_id: copy.deepcopy(entry)}
            if offset < 0 and most is not None:
                offset = len(self.history) - most
            names = list(self.history)[max(offset, 0) :]
            if most is not None:
                names = names[:most]
            return {name: self.history[name] for name in names}

    def clear_history(self) -> None:
        with self.lock:
            self.history = {}

    def delete_history(self, prompt_id: str) -> None:
        with self.lock:
            self.history.pop(prompt_id, None)

    def set_flag(self, name: str) -> None:
        with self.lock:
            self.flags[name] = True
            self.changed.notify()

    def take_flags(self) -> dict:
        with self.lock:
            flags, self.flags = self.flags, {}
            return flags
