"""Options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from anomalib_clipad.images.picture import MAX_PIXELS
from anomalib_clipad.settings import Option, Settings
from anomalib_clipad.web.page import MAX_PIXELS as PAGE_MAX_PIXELS

MODEL = (
    *Settings.options(),
    Option(
        "adapter",
        str,
        None,
        "Trained layers: a file (`.safetensors` of this package, `.ckpt` of a training, `.pth` of SDP+'s authors), a "
        "folder of the two files of AF-CLIP's or AA-CLIP's authors, or what was released: `visa` or `mvtec` of SDP+, "
        "`af_clip_visa` or `af_clip_mvtec`.",
    ),
)
"""By which a model is built: the parameter ``settings`` of a command."""

_DECISION = (
    Option("references", Path, None, "Normal images to compare with: a folder, or a single one."),
    Option(
        "memory_size",
        int,
        None,
        "Patches of each stage that are kept of the normal images, chosen by a greedy coreset; all by default.",
    ),
    Option("mutual", bool, False, "Let the images judge each other; none needs to be known as normal."),
    Option("pool", int, 100, "How many images at most are compared with, where they judge each other."),
    Option("calibration", Path, None, "Folder of other normal images, which set the threshold."),
    Option(
        "false_alarm_rate",
        float,
        None,
        "Largest share of normal images that are called defective, such as 0.05. It needs calibration images, several "
        "references, or a model that is calibrated.",
    ),
    Option(
        "miss_rate",
        float,
        None,
        "Largest share of defects that are called good, such as 0.1, beside the false-alarm rate: what is neither good "
        "nor defective is to look at. It needs known defects.",
    ),
    Option(
        "defects",
        Path,
        None,
        "Known defects of a random or complete inspection: the ticks of an audit (`ticks.csv`), or a folder.",
    ),
    Option(
        "threshold",
        float,
        0.5,
        "An image is defective if its score in [0, 1] is above this, unless a false-alarm rate or the model decides.",
    ),
    Option(
        "part",
        str,
        None,
        "Several pictures show one part: how they are called, such as `{part}_{view}.png`. `parts.csv` then has a "
        "verdict on each part, at the false-alarm rate.",
    ),
    Option("ignore", Path, None, "Mask of what is never looked at, white."),
    Option("min_area", int, 0, "Smaller regions do not count, in pixels of the image."),
    Option("max_pixels", int, MAX_PIXELS, "Larger images are refused."),
)
WRITTEN = (
    Option("overlays", Literal["defective", "all", "none"], "defective", "Of which images an overlay is written."),
    Option("masks", bool, False, "Write masks."),
    Option("maps", Literal["none", "png", "npy"], "none", "Write maps, as PNG of 16 bits or as .npy."),
    Option("coco", bool, False, "Write coco.json."),
    Option("page", bool, True, "Write index.html."),
    Option("drift", Path, None, "State file of a watch over the calibration, which goes on from run to run."),
)
"""What is written beside the tables: the parameter ``written`` of a command."""

CLUSTER = (
    Option(
        "ray_address",
        str,
        None,
        "Cluster of Ray: `auto`, `host:6379` or `ray://host:10001`; by default this machine alone.",
    ),
    Option("actors", int, None, "Inspectors on the cluster; by default one for each CPU."),
    Option("gpus", float, None, "GPUs of each; by default none."),
    Option("block", int, 256, "Images that are handed out together."),
)
"""Where Ray works: the parameter ``cluster`` of a command."""

_TAKEN = {
    "inspect": {option.name for option in _DECISION},
    "page": {
        "references",
        "memory_size",
        "calibration",
        "false_alarm_rate",
        "miss_rate",
        "defects",
        "threshold",
        "max_pixels",
    },
    "product": {"references", "memory_size"},
    "teach": {"references", "memory_size", "calibration", "false_alarm_rate", "threshold", "max_pixels"},
}


def shared(command: str) -> dict[str, tuple[Option, ...]]:
    """The options that a command takes together, by the parameter of its function that has them."""
    return {"settings": MODEL, "decision": decision(command), "written": WRITTEN, "cluster": CLUSTER}


def decision(command: str) -> tuple[Option, ...]:
    """What images are compared with and how it is decided: the parameter ``decision`` of a command."""
    options = (option for option in _DECISION if option.name in _TAKEN.get(command, ()))
    return tuple(
        option._replace(default=PAGE_MAX_PIXELS) if (command, option.name) == ("page", "max_pixels") else option
        for option in options
    )
