"""Pictures without NumPy: what the nodes pass around as IMAGE, and what a "model" paints.

A painting is decided by seed and text alone, is quick (some 30 ms at 512 x 512) and pleasant enough
to be recognised at a glance: a two-tone sky, soft discs of light, waves, the text on a band.
"""

import colorsys
import io
import math
import random
import textwrap

from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps

PREVIEW_SIZE = 512
_gradient = Image.linear_gradient("L")
_disc = ImageOps.invert(Image.radial_gradient("L"))


class Images(list):
    """An IMAGE: a batch of pictures of one size. Its repr is what PyTorch would print of the
    tensor, since ComfyUI shows it in execution_error."""

    def __str__(self) -> str:
        return _tensor_text(self)


class Mask(list):
    """A MASK: a batch of greyscale pictures."""


def solid(width: int, height: int, batch: int, colour: int) -> Images:
    rgb = ((colour >> 16) & 255, (colour >> 8) & 255, colour & 255)
    return Images(Image.new("RGB", (width, height), rgb) for _ in range(batch))


def _shown(values: list) -> list:
    """Three at each end and an ellipsis, as PyTorch summarizes."""
    return values[:3] + [...] + values[-3:] if len(values) > 6 else values


def _tensor_text(images: Images) -> str:
    pages = []
    for image in images:
        pixels = image.convert("RGB").load()
        rows = []
        for y in _shown(list(range(image.height))):
            if y is ...:
                rows.append("...")
                continue
            cells = [
                "..." if x is ... else "[" + ", ".join(f"{c / 255:.4f}" for c in pixels[x, y]) + "]"
                for x in _shown(list(range(image.width)))
            ]
            rows.append("[" + ",\n          ".join(cells) + "]")
        pages.append("[" + ",\n\n         ".join(rows) + "]")
    return "tensor([" + ",\n\n\n        ".join(pages) + "])"


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue % 1, saturation, value))


def paint(width: int, height: int, seed: int, text: str, negative: str = "") -> Image.Image:
    dice = random.Random(f"{seed}\n{text}\n{negative}")
    hue = dice.random()
    sky = ImageOps.colorize(
        _gradient.rotate(dice.choice((0, 90, 180, 270))).resize((width, height), Image.BILINEAR),
        _colour(hue, 0.75, 0.18),
        _colour(hue + dice.uniform(0.08, 0.2), 0.55, 0.95),
        _colour(hue + dice.uniform(0.3, 0.6), 0.65, 0.6),
    )
    for _ in range(dice.randint(9, 16)):
        size = int(min(width, height) * dice.uniform(0.08, 0.45)) + 2
        mask = _disc.resize((size, size), Image.BILINEAR)
        mask = mask.point(lambda v, top=dice.randint(70, 200): max(0, v - 80) * top // 175)
        light = _colour(hue + dice.uniform(-0.1, 0.25), dice.uniform(0.1, 0.5), 1.0)
        spot = (
            dice.randint(-size // 2, width - size // 2),
            dice.randint(-size // 2, height - size // 2),
        )
        sky.paste(Image.new("RGB", (size, size), light), spot, mask)
    _waves(sky, dice, hue)
    if text.strip():
        _caption(sky, text)
    return sky


def _waves(picture: Image.Image, dice: random.Random, hue: float) -> None:
    width, height = picture.size
    for layer in range(4):
        base = height * (0.58 + 0.1 * layer)
        swing, length, phase = (
            height * dice.uniform(0.02, 0.07),
            dice.uniform(0.7, 2.2),
            dice.random() * 7,
        )
        edge = [
            (x, base + swing * math.sin(phase + length * math.tau * x / max(width, 1)))
            for x in range(0, width + 8, 8)
        ]
        mask = Image.new("L", picture.size, 0)
        ImageDraw.Draw(mask).polygon([(0, height), *edge, (width, height)], fill=150)
        shade = _colour(hue + 0.05 * layer, 0.8, 0.55 - 0.11 * layer)
        picture.paste(Image.new("RGB", picture.size, shade), (0, 0), mask)


def _caption(picture: Image.Image, text: str) -> None:
    width, height = picture.size
    scale = max(1, min(width, height) // 256)
    columns = max(4, (width // scale - 12) // 6)
    clean = text.encode("latin-1", "replace").decode("latin-1")
    lines = textwrap.wrap(clean, columns)[:3] or [""]
    band = Image.new("L", (max(width // scale, 1), 12 * len(lines) + 6), 0)
    draw, font = ImageDraw.Draw(band), ImageFont.load_default()
    for number, line in enumerate(lines):
        draw.text((6, 3 + 12 * number), line, fill=255, font=font)
    band = band.resize((width, band.height * scale), Image.NEAREST)
    top = height - band.height
    dark = picture.crop((0, top, width, height)).point(lambda v: v // 3)
    picture.paste(dark, (0, top))
    picture.paste(Image.new("RGB", band.size, (255, 255, 255)), (0, top), band)


def with_noise(picture: Image.Image, part: float) -> Image.Image:
    """The picture as it looks while it comes out of the noise; part is 0 (noise) to 1 (done)."""
    if part >= 1:
        return picture
    size = (max(picture.width // 4, 1), max(picture.height // 4, 1))
    noise = Image.merge("RGB", [Image.effect_noise(size, 90) for _ in range(3)])
    return Image.blend(noise.resize(picture.size, Image.NEAREST), picture, part)


def fold(picture: Image.Image) -> Image.Image:
    return ImageChops.invert(picture)


def preview(image: Image.Image, kind: str, limit: int | None = PREVIEW_SIZE) -> bytes:
    """Encoded as ComfyUI sends previews: fitted into 512 x 512, small ones made larger."""
    if limit:
        image = ImageOps.contain(image, (limit, limit), Image.BILINEAR)
    out = io.BytesIO()
    image.convert("RGB").save(out, kind, quality=95, compress_level=1)
    return out.getvalue()
