"""Nodes for the integration tests: quick, slow, endless, huge, odd and deadly ones."""

import json
import math
import os
import signal
import struct
import time

import misbehave
from nodes import Node, Result, save_path
from nodes_lab import seed, write_wave

MIB = 1 << 20
# A PNG of one pixel. Every reader ignores what comes after its end, so any size is a valid file.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d4944415478da63fccfc0"
    "f01f0005050102a0d8d2b80000000049454e44ae426082"
)


class Trouble(Node):
    category, module = "standin", "custom_nodes.standin"
    output_node = True


def needs(**inputs):
    return {"required": inputs}


def number(default, most=1 << 40):
    return ["INT", {"default": default, "min": 0, "max": most}]


def string(default=""):
    return ["STRING", {"default": default}]


def write_blocks(path, size: int, head: bytes = b"") -> None:
    """Each MiB begins with its number, so that lost and swapped parts show."""
    path.parent.mkdir(parents=True, exist_ok=True)
    filler = bytes(range(256)) * (MIB // 256)
    with open(path, "wb") as out:
        out.write(head[:size])
        while (at := out.tell()) < size:
            block = struct.pack(">Q", at) + filler[8:]
            out.write(block[: min(MIB, size - at)])


class TestSleep(Trouble):
    @classmethod
    def inputs(cls, site):
        return needs(ms=number(100), seed=seed())

    def run(self, run, ms, seed):
        time.sleep(ms / 1000)
        return Result(ui={"text": ["slept"]})


class TestSteps(Trouble):
    @classmethod
    def inputs(cls, site):
        return needs(n=number(10), ms=number(10), seed=seed())

    def run(self, run, n, ms, seed):
        for step in range(n):
            time.sleep(ms / 1000)
            run.progress(step + 1, n, every=True)
        return Result(ui={"text": [f"{n} steps"]})


class TestHang(Trouble):
    @classmethod
    def inputs(cls, site):
        return needs(ms=number(10000))

    def run(self, run, ms):
        end = time.monotonic() + ms / 1000
        while time.monotonic() < end:
            time.sleep(0.01)
        return Result(ui={"text": ["back"]})


class TestRaise(Trouble):
    @classmethod
    def inputs(cls, site):
        return {**needs(message=string("as you wished")),
                "optional": {"kind": string("RuntimeError")}}

    def run(self, run, message, kind="RuntimeError"):
        raise type(kind, (RuntimeError,), {})(message)


class TestCrash(Trouble):
    @classmethod
    def inputs(cls, site):
        return needs(how=[["exit", "kill", "segv", "abort"], {}], code=number(3, 255))

    def run(self, run, how, code):
        if how == "exit":
            os._exit(code)
        os.kill(
            os.getpid(),
            {"kill": signal.SIGKILL, "segv": signal.SIGSEGV, "abort": signal.SIGABRT}[how],
        )
        time.sleep(10)


class TestKillWorker(Trouble):
    def run(self, run):
        raise misbehave.WorkerKilled("killed by a node")


class TestBigImage(Trouble):
    @classmethod
    def inputs(cls, site):
        return needs(bytes=number(64 * MIB), filename_prefix=string("big"))

    def run(self, run, bytes, filename_prefix):
        folder, base, subfolder, free = save_path(run.site.output_dir, filename_prefix)
        name = f"{base}_{free:05}_.png"
        write_blocks(folder / name, bytes, PIXEL)
        return Result(ui={"images": [{"filename": name, "subfolder": subfolder, "type": "output"}]})


class TestVideo(Trouble):
    @classmethod
    def inputs(cls, site):
        return needs(bytes=number(4096))

    def run(self, run, bytes):
        folder, base, _, free = save_path(run.site.output_dir, "video/clip")
        path = folder / f"{base}_{free:05}_.mp4"
        write_blocks(path, bytes, struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 512, b"isom"))
        return Result(
            ui={
                "gifs": [
                    {
                        "filename": path.name,
                        "subfolder": "video",
                        "type": "output",
                        "format": "video/h264-mp4",
                        "frame_rate": 24.0,
                        "fullpath": str(path),
                    }
                ]
            }
        )


class TestAudio(Trouble):
    @classmethod
    def inputs(cls, site):
        return needs(seconds=["FLOAT", {"default": 0.5, "min": 0.0, "max": 600.0}])

    def run(self, run, seconds):
        folder, base, _, free = save_path(run.site.output_dir, "audio/sound")
        name = f"{base}_{free:05}_.wav"
        write_wave(folder / name, seconds)
        return Result(ui={"audio": [{"filename": name, "subfolder": "audio", "type": "output"}]})


