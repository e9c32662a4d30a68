"""All parts wired, and the routes of the queue: bare, under /api, and /standin for control."""

import asyncio
import json
import os
import time
import uuid

from aiohttp import web

import jobs
import log
from badhttp import BadHttp
from executor import Executor
from files import Files
from guard import guard
from hub import Hub
from info import Info
from journal import Journal
from misbehave import BadRule, Misbehaviour
from nodes import Site
from queueing import PromptQueue
from validation import judge, problem


class StandIn:
    """All parts of one ComfyUI, wired."""

    def __init__(
        self,
        site: Site,
        argv: list[str],
        max_upload: int,
        cors: bool,
        control: bool,
        misbehaviour: Misbehaviour,
    ):
        self.site, self.age = site, site.age
        self.misbehaviour, self.control = misbehaviour, control
        misbehaviour.stand_in = self
        self.journal = Journal()
        self.features = {
            "supports_preview_metadata": True,
            "supports_model_type_tags": True,
            "max_upload_size": max_upload,
            "extension": {"manager": {"supports_v4": True}},
            "node_replacements": True,
            "assets": False,
        }
        self.hub = Hub(self.age, misbehaviour, self.features)
        self.queue = PromptQueue(self.hub, self.journal)
        self.hub.status = self.status
        self.executor = Executor(self.hub, self.queue, site, misbehaviour, self.journal)
        self.files = Files(site, misbehaviour, self.journal)
        self.info = Info(site, argv, self.features)
        self.number = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.sites: list[web.TCPSite] = []
        bad = BadHttp(misbehaviour, self.journal)
        middlewares = [bad.middleware] + ([] if cors else [guard(self.age.fetch_site_guard)])
        self.app = web.Application(client_max_size=max_upload, middlewares=middlewares)
        self.app.on_response_prepare.append(self.dress)
        self.add_routes()

    def status(self) -> dict:
        return {"exec_info": {"queue_remaining": self.queue.remaining()}}

    def stop_listening(self) -> None:
        for listener in self.sites:
            listener._server.close()

    # Around every request

    async def dress(self, request: web.Request, answer: web.StreamResponse) -> None:
        """What the newer HTTP library does otherwise."""
        if self.age.bare_replies:
            empty = answer.status == 101 or (
                answer.headers.get("Content-Length") == "0"
                and getattr(answer, "body", None) is None
            )
            if empty:
                answer.headers.pop("Content-Type", None)
            answer._reason = {413: "Content Too Large", 416: "Range Not Satisfiable"}.get(
                answer.status, answer.reason
            )

    def add_routes(self) -> None:
        get, post = web.get, web.post
        routes = [
            get("/ws", self.hub.handle),
            get("/prompt", self.get_prompt),
            post("/prompt", self.post_prompt),
            get("/queue", self.get_queue),
            post("/queue", self.post_queue),
            post("/interrupt", self.post_interrupt),
            post("/free", self.post_free),
            get("/history", self.get_history),
            post("/history", self.post_history),
            get("/history/{prompt_id}", self.get_history_entry),
            get("/view", self.files.view),
            post("/upload/image", self.files.upload_image),
            post("/upload/mask", self.files.upload_mask),
        ]
        routes += self.info.routes()
        twins = [web.route(r.method, "/api" + r.path, r.handler) for r in routes]
        if self.age.jobs:
            twins += [
                get("/api/jobs", self.get_jobs),
                get("/api/jobs/{prompt_id}", self.get_job),
                post("/api/jobs/cancel", self.cancel_jobs),
                post("/api/jobs/{prompt_id}/cancel", self.cancel_job),
            ]
        if self.control:
            routes += [
                post("/standin/control", self.post_control),
                get("/standin/state", self.get_state),
                get("/standin/body/{number}", self.get_body),
            ]
        self.app.add_routes(
            routes
            + twins
            + [get("/", self.info.get_page), get("/{tail:.*}", self.info.get_unknown)]
        )

    # Prompts

    async def post_prompt(self, request: web.Request) -> web.Response:
        body = await request.read()
        entry = self.journal.prompt(body)
        await self.misbehaviour.act_async("prompt_received")
        try:
            answer = self.submit(json.loads(body.decode(request.charset or "utf-8")), entry)
        except Exception:
            entry["status"] = 500
            raise
        entry["status"] = answer.status
        if answer.status == 200:
            await self.misbehaviour.act_async("before_reply")
        return answer

    def submit(self, wanted, entry: dict) -> web.Response:
        """The order of steps is ComfyUI's, which decides what a bad field does to the counter."""
        log.info("got prompt")
        number = float(wanted["number"]) if "number" in wanted else self.number
        if "number" not in wanted:
            if "front" in wanted and wanted["front"]:
                number = -number
            self.number += 1
        if "prompt" not in wanted:
            return self.no_prompt()
        prompt_id = str(uuid.uuid4())
        if self.age.async_executor and wanted.get("prompt_id") is not None:
            prompt_id = wanted["prompt_id"]
            if not jobs.is_job_id(prompt_id):
                return self.bad_prompt_id()
        graph = wanted["prompt"]
        targets = wanted.get("partial_execution_targets") if self.age.partial_targets else None
        verdict = judge(self.age, graph, targets, self.site)
        extra_data = wanted.get("extra_data", {})
        if "client_id" in wanted:
            extra_data["client_id"] = wanted["client_id"]
        if verdict.error is not None:
            log.error(f"invalid prompt: {verdict.error}")
            return web.json_response(
                {"error": verdict.error, "node_errors": verdict.node_errors}, status=400
            )
        if self.age.create_time:
            extra_data["create_time"] = int(time.time() * 1000)
        entry["prompt_id"] = prompt_id
        entry["client_id"] = wanted.get("client_id")
        self.queue.put((number, prompt_id, graph, extra_data, verdict.outputs))
        return web.json_response(
            {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors}
        )

    def no_prompt(self) -> web.Response:
        if not self.age.uniform_errors:
            return web.json_response({"error": "no prompt", "node_errors": []}, status=400)
        error = problem("no_prompt", "No prompt provided", "No prompt provided")
        return web.json_response({"error": error, "node_errors": {}}, status=400)

    def bad_prompt_id(self) -> web.Response:
        error = problem(
            "invalid_prompt_id",
            "prompt_id must be a valid UUID",
            "prompt_id must be a UUID string in canonical lowercase hyphenated form; omit it to "
            "let the server generate one",
        )
        return web.json_response({"error": error, "node_errors": {}}, status=400)

    async def get_prompt(self, request: web.Request) -> web.Response:
        return web.json_response(self.status())

    async def get_queue(self, request: web.Request) -> web.Response:
        running, pending = self.queue.snapshot()
        return web.json_response({"queue_running": running, "queue_pending": pending})

    async def post_queue(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        if wanted.get("clear"):
            self.queue.clear()
        for prompt_id in wanted.get("delete", ()):
            self.queue.delete(prompt_id)
        return web.Response()

    def interrupt(self, prompt_id) -> None:
        running, _ = self.queue.snapshot()
        hit = bool(running) if prompt_id is None else any(item[1] == prompt_id for item in running)
        self.journal.interrupts.append({"prompt_id": prompt_id, "hit": hit})
        if hit or prompt_id is None:
            self.executor.interrupt.set()

    async def post_interrupt(self, request: web.Request) -> web.Response:
        prompt_id = None
        if self.age.interrupt_by_id:
            try:
                wanted = await request.json()
            except ValueError:
                wanted = {}
            prompt_id = wanted.get("prompt_id") or None
        self.interrupt(prompt_id)
        return web.Response()

    async def post_free(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        for name in ("unload_models", "free_memory"):
            if wanted.get(name):
                self.queue.set_flag(name)
        return web.Response()

    async def get_history(self, request: web.Request) -> web.Response:
        query = request.rel_url.query
        most = int(query["max_items"]) if "max_items" in query else None
        offset = int(query["offset"]) if "offset" in query and self.age.history_offset else -1
        return web.json_response(self.queue.entries(None, most, offset))

    async def get_history_entry(self, request: web.Request) -> web.Response:
        return web.json_response(self.queue.entries(request.match_info["prompt_id"]))

    async def post_history(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        if wanted.get("clear"):
            self.queue.clear_history()
        for prompt_id in wanted.get("delete", ()):
            self.queue.delete_history(prompt_id)
        return web.Response()

    # Jobs

    async def get_jobs(self, request: web.Request) -> web.Response:
        query = request.rel_url.query
        wanted = query["status"].split(",") if "status" in query else None
        if bad := jobs.bad_statuses(wanted or []):
            return web.json_response(
                {
                    "error": f"Invalid status value(s): {', '.join(bad)}. "
                    f"Valid values: {', '.join(jobs.STATUSES)}"
                },
                status=400,
            )
        limit = int(query["limit"]) if "limit" in query else None
        return web.json_response(jobs.page(self.queue, wanted, limit, int(query.get("offset", 0))))

    async def get_job(self, request: web.Request) -> web.Response:
        job = jobs.one(self.queue, request.match_info["prompt_id"])
        if job is None:
            return web.json_response({"error": "Job not found"}, status=404)
        return web.json_response(job)

    def cancel(self, prompt_id: str) -> bool:
        if self.queue.delete(prompt_id):
            return True
        if self.queue.is_running(prompt_id):
            self.interrupt(prompt_id)
            return True
        return False

    async def cancel_job(self, request: web.Request) -> web.Response:
        return web.json_response({"cancelled": self.cancel(request.match_info["prompt_id"])})

    async def cancel_jobs(self, request: web.Request) -> web.Response:
        wanted = (await request.json()).get("job_ids", [])
        if bad := [one for one in wanted if not jobs.is_job_id(one)]:
            return web.json_response(
                {"error": "job_ids contains invalid id(s)", "invalid_ids": bad}, status=400
            )
        return web.json_response({"cancelled": any([self.cancel(one) for one in wanted])})

    # Control

    async def post_control(self, request: web.Request) -> web.Response:
        try:
            wanted = await request.json()
            if isinstance(wanted, dict) and wanted.get("reset"):
                self.misbehaviour.reset()
                self.journal.forget()
            elif isinstance(wanted, dict) and "release" in wanted:
                self.misbehaviour.release(wanted["release"])
            elif isinstance(wanted, dict) and "replay" in wanted:
                self.number = wanted["replay"].get("number", self.number)
                self.executor.output_order = wanted["replay"].get("output_order", [])
            else:
                self.misbehaviour.add(wanted)
        except (BadRule, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"rules": len(self.misbehaviour.waiting())})

    async def get_state(self, request: web.Request) -> web.Response:
        journal, (running, pending) = self.journal, self.queue.snapshot()
        return web.json_response(
            {
                "age": self.age.version,
                "pid": os.getpid(),
                "requests": journal.requests,
                "prompts": journal.prompts,
                "started": journal.started,
                "ended": journal.ended,
                "nodes_run": self.executor.nodes_run,
                "interrupts": journal.interrupts,
                "deleted": journal.deleted,
                "cleared": journal.cleared,
                "uploads": journal.uploads,
                "views": journal.views,
                "ws": {
                    "open": len(self.hub.open),
                    "opened": self.hub.opened,
                    "sids": list(self.hub.sockets),
                },
                "queue": {
                    "running": [item[1] for item in running],
                    "pending": [item[1] for item in pending],
                },
                "flags": list(self.queue.flags),
                "worker_alive": self.executor.thread.is_alive(),
                "rules": self.misbehaviour.waiting(),
                "fired": self.misbehaviour.fired,
            }
        )

    async def get_body(self, request: web.Request) -> web.Response:
        number = request.match_info["number"]
        if not number.isdigit() or int(number) >= len(self.journal.bodies):
            return web.Response(status=404)
        return web.Response(body=self.journal.bodies[int(number)])
