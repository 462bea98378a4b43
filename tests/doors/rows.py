"""The rows of the table: situations in which doors have given different answers, and what each door says in them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from asked import Asked, Shot, saved, shot, texture, textures
from conftest import TINY, shallow
from PIL import Image
from torchvision.transforms import v2

from anomalib_clipad.images.files import on_white

EQUAL = "="
RATE = 0.2
DOORS = (
    "Engine",
    "Inspector",
    "inspect",
    "Ray",
    "checkpoint",
    ".onnx",
    ".xml",
    ".pt",
    "product",
    "product of a graph",
    "page",
    "playground",
)


@dataclass(frozen=True)
class Row:
    """A situation.

    Attributes:
        number: Of the kind of fault.
        what: The situation, in words.
        asked: What is asked.
        refused: What doors say that refuse, in words that are part of it; all others give one answer.
        right: What is right, in place of ``asked``, where a door is asked in a way of its own.
        images: Of all that are asked about, those of this row; by default all.
    """

    number: int
    what: str
    asked: Callable[[], Asked]
    refused: Mapping[str, str] = field(default_factory=dict)
    right: Callable[[], Asked] | None = None
    images: str = ""


def all_but(*doors: str) -> tuple[str, ...]:
    """The other doors."""
    return tuple(door for door in DOORS if door not in doors)


def each(sentence: str, doors: tuple[str, ...] = DOORS, **others: str) -> dict[str, str]:
    """One sentence at several doors, and others by the doors' names with an underscore for what is no letter."""
    names = {door.replace(" ", "_").replace(".", ""): door for door in DOORS}
    return dict.fromkeys(doors, sentence) | {names[name]: other for name, other in others.items()}


FILES = (".onnx", ".xml", ".pt")
COMMANDS = ("inspect", "Ray", "page")
NO_CALIBRATION = {"playground": "Unrecognized arguments: --calibration"}
REFERENCES, CALIBRATION = textures("reference", 3, 100), textures("calibration", 9, 200)


def compared(**others: object) -> Asked:
    """With references and a calibration."""
    plain = Asked((shot("good", texture(1)), shot("bad", texture(2, scratch=True))), references=REFERENCES,
                  calibration=CALIBRATION, rate=RATE)  # fmt: skip
    return replace(plain, **others)


@cache
def base() -> Asked:
    """Many images, of which rows take theirs."""
    return compared(images=(*turned(), *stored(), *frames(), *alike(), shot("good", texture(1)),
                            shot("bad", texture(2, scratch=True))))  # fmt: skip


# 1 and 2, reading


def turned() -> list[Shot]:
    """One picture for each orientation of EXIF."""
    found = [shot(f"turned{number}", texture(number, scratch=True), number) for number in range(2, 9)]
    return [*found, shot("turned", texture(9, scratch=True), 6, "webp", lossless=True),
            shot("turned", texture(10, scratch=True), 6, "tif")]  # fmt: skip


def stored() -> list[Shot]:
    """One picture for each way to store colours."""
    colours, alpha = texture(20, scratch=True), np.random.default_rng(0).integers(0, 256, (48, 60), np.uint8)
    four = np.dstack([colours, alpha])
    grey = np.asarray(Image.fromarray(colours).convert("L"))
    palette = Image.fromarray(colours).quantize(32)
    with_hole = np.asarray(palette.convert("RGB")).copy()
    with_hole[np.asarray(palette) == 3] = 255
    cmyk = Image.fromarray(colours).convert("CMYK")
    jpeg = saved(cmyk, "jpeg", quality=95)
    deep = np.random.default_rng(1).integers(20_000, 2**16, (48, 60), np.uint16)
    floats = np.random.default_rng(2).random((48, 60), np.float32)

    def three(levels: np.ndarray) -> np.ndarray:
        return np.repeat(levels[..., None], 3, axis=2)

    return [
        Shot("stored-rgba.png", saved(Image.fromarray(four), "png"), on_white(four)),
        Shot("stored-rgba.webp", saved(Image.fromarray(four), "webp", lossless=True, exact=True), on_white(four)),
        Shot("stored-palette.png", saved(palette, "png"), np.asarray(palette.convert("RGB"))),
        Shot("stored-hole.png", saved(palette, "png", transparency=3), with_hole),
        Shot("stored-la.png", saved(Image.fromarray(np.dstack([grey, alpha]), "LA"), "png"),
             on_white(np.dstack([three(grey), alpha]))),
        Shot("stored-cmyk.jpg", jpeg, np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))),
        Shot("stored-16.png", saved(Image.fromarray(deep), "png"), three(deep / np.float32(2**16 - 1))),
        Shot("stored-float.tif", saved(Image.fromarray(floats), "tiff"), three(floats)),
    ]  # fmt: skip