class TestText(Trouble):
    gives = ("STRING",)

    @classmethod
    def inputs(cls, site):
        return needs(text=string())

    def run(self, run, text):
        return Result((text,), ui={"text": [text]})


class TestMany(Trouble):
    @classmethod
    def inputs(cls, site):
        return needs(n=number(100, 100000), bytes=number(64))

    def run(self, run, n, bytes):
        folder, base, _, free = save_path(run.site.output_dir, "many/file")
        files = []
        for place in range(free, free + n):
            name = f"{base}_{place:05}_.bin"
            write_blocks(folder / name, bytes)
            files.append({"filename": name, "subfolder": "many", "type": "output"})
        return Result(ui={"files": files})


class TestBlocked(Trouble):
    @classmethod
    def inputs(cls, site):
        return needs(message=string("not this time"))

    def run(self, run, message):
        size = {"width": 16, "height": 16, "batch_size": 1, "color": 0}
        return Result(
            expand={
                "1": {"class_type": "EmptyImage", "inputs": size},
                "2": {"class_type": "LabBlock", "inputs": {"image": ["1", 0], "message": message}},
                "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
            }
        )


class TestExpand(Trouble):
    @classmethod
    def inputs(cls, site):
        return needs(n=number(3, 1000), ms=number(10))

    def run(self, run, n, ms):
        graph = {
            "0": {
                "class_type": "EmptyImage",
                "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 0x336699},
            }
        }
        for place in range(1, n + 1):
            graph[str(place)] = {
                "class_type": "LabSlowSampler",
                "inputs": {
                    "image": [str(place - 1), 0],
                    "steps": 2,
                    "delay": ms / 1000,
                    "preview": "none",
                    "seed": place,
                    "size": 32,
                },
            }
        graph["preview"] = {"class_type": "PreviewImage", "inputs": {"images": [str(n), 0]}}
        return Result(expand=graph)


class TestNaN(Trouble):
    @classmethod
    def inputs(cls, site):
        return needs(seed=seed())

    def run(self, run, seed):
        return Result(ui={"value": [math.nan, math.inf, -math.inf, 1.5]})


class TestSurrogate(Trouble):
    def run(self, run):
        return Result(ui={"text": ["\ud800", "\udfff\ud800", "a\u0000b"], "value": [10**400]})


class TestBadUI(Trouble):
    def run(self, run):
        return Result(ui={"value": [object()]})


class TestUnknownFrames(Trouble):
    @classmethod
    def inputs(cls, site):
        return needs(text=string("hello"))

    def run(self, run, text):
        run.send("standin.targeted", {"node": run.node_id, "text": text})
        run.send("standin.broadcast", [text, None, 1.5], to_all=True)
        run.send("standin.null", None)
        run.send_bytes(99, text.encode())
        run.send_bytes(3, struct.pack(">I", 1) + run.node_id[:1].encode() + text.encode())
        for raw in (
            b"",
            b"\x00\x00\x00",
            struct.pack(">II", 1, 2),
            struct.pack(">I", 3) + b"\xff" * 4,
        ):
            run.send_raw(raw)
        run.send_bytes(1, struct.pack(">I", 2) + b"\x00" * MIB)
        return Result(ui={"text": [text]})


class TestFlood(Trouble):
    @classmethod
    def inputs(cls, site):
        return {**needs(n=number(1000), bytes=number(65536)), "optional": {"ms": number(0)}}

    def run(self, run, n, bytes, ms=0):
        frame = struct.pack(">I", 1) + b"\xff\xd8\xff\xe0" + b"\x00" * max(bytes - 4, 0)
        for _ in range(n):
            run.send_bytes(1, frame)
            time.sleep(ms / 1000)
        return Result(ui={"text": [f"{n} frames"]})


class TestEcho(Trouble):
    @classmethod
    def inputs(cls, site):
        return needs(value=["*", {}])

    def run(self, run, value):
        folder, base, _, free = save_path(run.site.output_dir, "echo/value")
        name = f"{base}_{free:05}_.json"
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
        return Result(
            ui={
                "echo": [value],
                "files": [{"filename": name, "subfolder": "echo", "type": "output"}],
            }
        )


class TestOutputs(Trouble):
    @classmethod
    def inputs(cls, site):
        return needs(json=string("{}"))

    def run(self, run, **inputs):
        return Result(ui=json.loads(inputs["json"]))
