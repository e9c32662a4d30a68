"""The small nodes that were written for the recordings, as far as the recordings show them."""

import math
import os
import struct
import time
import wave

from nodes import Blocker, Node, Result
from pictures import paint


class Lab(Node):
    category, module = "lab", "custom_nodes.lab_nodes"


def on_image(**more):
    return {"required": {"image": ["IMAGE", {}], **more}}


def seed():
    return ["INT", {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF}]


def write_wave(path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", "NONE"))
        out.writeframes(
            b"".join(
                struct.pack("<h", round(8000 * math.sin(i / 3))) for i in range(int(8000 * seconds))
            )
        )


class LabSlowSampler(Lab):
    gives = ("IMAGE",)

    @classmethod
    def inputs(cls, site):
        return on_image(
            steps=["INT", {"default": 5, "min": 1, "max": 10000}],
            delay=["FLOAT", {"default": 0.1, "min": 0.0, "max": 60.0}],
            preview=[["none", "JPEG", "PNG"], {}],
            seed=seed(),
            size=["INT", {"default": 64, "min": 1, "max": 4096}],
        )

    def run(self, run, image, steps, delay, preview, seed, size):
        shown = paint(size, size, seed, "") if preview != "none" else None
        for step in range(steps):
            time.sleep(delay)
            run.progress(step + 1, steps, shown, kind=preview)
        return Result((image,))


class LabSleep(Lab):
    gives = ("IMAGE",)

    @classmethod
    def inputs(cls, site):
        return on_image(seconds=["FLOAT", {"default": 1.0, "min": 0.0, "max": 600.0}], seed=seed())

    def run(self, run, image, seconds, seed):
        time.sleep(seconds)
        return Result((image,))


class LabFail(Lab):
    gives = ("IMAGE",)

    @classmethod
    def inputs(cls, site):
        return on_image(message=["STRING", {"default": "boom"}])

    def run(self, run, image, message):
        raise ValueError(message)


class LabSilentOutput(Lab):
    output_node = True

    @classmethod
    def inputs(cls, site):
        return on_image()

    def run(self, run, image):
        return Result()


class LabText(Lab):
    output_node = True
    gives = ("STRING",)

    @classmethod
    def inputs(cls, site):
        return {"required": {"text": ["STRING", {"default": ""}]}}

    def run(self, run, text):
        return Result((text,), ui={"text": [text]})


class LabGifs(Lab):
    output_node = True

    @classmethod
    def inputs(cls, site):
        return on_image()

    def run(self, run, image):
        path = run.site.output_dir / "anim" / "lab_00001.gif"
        path.parent.mkdir(parents=True, exist_ok=True)
        image[0].save(path, save_all=True, append_images=image[1:], duration=100, loop=0)
        return Result(
            ui={
                "gifs": [
                    {
                        "filename": path.name,
                        "subfolder": "anim",
                        "type": "output",
                        "format": "image/gif",
                        "frame_rate": 10.0,
                        "fullpath": str(path),
                    }
                ]
            }
        )


class LabAudio(Lab):
    output_node = True

    @classmethod
    def inputs(cls, site):
        return {"required": {"seconds": ["FLOAT", {"default": 0.2}]}}

    def run(self, run, seconds):
        write_wave(run.site.output_dir / "audio" / "lab_00001.wav", seconds)
        return Result(
            ui={"audio": [{"filename": "lab_00001.wav", "subfolder": "audio", "type": "output"}]}
        )


class Lab3D(Lab):
    output_node = True

    @classmethod
    def inputs(cls, site):
        return {"required": {"name": ["STRING", {"default": "cube"}]}}

    def run(self, run, name):
        folder = run.site.output_dir / "mesh"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.glb").write_bytes(struct.pack("<4sII", b"glTF", 2, 12))
        return Result(
            ui={"3d": [{"filename": f"{name}.glb", "subfolder": "mesh", "type": "output"}]}
        )


class LabHtml(Lab):
    output_node = True

    @classmethod
    def inputs(cls, site):
        return {"required": {"text": ["STRING", {"default": ""}]}}

    def run(self, run, text):
        files = []
        for suffix in ("html", "svg", "txt", "json", "bin", "mp4", "webm"):
            (run.site.output_dir / f"lab.{suffix}").write_text(text, encoding="utf-8")
            files.append({"filename": f"lab.{suffix}", "subfolder": "", "type": "output"})
        return Result(ui={"files": files})


class LabExpand(Lab):
    gives = ("IMAGE",)

    @classmethod
    def inputs(cls, site):
        return on_image(steps=["INT", {"default": 2, "min": 1, "max": 100}])

    def run(self, run, image, steps):
        sampler = {
            "image": run.link("image"),
            "steps": steps,
            "delay": 0.05,
            "preview": "none",
            "seed": 0,
            "size": 64,
        }
        graph = {
            "1": {"class_type": "LabSlowSampler", "inputs": sampler},
            "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
            "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
        }
        return Result((["2", 0],), expand=graph)


class LabBlock(Lab):
    gives = ("IMAGE",)

    @classmethod
    def inputs(cls, site):
        return on_image(message=["STRING", {"default": ""}])

    def run(self, run, image, message):
        return Result((Blocker(message or None),))


class LabNaN(Lab):
    output_node = True

    @classmethod
    def inputs(cls, site):
        return {"required": {"seed": seed()}}

    def run(self, run, seed):
        return Result(ui={"value": [math.nan, math.inf, -math.inf]})


class LabProgressText(Lab):
    output_node = True

    @classmethod
    def inputs(cls, site):
        return {
            "required": {"text": ["STRING", {"default": ""}]},
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    def run(self, run, text):
        if run.site.age.async_executor:
            name = run.node_id.encode()
            run.send_bytes(3, struct.pack(">I", len(name)) + name + text.encode())
        run.send("lab.custom_event", {"node": run.node_id, "text": text})
        run.send("lab.broadcast", {"text": text}, to_all=True)
        return Result(ui={"text": [text]})


class LabAlways(Lab):
    gives = ("IMAGE",)

    @classmethod
    def inputs(cls, site):
        return on_image()

    @classmethod
    def fingerprint(cls, site, inputs):
        return math.nan

    def run(self, run, image):
        return Result((image,))


class LabValidate(Lab):
    gives = ("IMAGE",)
    checked = ("n",)

    @classmethod
    def inputs(cls, site):
        return on_image(n=["INT", {"default": 1}])

    @classmethod
    def check(cls, site, name, value):
        return "n is too large" if value > 100 else True

    def run(self, run, image, n):
        return Result((image,))


class LabBadUI(Lab):
    output_node = True

    @classmethod
    def inputs(cls, site):
        return {"required": {"seed": seed()}}

    def run(self, run, seed):
        return Result(ui={"value": [object()]})


class LabExit(Lab):
    output_node = True

    @classmethod
    def inputs(cls, site):
        return {"required": {"code": ["INT", {"default": 1}]}}

    def run(self, run, code):
        time.sleep(0.05)  # for what was sent before to leave, as in the recording
        os._exit(code)