def frames() -> list[Shot]:
    """Files of several pictures, of which the first counts."""
    first, second = (Image.fromarray(texture(number, scratch=True)) for number in (30, 31))
    several = {"save_all": True, "append_images": [second]}
    palettes = [one.quantize(256) for one in (first, second)]
    gif = saved(palettes[0], "gif", save_all=True, append_images=palettes[1:], duration=100)
    of_gif = np.asarray(Image.open(io.BytesIO(gif)).convert("RGB"))
    return [Shot("frames.gif", gif, of_gif), Shot("frames.tif", saved(first, "tiff", **several), texture(30, scratch=True))]


def jpeg(pixels: np.ndarray, name: str) -> Shot:
    """A picture saved again, as other pixels."""
    content = saved(Image.fromarray(pixels), "jpeg", quality=80)
    return Shot(name, content, np.asarray(Image.open(io.BytesIO(content))))


# 5, images that are the same


def alike() -> list[Shot]:
    """A reference, a calibration image, each of them saved again, and one image twice."""
    same = texture(40, scratch=True)
    return [
        shot("known-reference", REFERENCES[0].pixels),
        shot("known-calibration", CALIBRATION[0].pixels),
        jpeg(REFERENCES[1].pixels, "known-reference.jpg"),
        jpeg(CALIBRATION[1].pixels, "known-calibration.jpg"),
        *(shot(f"tie{number}", same) for number in range(9)),
    ]


def doubled(shots: tuple[Shot, ...], times: int = 3) -> tuple[Shot, ...]:
    """Each file several times, by other names."""
    return tuple(one._replace(name=f"{number}-{one.name}") for one in shots for number in range(times))


@cache
def left_out() -> Asked:
    """More references than a hundred, that also set the threshold."""
    images = (shot("good", texture(1, (24, 30))), shot("bad", texture(2, (24, 30), True)))
    return Asked(images, references=textures("reference", 120, 100, (24, 30)), rate=0.05)


@cache
def mutual(copies: int = 1) -> Asked:
    """Images that judge each other, one of them with a defect, perhaps several times."""
    bad = shot("bad", texture(2, scratch=True))
    return Asked((*textures("other", 7, 300), *(bad._replace(name=f"bad{n}.png") for n in range(copies))), mutual=True)


# 9 to 11, decisions, products, pre-processing


def strokes(place: str) -> dict[str, Path]:
    """A mask of what to ignore, as a tool writes it."""
    hidden = np.zeros((48, 60), bool)
    hidden[10:30, 10:50] = True
    layer = np.dstack([np.full((48, 60, 3), 255, np.uint8), 255 * hidden.astype(np.uint8)])
    labels = Image.fromarray(hidden.astype(np.uint8))
    palette = labels.convert("P")
    palette.putpalette([0, 0, 0, 128, 0, 0])
    images = {"layer": Image.fromarray(layer), "labels": labels, "palette": palette, "array": None,
              "white": Image.new("L", (60, 48), 255)}  # fmt: skip
    if place == "array":
        return {"ignore": hidden}
    path = Path(mkdtemp()) / f"{place}.png"
    images[place].save(path)
    return {"ignore": path}


def masked(kind: str) -> Asked:
    """With a mask."""
    return compared(options=strokes(kind))


CROP = v2.Compose([v2.CenterCrop(40), v2.Resize((64, 64), antialias=True), v2.Normalize([0.5] * 3, [0.5] * 3)])
PLAIN = v2.Compose([v2.Resize((64, 64), antialias=True), v2.Normalize([0.5] * 3, [0.5] * 3)])


def product(**others: object) -> Asked:
    """References from a product file, which was written with other settings."""
    of = Asked(references=REFERENCES)
    given = {name: others.pop(name) for name in ("class_name",) if name in others}
    return compared(references=None, product=of, settings=others, **given)


def sequence(before: Asked, **now: object) -> Asked:
    """What is asked after something else."""
    return replace(before, before=before, **now)


