"""The stock classes that an ordinary text-to-image graph uses, with the real ones' inputs and
limits."""

import hashlib
import io
import math
import random
import time

from PIL import Image, ImageChops, ImageOps

import pictures
from nodes import CLASSES, Node, Result, find_input, list_files, save_images, save_path
from pictures import Images, Mask

MAX_SEED = 0xFFFFFFFFFFFFFFFF
MAX_SIZE = 16384
SAMPLERS = [
    "euler",
    "euler_ancestral",
    "heun",
    "dpm_2",
    "lms",
    "dpmpp_2m",
    "dpmpp_sde",
    "ddim",
    "uni_pc",
]
SCHEDULERS = ["normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta"]
SCALERS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
FILTERS = {
    "bilinear": Image.BILINEAR,
    "area": Image.BOX,
    "bicubic": Image.BICUBIC,
    "lanczos": Image.LANCZOS,
}


class CheckpointLoaderSimple(Node):
    gives = ("MODEL", "CLIP", "VAE")
    category, display_name = "loaders", "Load Checkpoint"
    models = [
        "standin.safetensors",
        "v1-5-pruned-emaonly.safetensors",
        "sd_xl_base_1.0.safetensors",
    ]

    @classmethod
    def inputs(cls, site):
        return {
            "required": {
                "ckpt_name": [
                    cls.models,
                    {"tooltip": "The name of the checkpoint (model) to load."},
                ]
            }
        }

    def run(self, run, ckpt_name):
        return Result((ckpt_name, ckpt_name, ckpt_name))


class CLIPTextEncode(Node):
    gives = ("CONDITIONING",)
    category, display_name = "conditioning", "CLIP Text Encode (Prompt)"

    @classmethod
    def inputs(cls, site):
        return {
            "required": {
                "text": [
                    "STRING",
                    {
                        "multiline": True,
                        "dynamicPrompts": True,
                        "tooltip": "The text to be encoded.",
                    },
                ],
                "clip": ["CLIP", {"tooltip": "The CLIP model used for encoding the text."}],
            }
        }

    def run(self, run, text, clip):
        return Result((text,))


