"""Links, cache keys and the order of nodes: what can be said of a graph without running it."""

import hashlib
import json
import time

from nodes import CLASSES, Site


class OuterLink(list):
    """A link of an expansion's graph to a node outside of it, whatever the local ids are."""


def is_link(value) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], (int, float))
    )


def cache_keys(graph: dict, site: Site) -> dict[str, str]:
    """One key a node: its class, inputs and ancestors. Raises on a node without `inputs`, anywhere
    in the graph: the poisoned prompt that kills ComfyUI's worker. A cycle, which only nodes can
    form that no output depends on, is cut where it is met."""
    own, keys = {}, {}
    for node_id, node in graph.items():
        inputs, cls = node["inputs"], CLASSES.get(node["class_type"])
        mark = cls.fingerprint(site, inputs) if cls else None
        if mark != mark:
            mark = f"unique {node_id} {time.perf_counter_ns()}"
        own[node_id] = [node["class_type"], mark, node_id if wants_id(cls, site) else None]
    for node_id in graph:
        todo, entered = [node_id], set()
        while todo:
            one = todo[-1]
            sources = [v[0] for v in graph[one]["inputs"].values() if is_link(v) and v[0] in graph]
            missing = [s for s in sources if s not in keys and s not in entered]
            if one not in entered and missing:
                entered.add(one)
                todo += missing
                continue
            todo.pop()
            if one not in keys:
                keys[one] = _key(own[one], graph[one]["inputs"], keys)
    return keys


def _key(own: list, inputs: dict, keys: dict) -> str:
    parts = [own]
    for name, value in sorted(inputs.items()):
        linked = is_link(value)
        parts.append(
            [
                name,
                keys.get(value[0], "cut") if linked else "literal",
                value[1] if linked else repr(value),
            ]
        )
    return hashlib.sha256(json.dumps(parts, default=repr).encode()).hexdigest()


def wants_id(cls, site: Site) -> bool:
    return cls is not None and "UNIQUE_ID" in cls.inputs(site).get("hidden", {}).values()


class Order:
    """Which node is next."""

    def __init__(self, run: "PromptRun"):
        self.run = run
        self.waits: dict[str, int] = {}  # pending node -> how many it waits for, in order of coming
        self.blocks: dict[str, dict[str, None]] = {}  # node -> the pending ones that wait for it

    def add(self, node_id: str) -> None:
        todo = [node_id]
        while todo:
            one = todo.pop()
            if one in self.waits:
                continue
            self.waits[one] = 0
            if one in self.run.done:
                continue
            for source in self.run.sources(one):
                if source not in self.run.done:
                    self._block(source, one)
                    todo.append(source)

    def _block(self, earlier: str, later: str) -> None:
        blocked = self.blocks.setdefault(earlier, {})
        if later not in blocked:
            blocked[later] = None
            self.waits[later] += 1

    def add_before(self, earlier: str, later: str) -> None:
        if earlier not in self.run.done:
            self._block(earlier, later)
            self.add(earlier)

    def finish(self, node_id: str) -> None:
        del self.waits[node_id]
        for later in self.blocks.pop(node_id, {}):
            self.waits[later] -= 1

    def next(self) -> str | None:
        ready = [one for one, count in self.waits.items() if count == 0]
        for distance in range(3):
            for one in ready:
                if self._leads_to_output(one, distance):
                    return one
        return ready[0] if ready else None

    def _leads_to_output(self, node_id: str, distance: int) -> bool:
        if distance == 0:
            return self.run.cls(node_id).output_node
        return any(
            self._leads_to_output(later, distance - 1) for later in self.blocks.get(node_id, {})
        )
