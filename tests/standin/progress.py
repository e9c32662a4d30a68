"""What a running node is given of the world, and how its progress is told in each age."""

import json
import struct
import time

import pictures
from graphs import OuterLink
from hub import PREVIEW, PREVIEW_WITH_METADATA

# The newer age drops progress that comes faster, except the first and the last.
THROTTLE_SECONDS = 0.1


class ProgressState:
    """The newer age's table of all nodes touched so far; each change sends all of it."""

    def __init__(self, run: "PromptRun"):
        self.run = run
        self.nodes: dict[str, dict] = {}

    def _entry(self, node_id: str, value, most) -> dict:
        place = self.run.place(node_id)
        return self.nodes.setdefault(
            node_id,
            {
                "value": value,
                "max": most,
                "state": "running",
                "node_id": node_id,
                "prompt_id": self.run.prompt_id,
                **place,
            },
        )

    def _send(self) -> None:
        if self.run.hub.age.async_executor:
            nodes = {name: dict(entry) for name, entry in self.nodes.items()}
            self.run.tell("progress_state", {"prompt_id": self.run.prompt_id, "nodes": nodes})

    def start(self, node_id: str) -> None:
        self._entry(node_id, 0.0, 1.0)
        self._send()

    def step(self, node_id: str, value, most) -> None:
        self._entry(node_id, value, most).update(value=value, max=most)
        self._send()

    def finish(self, node_id: str) -> None:
        entry = self._entry(node_id, 1, 1)
        entry.update(value=entry["max"], state="finished")
        self._send()


class Run:
    """What a node is given of the world while it runs."""

    def __init__(self, prompt: "PromptRun", node_id: str):
        self._prompt, self.node_id = prompt, node_id
        self.site, self.graph, self.extra_data = prompt.site, prompt.graph, prompt.extra_data
        self._last_sent = None

    def link(self, name: str) -> OuterLink:
        """The link behind an input, for use in an expansion."""
        return OuterLink(self._prompt.node(self.node_id)["inputs"][name])

    def check(self) -> None:
        self._prompt.check_interrupt()

    def send(self, kind: str, data, to_all: bool = False) -> None:
        self._prompt.hub.send(kind, data, None if to_all else self._prompt.hub.client_id)

    def send_bytes(self, event: int, payload: bytes) -> None:
        self._prompt.hub.send_bytes(event, payload, self._prompt.hub.client_id)

    def send_raw(self, payload: bytes) -> None:
        self.send("binary", payload)

    def progress(
        self,
        value,
        most,
        image=None,
        kind: str = "JPEG",
        limit: int | None = pictures.PREVIEW_SIZE,
        every: bool = False,
    ) -> None:
        prompt, new = self._prompt, self._prompt.hub.age.async_executor
        self.check()
        now = time.monotonic()
        if (
            new
            and not every
            and image is None
            and value < most
            and self._last_sent is not None
            and now - self._last_sent < THROTTLE_SECONDS
        ):
            return
        self._last_sent = now
        prompt.act("progress", self.node_id, value=value)
        self.check()
        if new:
            prompt.progress.step(self.node_id, value, most)
            metadata = image is not None and prompt.hub.wants_metadata()
            if metadata:
                self._preview_with_metadata(pictures.preview(image, kind, limit), kind)
        node = self.node_id if new else prompt.hub.last_node_id
        prompt.tell(
            "progress", {"value": value, "max": most, "prompt_id": prompt.prompt_id, "node": node}
        )
        if image is not None and not (new and metadata):
            head = struct.pack(">I", 1 if kind == "JPEG" else 2)
            self.send_bytes(PREVIEW, head + pictures.preview(image, kind, limit))

    def _preview_with_metadata(self, encoded: bytes, kind: str) -> None:
        facts = {
            "node_id": self.node_id,
            "prompt_id": self._prompt.prompt_id,
            **self._prompt.place(self.node_id),
            "image_type": f"image/{kind.lower()}",
        }
        text = json.dumps(facts).encode()
        self.send_bytes(PREVIEW_WITH_METADATA, struct.pack(">I", len(text)) + text + encoded)