NO_OPTION = "unexpected keyword argument"
ROWS = (
    Row(1, "EXIF turns an image", base, images="turned", refused={}),
    Row(1, "EXIF turns a reference", lambda: compared(references=tuple(
        shot(one.name[:-4], one.pixels, 3 + n) for n, one in enumerate(REFERENCES)))),
    Row(1, "EXIF turns a calibration image", lambda: compared(calibration=tuple(
        shot(one.name[:-4], one.pixels, n or 6) for n, one in enumerate(CALIBRATION)))),
    Row(2, "transparency, palettes, CMYK, 16 bits, floats", base, images="stored"),
    Row(2, "several frames or pages", base, images="frames"),
    Row(3, "other references", lambda: sequence(compared(calibration=None, rate=None),
                                                references=textures("other", 4, 150))),
    Row(3, "another class", lambda: sequence(compared(calibration=None, rate=None), class_name="bolt")),
    Row(3, "another class and a rate, the calibration of the old one",
        lambda: sequence(compared(), class_name="bolt", rate=0.3)),
    Row(3, "other references and a rate", lambda: sequence(
        compared(calibration=None, rate=None), references=textures("other", 6, 150), rate=0.3)),
    Row(4, "after text_weight 0 with the same cache", lambda: compared(earlier=compared(settings={"text_weight": 0.0}))),
    Row(4, "SDP+ without layers, after a run without", lambda: compared(
        settings={"variant": "sdp_plus"}, earlier=compared())),
    Row(5, "a calibration image is a reference", lambda: compared(calibration=(*CALIBRATION, REFERENCES[0]))),
    Row(5, "copies among references", lambda: compared(references=doubled(REFERENCES)),
        right=lambda: compared(references=tuple(sorted(REFERENCES)))),
    Row(5, "copies among calibration images", lambda: compared(calibration=doubled(CALIBRATION)), right=compared),
    Row(5, "too few calibration images but for copies", lambda: compared(calibration=doubled(CALIBRATION[:2], 10))),
    Row(5, "inspected: a reference, a calibration image, each saved again", base, images="known"),
    Row(5, "copies among images that judge each other", partial(mutual, 4), right=lambda: replace(mutual(1), images=mutual(4).images)),
    Row(6, "120 references, each left out in turn", left_out),
    Row(7, "tiles, references of mixed shapes", lambda: compared(settings={"tiles": [2, 2]}, references=(
        *REFERENCES, shot("tall", texture(103, (70, 50)))))),
    Row(7, "aligned tiles, an image of another shape", lambda: compared(
        settings={"tiles": [2, 2], "aligned": True}, images=(shot("tall", texture(5, (60, 48))),))),
    Row(7, "aligned tiles without references", lambda: compared(settings={"tiles": [2, 2], "aligned": True},
                                                                references=None)),
    Row(7, "an image smaller than tiles can be", lambda: compared(settings={"tiles": [9, 9]}, images=(
        shot("small", texture(5, (5, 5))),))),
    Row(8, "references and a rate alone", lambda: compared(references=textures("reference", 6, 100), calibration=None)),
    Row(8, "a calibration without a rate", lambda: compared(rate=None)),
    Row(9, "a threshold", lambda: compared(calibration=None, rate=None, threshold=0.3)),
    Row(9, "a model that does not normalise", lambda: compared(
        calibration=None, rate=None, processor={"enable_normalization": False})),
    Row(9, "a model that only scores", lambda: compared(
        calibration=None, rate=None, processor={"enable_thresholding": False})),
    Row(9, "a model of images that judge each other", mutual),
    Row(10, "a product file of another text_weight", lambda: product(text_weight=0.2)),
    Row(10, "a product file of another smoothing", lambda: product(smoothing=2.0)),
    Row(10, "a product file of other prompts", lambda: product(prompts="medical")),
    Row(10, "a product file of other weights", lambda: product(pretrained=None)),
    Row(10, "a product file of other tiles", lambda: product(tiles=[2, 2])),
    Row(10, "a product file of another class", lambda: product(class_name="bolt")),
    Row(11, "a pre-processor that crops", lambda: compared(transform=CROP, calibration=None, rate=None)),
    Row(12, "OpenVINO in bfloat16, calibrated in float32", lambda: compared(options={"hint": "bf16"})),
    Row(13, "min_area", lambda: compared(options={"min_area": 60})),
    Row(13, "one image alone and in a batch", base, images="tie"),
    Row(14, "ignore, white strokes on a transparent layer", partial(masked, "layer"), right=partial(masked, "array")),
    Row(14, "ignore, labels 0 and 1", partial(masked, "labels"), right=partial(masked, "array")),
    Row(14, "ignore, a palette", partial(masked, "palette"), right=partial(masked, "array")),
    Row(14, "ignore, all white", partial(masked, "white")),
    Row(16, "memory_size", lambda: compared(options={"memory_size": 9})),
)
