"""The rows of the table: situations in which doors have given different answers, and what each door says in them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from asked import Asked, Shot, saved, shot, texture, textures
from conftest import layers
from PIL import Image
from torchvision.transforms import v2

from anomalib_clipad import ClipAD
from anomalib_clipad.images.files import on_white

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
        refused: What doors say that refuse, in words that are part of it, for all images or by their names; where
            nothing stands, the answer is the right one.
        right: What is right, in place of ``asked``, where a door is asked in a way of its own.
        images: How the names begin of those of this row; by default all.
        calibrated: Whether it is about the calibration, so that the playground is asked with it.
        doors: Which are asked.
    """

    number: int
    what: str
    asked: Callable[[], Asked]
    refused: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    right: Callable[[], Asked] | None = None
    images: str = ""
    calibrated: bool = False
    doors: Sequence[str] = DOORS

    def question(self, door: str) -> Asked:
        """What a door is asked."""
        return self._for(door, self.asked)

    def truth(self, door: str) -> Asked:
        """What is right there."""
        return self._for(door, self.right or self.asked)

    def refusal(self, door: str, image: str) -> str | None:
        """What a door says of an image that it refuses."""
        said = self.refused.get(door)
        return said if said is None or isinstance(said, str) else said.get(image)

    def sentences(self, door: str) -> list[str | None]:
        """All that it says: ``None`` for an answer."""
        names = [one.name for one in self.question(door).images if one.name.startswith(self.images)]
        return sorted({self.refusal(door, name) for name in names}, key=lambda one: one or "")

    def _for(self, door: str, made: Callable[[], Asked]) -> Asked:
        if door == "playground" and not self.calibrated:
            return _uncalibrated(made)
        return _made(made)


@cache
def _made(made: Callable[[], Asked]) -> Asked:
    return made()


@cache
def _uncalibrated(made: Callable[[], Asked]) -> Asked:
    question = _made(made)
    return question if question.calibration is None else replace(question, calibration=None, rate=None)


FILES = (".onnx", ".xml", ".pt")
PRODUCTS = ("product", "product of a graph")


def said(*given: tuple[tuple[str, ...], str]) -> dict[str, str]:
    """What doors say: pairs of doors and a sentence; of a door that is named twice, the last one."""
    return {door: sentence for doors, sentence in given for door in doors}


def no_option(name: str, *doors: str) -> dict[str, str]:
    """What doors say that have no such option."""
    words = {"Engine": f"unexpected keyword argument '{name}'"}
    python = ("Inspector", "product")
    words |= dict.fromkeys(python, f"unexpected keyword argument '{name}'")
    words |= dict.fromkeys(("inspect", "Ray", "page", "playground"), f"--{name}")
    return {door: words[door] for door in doors}


REFERENCES, CALIBRATION = textures("reference", 3, 100), textures("calibration", 9, 200)
MIXED = (*REFERENCES, shot("tall", texture(103, (70, 50))))


DEFECTS = tuple(shot(f"defect{number}", texture(300 + number, scratch=number > 3)) for number in range(9))


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
    return [
        Shot("frames.gif", gif, of_gif),
        Shot("frames.tif", saved(first, "tiff", **several), texture(30, scratch=True)),
    ]


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
    return Asked(images, references=textures("reference", 104, 100, (24, 30)), rate=0.05)


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


CROP = v2.Compose([v2.CenterCrop(64), ClipAD.configure_pre_processor((64, 64)).transform.transforms[1]])


def cropping() -> Asked:
    """A pre-processor that shows the middle alone."""
    images = (shot("good", texture(1, (80, 96))), shot("bad", texture(2, (80, 96), True)))
    references = textures("reference", 3, 100, (80, 96))
    return Asked(images, references=references, transform=CROP)


def cropped() -> Asked:
    """What it shows, for a pre-processor that shows all."""

    def cut(one: Shot) -> Shot:
        return one._replace(pixels=one.pixels[8:72, 16:80])

    asked = cropping()
    return Asked(tuple(map(cut, asked.images)), references=tuple(map(cut, asked.references or ())))


def product(**others: object) -> Asked:
    """References from a product file, which was written with other settings."""
    of = Asked(references=REFERENCES)
    given = {name: others.pop(name) for name in ("class_name",) if name in others}
    return compared(references=None, product=of, settings=others, **given)