class EmptyLatentImage(Node):
    gives = ("LATENT",)
    category, display_name = "latent", "Empty Latent Image"

    @classmethod
    def inputs(cls, site):
        size = {"default": 512, "min": 16, "max": MAX_SIZE, "step": 8}
        return {
            "required": {
                "width": ["INT", {**size, "tooltip": "The width of the latent images in pixels."}],
                "height": [
                    "INT",
                    {**size, "tooltip": "The height of the latent images in pixels."},
                ],
                "batch_size": [
                    "INT",
                    {
                        "default": 1,
                        "min": 1,
                        "max": 4096,
                        "tooltip": "The number of latent images in the batch.",
                    },
                ],
            }
        }

    def run(self, run, width, height, batch_size):
        return Result(
            ({"size": (width // 8 * 8, height // 8 * 8), "batch": batch_size, "images": None},)
        )


class KSampler(Node):
    gives = ("LATENT",)
    category = "sampling"

    @classmethod
    def inputs(cls, site):
        seed = {"default": 0, "min": 0, "max": MAX_SEED}
        if site.age.uniform_errors:
            seed["control_after_generate"] = True
        seed["tooltip"] = "The random seed used for creating the noise."
        return {
            "required": {
                "model": ["MODEL", {"tooltip": "The model used for denoising the input latent."}],
                "seed": ["INT", seed],
                "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
                "cfg": [
                    "FLOAT",
                    {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01},
                ],
                "sampler_name": [SAMPLERS, {}],
                "scheduler": [SCHEDULERS, {}],
                "positive": ["CONDITIONING", {}],
                "negative": ["CONDITIONING", {}],
                "latent_image": ["LATENT", {}],
                "denoise": ["FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}],
            }
        }

    def run(self, run, seed, steps, positive, negative, latent_image, denoise=1.0, **rest):
        width, height = latent_image["size"]
        small = (
            pictures.paint(max(width // 8, 1), max(height // 8, 1), seed, "")
            if run.site.live_previews
            else None
        )
        for step in range(steps):
            time.sleep(run.site.step_seconds)
            image = pictures.with_noise(small, (step + 1) / steps) if small else None
            run.progress(step + 1, steps, image)
        painted = Images(
            pictures.paint(width, height, seed + n, positive, negative)
            for n in range(latent_image["batch"])
        )
        if latent_image["images"] and denoise < 1:
            painted = Images(
                Image.blend(old, new, denoise) for old, new in zip(latent_image["images"], painted)
            )
        return Result(({**latent_image, "images": painted},))


class VAEDecode(Node):
    gives = ("IMAGE",)
    category, display_name = "latent", "VAE Decode"

    @classmethod
    def inputs(cls, site):
        return {
            "required": {
                "samples": ["LATENT", {"tooltip": "The latent to be decoded."}],
                "vae": ["VAE", {"tooltip": "The VAE model used for decoding the latent."}],
            }
        }

    def run(self, run, samples, vae):
        width, height = samples["size"]
        return Result(
            (samples["images"] or pictures.solid(width, height, samples["batch"], 0x7F7F7F),)
        )


class VAEEncode(Node):
    gives = ("LATENT",)
    category, display_name = "latent", "VAE Encode"

    @classmethod
    def inputs(cls, site):
        return {"required": {"pixels": ["IMAGE", {}], "vae": ["VAE", {}]}}

    def run(self, run, pixels, vae):
        return Result(({"size": pixels[0].size, "batch": len(pixels), "images": pixels},))


class SaveImage(Node):
    output_node = True
    gives, gives_since_new = (), ("IMAGE",)
    display_name = "Save Image"
    description = "Saves the input images to your ComfyUI output directory."
    aliases = ["save", "save image", "export image", "output image", "write image", "download"]
    essentials = "Basics"

    @classmethod
    def inputs(cls, site):
        return {
            "required": {
                "images": ["IMAGE", {"tooltip": "The images to save."}],
                "filename_prefix": [
                    "STRING",
                    {
                        "default": "ComfyUI",
                        "tooltip": "The prefix for the file to save. This may include formatting "
                        "information such as %date:yyyy-MM-dd% or %Empty Latent Image.width% to "
                        "include values from nodes.",
                    },
                ],
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def run(self, run, images, filename_prefix="ComfyUI"):
        saved = save_images(run, images, run.site.output_dir, "output", filename_prefix, 4)
        return Result((images,), ui={"images": saved})


class PreviewImage(Node):
    output_node = True
    gives, gives_since_new = (), ("IMAGE",)
    display_name = "Preview Image"

    @classmethod
    def inputs(cls, site):
        return {
            "required": {"images": ["IMAGE", {}]},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def run(self, run, images):
        tail = "".join(random.choice("abcdefghijklmnopqrstupvxyz") for _ in range(5))
        saved = save_images(run, images, run.site.temp_dir, "temp", "ComfyUI_temp_" + tail, 1)
        return Result((images,), ui={"images": saved})


class FromFile(Node):
    """What LoadImage and LoadImageMask share; no class of its own in ComfyUI."""

    checked = ("image",)

    @classmethod
    def names(cls, site):
        return [
            "image",
            [list_files(site.input_dir, site.age.uniform_errors), {"image_upload": True}],
        ]

    @classmethod
    def check(cls, site, name, value):
        try:
            if find_input(site, value).is_file():
                return True
        except ValueError:
            pass
        return f"Invalid image file: {value}"

    @classmethod
    def fingerprint(cls, site, inputs):
        try:
            return hashlib.sha256(find_input(site, inputs["image"]).read_bytes()).hexdigest()
        except OSError:
            return math.nan


del CLASSES["FromFile"]


class LoadImage(FromFile):
    gives = ("IMAGE", "MASK")
    display_name = "Load Image"
    aliases = [
        "load image",
        "open image",
        "import image",
        "image input",
        "upload image",
        "read image",
        "image loader",
    ]
    essentials = "Basics"

    @classmethod
    def inputs(cls, site):
        return {"required": dict([cls.names(site)])}

    def run(self, run, image):
        picture = ImageOps.exif_transpose(Image.open(find_input(run.site, image)))
        if "A" in picture.getbands():
            mask = ImageOps.invert(picture.getchannel("A"))
        else:
            mask = Image.new("L", (64, 64), 0)
        return Result((Images([picture.convert("RGB")]), Mask([mask])))


class LoadImageMask(FromFile):
    gives = ("MASK",)
    category, display_name = "mask", "Load Image (as Mask)"

    @classmethod
    def inputs(cls, site):
        return {
            "required": {
                **dict([cls.names(site)]),
                "channel": [["alpha", "red", "green", "blue"], {}],
            }
        }

    def run(self, run, image, channel):
        picture = Image.open(find_input(run.site, image)).convert("RGBA")
        mask = picture.getchannel({"alpha": "A", "red": "R", "green": "G", "blue": "B"}[channel])
        return Result((Mask([ImageOps.invert(mask) if channel == "alpha" else mask]),))


class EmptyImage(Node):
    gives = ("IMAGE",)

    @classmethod
    def inputs(cls, site):
        return {
            "required": {
                "width": ["INT", {"default": 512, "min": 1, "max": MAX_SIZE, "step": 1}],
                "height": ["INT", {"default": 512, "min": 1, "max": MAX_SIZE, "step": 1}],
                "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
                "color": [
                    "INT",
                    {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"},
                ],
            }
        }

    def run(self, run, width, height, batch_size, color):
        return Result((pictures.solid(width, height, batch_size, color),))


class ImageScale(Node):
    gives = ("IMAGE",)
    category, display_name = "image/upscaling", "Upscale Image"

    @classmethod
    def inputs(cls, site):
        size = {"default": 512, "min": 0, "max": MAX_SIZE, "step": 1}
        return {
            "required": {
                "image": ["IMAGE", {}],
                "upscale_method": [SCALERS, {}],
                "width": ["INT", size],
                "height": ["INT", size],
                "crop": [["disabled", "center"], {}],
            }
        }

    def run(self, run, image, upscale_method, width, height, crop):
        old = image[0]
        if not width and not height:
            return Result((image,))
        width = width or max(1, round(old.width * height / old.height))
        height = height or max(1, round(old.height * width / old.width))
        how = FILTERS.get(upscale_method, Image.NEAREST)
        scale = (
            (lambda one: ImageOps.fit(one, (width, height), how))
            if crop == "center"
            else (lambda one: one.resize((width, height), how))
        )
        return Result((Images(scale(one) for one in image),))


class ImageInvert(Node):
    gives = ("IMAGE",)
    display_name = "Invert Image"

    @classmethod
    def inputs(cls, site):
        return {"required": {"image": ["IMAGE", {}]}}

    def run(self, run, image):
        return Result((Images(ImageChops.invert(one) for one in image),))


class ImageBatch(Node):
    gives = ("IMAGE",)
    display_name = "Batch Images"

    @classmethod
    def inputs(cls, site):
        return {"required": {"image1": ["IMAGE", {}], "image2": ["IMAGE", {}]}}

    def run(self, run, image1, image2):
        size = image1[0].size
        return Result((Images([*image1, *(one.resize(size) for one in image2)]),))


class SaveAnimatedWEBP(Node):
    output_node = True
    category = "image/animation"

    @classmethod
    def inputs(cls, site):
        return {
            "required": {
                "images": ["IMAGE", {}],
                "filename_prefix": ["STRING", {"default": "ComfyUI"}],
                "fps": ["FLOAT", {"default": 6.0, "min": 0.01, "max": 1000.0, "step": 0.01}],
                "lossless": ["BOOLEAN", {"default": True}],
                "quality": ["INT", {"default": 80, "min": 0, "max": 100}],
                "method": [["default", "fastest", "slowest"], {}],
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def run(self, run, images, filename_prefix, fps, lossless, quality, method):
        target, base, subfolder, number = save_path(run.site.output_dir, filename_prefix)
        name = f"{base}_{number:05}_.webp"
        out = io.BytesIO()
        images[0].save(
            out,
            "WEBP",
            save_all=True,
            duration=int(1000 / fps),
            append_images=images[1:],
            lossless=lossless,
            quality=quality,
        )
        (target / name).write_bytes(out.getvalue())
        file = {"filename": name, "subfolder": subfolder, "type": "output"}
        return Result(ui={"images": [file], "animated": [True]})


class SaveImageWebsocket(Node):
    """Its results are PNG preview frames and nothing else."""

    output_node = True
    category = "api/image"

    @classmethod
    def inputs(cls, site):
        return {"required": {"images": ["IMAGE", {}]}}

    @classmethod
    def fingerprint(cls, site, inputs):
        return time.time()

    def run(self, run, images):
        for number, image in enumerate(images):
            run.progress(number, len(images), image, kind="PNG", limit=None)
        return Result()
