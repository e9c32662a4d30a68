"""What happened so far, for GET /standin/state. Facts only; nothing here changes what is
answered."""

import hashlib


class Journal:
    def __init__(self):
        self.forget()

    def forget(self) -> None:
        self.requests: dict[str, int] = {}
        self.bodies: list[bytes] = []
        self.prompts: list[dict] = []
        self.started: list[str] = []
        self.ended: dict[str, str] = {}
        self.interrupts: list[dict] = []
        self.deleted: list[str] = []
        self.cleared = 0
        self.uploads: list[dict] = []
        self.views: list[dict] = []

    def request(self, method: str, path: str) -> None:
        name = f"{method} {path}"
        self.requests[name] = self.requests.get(name, 0) + 1

    def prompt(self, body: bytes) -> dict:
        """The entry of one POST /prompt; its status and id are filled in when they are known."""
        self.bodies.append(body)
        entry = {
            "sha256": hashlib.sha256(body).hexdigest(),
            "bytes": len(body),
            "status": None,
            "prompt_id": None,
            "client_id": None,
        }
        self.prompts.append(entry)
        return entry

    def upload(self, name: str, subfolder: str, kind: str, content: bytes) -> None:
        self.uploads.append(
            {
                "name": name,
                "subfolder": subfolder,
                "type": kind,
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )

    def view(self, filename: str, subfolder: str, kind: str) -> dict:
        entry = {"filename": filename, "subfolder": subfolder, "type": kind, "bytes_sent": 0}
        self.views.append(entry)
        return entry