def adapted(variant: str, **others: object) -> Asked:
    """With the layers of a variant."""
    return compared(settings={"adapter": layers(variant), **others.pop("settings", {})}, **others)


def sequence(before: Asked, **now: object) -> Asked:
    """What is asked after something else."""
    return replace(before, before=before, **now)


BFLOAT16 = "OpenVINO in bfloat16, calibrated in float32"
CALIBRATES = {"playground": "Unrecognized arguments: --calibration"}
KEEPS = said(
    (FILES, "An exported file cannot take references"), (PRODUCTS, "A product file has its references already")
)
OF_ANOTHER = said((FILES, "looks at 'nut', not at 'bolt'"), (("product",), "is of 'nut'. Leave out class_name 'bolt'"),
                  (("product of a graph",), "looks at 'nut', not at 'bolt'"))  # fmt: skip
SAME = "is also a reference"
FEW = "takes 4 normal images or more; the model is calibrated on 2"
JUDGE = {
    **said(
        (FILES, "mutual compares the images of a whole run, which a file cannot"),
        (PRODUCTS, "A product file holds normal images"),
        (("Ray",), "leave out --mutual"),
    ),
    **said((("page", "playground"), "--mutual")),
}
"""Doors without images that judge each other."""
SUM = {"joining": "sum"}
WHOLE = said((("checkpoint", *FILES), "is calibrated on all of each image, and now a part is ignored"))
QUICK = ("Engine", "Inspector", "inspect", "playground")
"""Doors that take no export, no cluster and no checkpoint."""
UNTRAINED = "The layers of SDP+ are not trained"
ROWS = (
    Row(
        1,
        "EXIF turns an image",
        base,
        {"page": {"turned.webp": "a WebP that EXIF says to turn", "turned.tif": "a TIFF"}},
        images="turned",
    ),
    Row(
        1,
        "EXIF turns a reference",
        lambda: compared(references=tuple(shot(one.name[:-4], one.pixels, 3 + n) for n, one in enumerate(REFERENCES))),
    ),
    Row(
        1,
        "EXIF turns a calibration image",
        lambda: compared(
            calibration=tuple(shot(one.name[:-4], one.pixels, n or 6) for n, one in enumerate(CALIBRATION))
        ),
        CALIBRATES,
        calibrated=True,
    ),
    Row(
        2,
        "transparency, palettes, CMYK, 16 bits, floats",
        base,
        {
            "page": {
                "stored-rgba.webp": "a WebP with transparency",
                "stored-cmyk.jpg": "a JPEG of CMYK colours",
                "stored-16.png": "a PNG of 16 bits",
                "stored-float.tif": "a TIFF",
            }
        },
        images="stored",
    ),
    Row(
        2,
        "several frames or pages",
        base,
        {"page": {"frames.tif": "a TIFF"}, "Engine": {"frames.gif": "is not an image file"}},
        images="frames",
    ),
    Row(
        3,
        "other references",
        lambda: sequence(compared(calibration=None, rate=None), references=textures("other", 4, 150)),
        KEEPS,
    ),
    Row(
        3,
        "another class",
        lambda: sequence(compared(calibration=None, rate=None), class_name="bolt"),
        {**OF_ANOTHER, **said((("inspect", "Ray", "checkpoint"), "Pass the images again, or joining='sum'"))},
    ),
    Row(
        3,
        "another class, a plain sum",
        lambda: sequence(compared(settings=SUM, calibration=None, rate=None), settings=SUM, class_name="bolt"),
        OF_ANOTHER,
    ),
    Row(
        3,
        "another class, at a rate that the old one was calibrated for",
        lambda: sequence(compared(), class_name="bolt", rate=0.3),
        {
            **OF_ANOTHER,
            **CALIBRATES,
            **said((("inspect", "Ray", "checkpoint"), "Pass the images again, or joining='sum'")),
            "Inspector": "The calibration does not hold for another class",
            "Engine": "false_alarm_rate takes normal images",
        },
        calibrated=True,
    ),
    Row(
        3,
        "other references, each left out for a rate",
        lambda: sequence(compared(calibration=None, rate=None), references=textures("other", 6, 150), rate=0.3),
        KEEPS,
    ),
    Row(
        4, "after text_weight 0 with the same cache", lambda: compared(earlier=compared(settings={"text_weight": 0.0}))
    ),
    Row(
        4,
        "SDP+ without layers, after a run without",
        lambda: compared(settings={"variant": "sdp_plus"}, earlier=compared()),
        {
            **said((DOORS, UNTRAINED)),
            **said((("Inspector", "inspect", "Ray", "page", "playground"), "SDP+ needs trained layers")),
        },
    ),
    Row(
        5,
        "a calibration image is a reference",
        lambda: compared(calibration=(*CALIBRATION, REFERENCES[0])),
        {**said((DOORS, SAME)), **CALIBRATES},
        calibrated=True,
    ),
    Row(5, "copies among references", lambda: compared(references=doubled(REFERENCES)), right=compared),
    Row(
        5,
        "copies among calibration images",
        lambda: compared(calibration=doubled(CALIBRATION)),
        CALIBRATES,
        right=compared,
        calibrated=True,
    ),
    Row(
        5,
        "too few calibration images but for copies",
        lambda: compared(calibration=doubled(CALIBRATION[:2], 10)),
        {**said((DOORS, FEW)), **CALIBRATES},
        calibrated=True,
    ),
    Row(5, "inspected: a reference, a calibration image, each saved again", base, images="known"),
    Row(
        5,
        "copies among images that judge each other",
        partial(mutual, 4),
        JUDGE,
        right=lambda: replace(mutual(), images=mutual(4).images),
    ),
    Row(
        6,
        "more than a hundred references, each left out",
        left_out,
        said((PRODUCTS, "are not at hand. Pass calibration")),
    ),
    Row(
        7,
        "tiles, references of mixed shapes",
        lambda: compared(settings={"tiles": [2, 2]}, references=MIXED),
        {"page": "leave out tiles"},
    ),
    Row(
        7,
        "aligned tiles, an image of another shape",
        lambda: compared(settings={"tiles": [2, 2], "aligned": True}, images=(shot("tall", texture(5, (60, 48))),)),
        {
            **said((DOORS, "is of another shape than the normal images")),
            "page": "leave out tiles",
            **said((("playground", "product of a graph"), "aligned compares tiles with those of")),
        },
    ),
    Row(
        7,
        "aligned tiles without references",
        lambda: compared(settings={"tiles": [2, 2], "aligned": True}, references=None),
        {**said((DOORS, "aligned compares tiles with those of"))},
    ),
    Row(
        7,
        "an image smaller than its tiles can be",
        lambda: compared(settings={"tiles": [2, 2]}, references=MIXED, images=(shot("small", texture(5, (20, 25))),)),
        {**said((DOORS, "is too small for tiles=[2, 2]")), "page": "leave out tiles"},
    ),
    Row(
        8,
        "references and a rate alone",
        lambda: compared(references=textures("reference", 6, 100), calibration=None),
        said((PRODUCTS, "are not at hand. Pass calibration")),
    ),
    Row(
        5,
        "a known defect is a calibration image",
        lambda: compared(defects=(*DEFECTS, CALIBRATION[0]), miss_rate=RATE),
        {**said((DOORS, "is also a calibration image")), **CALIBRATES},
        calibrated=True,
    ),
    Row(
        8,
        "known defects and a miss rate: three verdicts",
        lambda: compared(defects=DEFECTS, miss_rate=RATE, images=textures("image", 10, 400)),
        CALIBRATES,
        calibrated=True,
    ),
    Row(
        8,
        "a calibration without a rate",
        lambda: compared(rate=None),
        {**said((DOORS, "calibrates a false-alarm rate; pass false_alarm_rate too")), **CALIBRATES},
        calibrated=True,
    ),
    Row(9, "a threshold", lambda: compared(calibration=None, rate=None, threshold=0.3)),
    Row(
        9,
        "a model that does not normalise",
        lambda: compared(calibration=None, rate=None, processor={"enable_normalization": False}),
        {
            **no_option("post_processor", "Inspector", "inspect", "Ray", "product", "page", "playground"),
            "product of a graph": "this model's normalisation is off",
        },
    ),
    Row(
        9,
        "a model that only scores",
        lambda: compared(calibration=None, rate=None, processor={"enable_thresholding": False}),
        {
            **no_option("post_processor", "Inspector", "inspect", "Ray", "product", "page", "playground"),
            **said((("checkpoint", *FILES, "product of a graph"), "only scores images")),
        },
    ),
    Row(
        9,
        "a model of images that judge each other",
        mutual,
        JUDGE,
    ),
    *(
        Row(
            10,
            f"a product file of {what}",
            partial(product, **given),
            {
                **said((DOORS, "is of a model with")),
                "checkpoint": "is of a model with",
                "playground": "--product",
                **said((FILES, "is of a model with")),
            },
            calibrated=True,
        )
        for what, given in (
            ("another text_weight", {"text_weight": 0.2}),
            ("another smoothing", {"smoothing": 2.0}),
            ("other prompts", {"prompts": "medical"}),
            ("other weights", {"pretrained": None}),
            ("other tiles", {"tiles": [2, 2]}),
        )
    ),
    Row(
        10,
        "a product file of another smoothing, none asked for",
        lambda: compared(references=None, product=Asked(references=REFERENCES, settings={"smoothing": 2.0})),
        {
            **said((("Engine", "checkpoint", *FILES, "product of a graph"), "is of a model with smoothing 2.0")),
            "playground": "--product",
        },
        right=lambda: compared(settings={"smoothing": 2.0}),
        calibrated=True,
    ),
    Row(
        10,
        "a product file of another class",
        lambda: product(class_name="bolt"),
        {
            **said((DOORS, "is of 'nut'")),
            **said((("Engine", "checkpoint", *FILES), "is of a model with class_name 'nut'")),
            "product of a graph": "looks at 'nut', not at 'bolt'",
            "playground": "--product",
        },
        calibrated=True,
    ),
    Row(
        11,
        "a pre-processor that crops",
        cropping,
        {
            **no_option("pre_processor", "Inspector", "inspect", "Ray", "product", "page", "playground"),
            **said((("checkpoint", *FILES, "product of a graph"), "does not show the whole image (CenterCrop")),
        },
        right=cropped,
    ),
    Row(
        12,
        BFLOAT16,
        lambda: compared(options={"precision": "bf16"}),
        {
            **said((("Engine", "Inspector", "product"), "Unknown precision 'bf16'")),
            **said((("inspect", "Ray", "page", "playground"), "Got value: bf16")),
            "checkpoint": "A checkpoint has its settings already",
            **said(((".onnx", ".pt", "product of a graph"), "is chosen for OpenVINO's files alone")),
            ".xml": "is calibrated on scores computed in float32",
        },
    ),
    Row(
        13,
        "min_area",
        lambda: compared(options={"min_area": 60}),
        no_option("min_area", "Engine", "page", "playground"),
    ),
    Row(13, "one image alone and in a batch", base, images="tie"),
    *(
        Row(
            14,
            f"ignore: {what}",
            partial(masked, kind),
            {**WHOLE, **no_option("ignore", "Engine", "page", "playground")},
            right=partial(masked, "array"),
        )
        for kind, what in (
            ("layer", "white strokes on a transparent layer"),
            ("labels", "labels 0 and 1"),
            ("palette", "a palette"),
        )
    ),
    Row(
        14,
        "ignore: all white",
        partial(masked, "white"),
        {**said((DOORS, "hides everything")), **no_option("ignore", "Engine", "page", "playground")},
    ),
    *(
        row
        for variant, title in {"sdp_plus": "SDP+", "af_clip": "AF-CLIP", "aa_clip": "AA-CLIP"}.items()
        for row in (
            Row(17, f"{title}: references and a calibration", partial(adapted, variant)),
            Row(
                17,
                f"{title}: the text alone, calibrated",
                partial(adapted, variant, references=None),
                doors=(*QUICK, ".pt"),
            ),
            Row(
                17,
                f"{title}: tiles",
                partial(adapted, variant, settings={"tiles": [1, 2]}),
                {"page": "leave out tiles"},
                doors=(*QUICK, "product", "page"),
            ),
            Row(
                17,
                f"{title}: images that judge each other",
                lambda of=variant: replace(mutual(), settings={"adapter": layers(of)}),
                JUDGE,
            ),
        )
    ),
    Row(16, "memory_size", lambda: compared(options={"memory_size": 9}), no_option("memory_size", "playground")),
)
_STAYS = "the engine stays with the class of a checkpoint, and says so in a warning"
UNEQUAL: dict[tuple[str, str], str] = {
    ("another class", "Engine"): _STAYS,
    ("another class, a plain sum", "Engine"): _STAYS,
    ("another class, at a rate that the old one was calibrated for", "Engine"): _STAYS,
}
"""Cells that are neither, and why."""
