"""The worker: one thread that runs one prompt at a time, and the output cache.

An exception of a node ends the prompt; an exception anywhere else ends the worker thread, and that
is on purpose: HTTP stays healthy and nothing ever runs again, as in ComfyUI.
"""

import threading
import time

import log
from hub import Hub
from misbehave import Misbehaviour
from nodes import Site
from prompt_run import Entry, PromptRun
from queueing import PromptQueue


class Executor:
    def __init__(
        self, hub: Hub, queue: PromptQueue, site: Site, misbehaviour: Misbehaviour, journal
    ):
        self.hub, self.queue, self.site = hub, queue, site
        self.misbehaviour, self.journal = misbehaviour, journal
        self.interrupt = threading.Event()
        self.cached: dict[str, Entry] = {}  # of the previous prompt only
        self.output_order: list[str] = []
        self.nodes_run = 0
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        self.thread = threading.Thread(
            target=self.work, name="Thread-1 (prompt_worker)", daemon=True
        )
        self.thread.start()

    def clear_cache(self) -> None:
        self.cached = {}

    def work(self) -> None:
        while True:
            taken = self.queue.get()
            if taken is not None:
                self.one(*taken)
            if self.queue.take_flags().get("free_memory"):
                self.clear_cache()

    def one(self, place: int, item: tuple) -> None:
        _, prompt_id, graph, extra_data, outputs = item
        began = time.perf_counter()
        if self.misbehaviour.kill_next:
            raise RuntimeError("killed by command")
        self.interrupt.clear()
        self.hub.client_id = extra_data["client_id"] if "client_id" in extra_data else None
        run = PromptRun(self, graph, prompt_id, extra_data, self.cached)
        try:
            run.run(outputs)
        finally:
            self.hub.last_node_id = None
        self.cached = run.cache()
        self.finish(place, item, run)
        log.info(f"Prompt executed in {time.perf_counter() - began:.2f} seconds")

    def finish(self, place: int, item: tuple, run: PromptRun) -> None:
        rules = {rule.do: rule for rule in self.misbehaviour.act("success")}
        success = run.outcome == "success"
        status = {
            "status_str": "success" if success else "error",
            "completed": success,
            "messages": run.messages,
        }
        keep = not {"lose_entry", "delay_entry"} & rules.keys()
        self.queue.done(place, run.result(), status, keep)
        self.journal.ended[run.prompt_id] = run.outcome
        if "delay_entry" in rules:
            delay = rules["delay_entry"].get("ms", 500) / 1000
            threading.Timer(delay, self.queue.remember, (item, run.result(), status)).start()
        self.misbehaviour.act("history")
        if self.hub.client_id is not None:
            self.hub.send(
                "executing", {"node": None, "prompt_id": run.prompt_id}, self.hub.client_id
            )
