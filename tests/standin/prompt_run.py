"""One prompt from execution_start to its end, with all the messages in between.

The order of nodes is ComfyUI's: what is ready and an output goes first, then what an output waits
for. The order of the outputs among each other is a set's there, so nothing depends on it here but
`output_order`, which the replay test sets to the recorded one.
"""

import sys
import time
import traceback
from dataclasses import dataclass, field

import log
from graphs import Order, OuterLink, cache_keys, is_link
from nodes import CLASSES, Blocker, Result, input_lists
from progress import ProgressState, Run


class Interrupted(Exception):
    pass


@dataclass
class Entry:
    """What is kept of a node that has run."""

    values: tuple
    ui: dict | None
    meta: dict
    inner: dict = field(default_factory=dict)  # Entries of the nodes it expanded into, by id


@dataclass
class Inner:
    """A node that came out of an expansion."""

    node: dict
    parent: str
    display: str


class PromptRun:
    """One prompt from execution_start to execution_success, _error or _interrupted."""

    def __init__(
        self, executor: "Executor", graph: dict, prompt_id: str, extra_data: dict, cache: dict
    ):
        self.executor, self.hub, self.site = executor, executor.hub, executor.site
        self.graph, self.prompt_id, self.extra_data = graph, prompt_id, extra_data
        self.messages: list = []
        self.message("execution_start", {"prompt_id": prompt_id})
        self.keys = cache_keys(graph, self.site)
        self.done: dict[str, Entry] = {n: cache[k] for n, k in self.keys.items() if k in cache}
        self.inner: dict[str, Inner] = {}
        self.expanded: dict[str, Result] = {}  # waits for its inner nodes
        self.executed: set[str] = set()
        self.shown: dict[str, Entry] = {}  # entries with ui, for history
        self.progress = ProgressState(self)
        self.order = Order(self)
        self.outcome = "success"
        cached = [n for n in graph if n in self.done]
        self.message("execution_cached", {"nodes": cached, "prompt_id": prompt_id})

    # Small questions

    def node(self, node_id: str) -> dict:
        return self.graph[node_id] if node_id in self.graph else self.inner[node_id].node

    def cls(self, node_id: str):
        return CLASSES[self.node(node_id)["class_type"]]

    def display(self, node_id: str) -> str:
        return self.inner[node_id].display if node_id in self.inner else node_id

    def place(self, node_id: str) -> dict:
        parent = self.inner[node_id].parent if node_id in self.inner else None
        display = self.display(node_id)
        return {"display_node_id": display, "parent_node_id": parent, "real_node_id": display}

    def meta(self, node_id: str) -> dict:
        place = self.place(node_id)
        return {
            "node_id": node_id,
            "display_node": place["display_node_id"],
            "parent_node": place["parent_node_id"],
            "real_node_id": place["real_node_id"],
        }

    def sources(self, node_id: str) -> list[str]:
        inputs = self.node(node_id)["inputs"]
        return [
            inputs[name][0]
            for name, _, _ in input_lists(self.cls(node_id), self.site)
            if name in inputs and is_link(inputs[name])
        ]

    def check_interrupt(self) -> None:
        if self.executor.interrupt.is_set():
            self.executor.interrupt.clear()
            raise Interrupted()

    # Talking

    def tell(self, kind: str, data: dict) -> None:
        """To the owner, or to everybody if there is none."""
        self.hub.send(kind, data, self.hub.client_id)

    def tell_owner(self, kind: str, data: dict) -> None:
        if self.hub.client_id is not None:
            self.tell(kind, data)

    def message(self, kind: str, data: dict, broadcast: bool = False) -> None:
        data = {**data, "timestamp": int(time.time() * 1000)}
        self.messages.append([kind, data])
        if self.hub.client_id is not None or broadcast:
            self.tell(kind, data)

    def act(self, moment: str, node_id: str, **facts) -> None:
        self.executor.misbehaviour.act(
            moment, node=node_id, **{"class": self.node(node_id)["class_type"]}, **facts
        )

    # Running

    def run(self, outputs: list[str]) -> None:
        order = self.executor.output_order
        for output in sorted(outputs, key=lambda o: order.index(o) if o in order else len(order)):
            self.order.add(output)
        while self.order.waits and self.outcome == "success":
            node_id = self.order.next()
            if node_id is None:
                self._stuck(next(iter(self.order.waits)))
            elif self._step(node_id):
                self.order.finish(node_id)
        if self.outcome == "success":
            self.message("execution_success", {"prompt_id": self.prompt_id})

    def _step(self, node_id: str) -> bool:
        """True when the node is done with."""
        if node_id in self.done:
            return self._repeat(node_id)
        if node_id in self.expanded:
            return self._resolve(node_id)
        self.progress.start(node_id)
        if self.hub.client_id is not None:
            self.hub.last_node_id = self.display(node_id)
            self.tell(
                "executing",
                {
                    "node": node_id,
                    "display_node": self.display(node_id),
                    "prompt_id": self.prompt_id,
                },
            )
        self.executor.nodes_run += 1
        self.act("node", node_id)
        inputs = {}
        try:
            self.check_interrupt()
            inputs = self._inputs(node_id)
            result = self._call(node_id, inputs)
        except Interrupted:
            self._interrupted(node_id)
            return False
        except Exception as error:
            self._failed(node_id, inputs, error)
            return False
        if result.expand is not None:
            self._expand(node_id, result)
            return False
        self._keep(node_id, result.values, result.ui)
        return True

    def _repeat(self, node_id: str) -> bool:
        """A cached output is announced again, ui or not."""
        entry = self.done[node_id]
        self.tell_owner(
            "executed",
            {
                "node": node_id,
                "display_node": self.display(node_id),
                "output": entry.ui,
                "prompt_id": self.prompt_id,
            },
        )
        if entry.ui:
            self.shown[node_id] = entry
        self.progress.finish(node_id)
        return True

    def _inputs(self, node_id: str) -> dict:
        given, inputs = self.node(node_id)["inputs"], {}
        for name, _, _ in input_lists(self.cls(node_id), self.site):
            if name in given:
                value = given[name]
                if is_link(value):
                    value = self.done[value[0]].values[value[1]]
                inputs[name] = value
        return inputs

    def _call(self, node_id: str, inputs: dict) -> Result:
        blocked = next((value for value in inputs.values() if isinstance(value, Blocker)), None)
        if blocked is None:
            return self.cls(node_id)().run(Run(self, node_id), **inputs)
        if blocked.message is not None:
            self.tell(
                "execution_error",
                {
                    "prompt_id": self.prompt_id,
                    "node_id": self.place(node_id)["real_node_id"],
                    "node_type": self.node(node_id)["class_type"],
                    "executed": sorted(self.executed),
                    "exception_message": f"Execution Blocked: {blocked.message}",
                    "exception_type": "ExecutionBlocked",
                    "traceback": [],
                    "current_inputs": [],
                    "current_outputs": [],
                },
            )
        return Result(tuple(Blocker(None) for _ in self.cls(node_id).returns(self.site.age)))

    def _keep(self, node_id: str, values: tuple, ui: dict | None) -> None:
        entry = self.done[node_id] = Entry(values, ui or None, self.meta(node_id))
        if entry.ui:
            self.shown[node_id] = entry
            self.tell_owner(
                "executed",
                {
                    "node": node_id,
                    "display_node": self.display(node_id),
                    "output": ui,
                    "prompt_id": self.prompt_id,
                },
            )
        self.executed.add(node_id)
        self.progress.finish(node_id)
        self.act("executed", node_id)

    def _expand(self, node_id: str, result: Result) -> None:
        def renamed(local: str) -> str:
            return f"{node_id}.0.0.{local}"

        def relinked(value):
            local = is_link(value) and not isinstance(value, OuterLink)
            return [renamed(value[0]), value[1]] if local else value

        for local, node in result.expand.items():
            inputs = {name: relinked(value) for name, value in node["inputs"].items()}
            self.inner[renamed(local)] = Inner(
                {**node, "inputs": inputs}, node_id, self.display(node_id)
            )
        self.expanded[node_id] = Result(
            tuple(relinked(value) for value in result.values), result.ui
        )
        for value in self.expanded[node_id].values:
            if is_link(value):
                self.order.add_before(value[0], node_id)
        for local in result.expand:
            if self.cls(renamed(local)).output_node:
                self.order.add_before(renamed(local), node_id)

    def _resolve(self, node_id: str) -> bool:
        result = self.expanded.pop(node_id)
        values = tuple(self.done[v[0]].values[v[1]] if is_link(v) else v for v in result.values)
        self._keep(node_id, values, result.ui)
        self.done[node_id].inner = {
            name: entry
            for name, entry in self.shown.items()
            if name in self.inner and self.inner[name].parent == node_id
        }
        return True

    # Ends that are no success

    def _where(self, node_id: str) -> dict:
        return {
            "prompt_id": self.prompt_id,
            "node_id": self.place(node_id)["real_node_id"],
            "node_type": self.node(node_id)["class_type"],
            "executed": sorted(self.executed),
        }

    def _interrupted(self, node_id: str) -> None:
        self.outcome = "interrupted"
        log.info("Processing interrupted")
        self.message("execution_interrupted", self._where(node_id), broadcast=True)

    def _failed(self, node_id: str, inputs: dict, error: Exception) -> None:
        self.outcome = "error"
        log.error(f"!!! Exception during processing !!! {error}")
        log.exception()
        kind = type(error)
        name = (
            kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
        )
        self.message(
            "execution_error",
            {
                **self._where(node_id),
                "exception_message": f"{error}\n" if self.site.age.message_newline else str(error),
                "exception_type": name,
                "traceback": traceback.format_tb(sys.exc_info()[2]),
                "current_inputs": {name: [shown(value)] for name, value in inputs.items()},
                "current_outputs": [*self.graph, *self.inner],
            },
        )

    def _stuck(self, node_id: str) -> None:
        self.outcome = "error"
        self.message(
            "execution_error",
            {
                **self._where(node_id),
                "exception_message": "Dependency cycle detected",
                "exception_type": "graph.DependencyCycleError",
                "traceback": [],
                "current_inputs": [],
                "current_outputs": [],
            },
        )

    def result(self) -> dict:
        entries = dict(self.shown)
        if not self.hub.age.async_executor:
            for node_id in self.graph:
                if node_id in self.done:
                    entries.update({node_id: self.done[node_id], **self.done[node_id].inner})
        entries = {name: entry for name, entry in entries.items() if entry.ui}
        return {
            "outputs": {name: entry.ui for name, entry in entries.items()},
            "meta": {name: entry.meta for name, entry in entries.items()},
        }

    def cache(self) -> dict[str, Entry]:
        return {self.keys[n]: entry for n, entry in self.done.items() if n in self.keys}


def shown(value):
    return value if value is None or isinstance(value, (int, float, str)) else str(value)
