"""`anomalib-clipad page`: one HTML file that looks at images by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anomalib_clipad.web.page import MAX_PIXELS

_LARGE = 15_000_000
"""Bytes above which a page says how to make it smaller."""


def page(
    class_name: list[str] | None = None,
    output: Path = Path("inspector.html"),
    normal: Path | None = None,
    product: Path | None = None,
    calibration: Path | None = None,
    false_alarm_rate: float | None = None,
    threshold: float = 0.5,
    backbone: str = "clipad-mini",
    pretrained: str | None = None,
    image_size: int | None = None,
    prompts: str = "industrial",
    text_weight: float = 0.5,
    adapter: str | None = None,
    examples: Path | None = None,
    title: str | None = None,
    max_pixels: int = MAX_PIXELS,
    debug: bool = False,  # noqa: ARG001  # read by the command line
) -> None:
    """Write a page that is the inspector: it needs no server, no network and no installation.

    Args:
        class_name: What images may show; the page lets choose.
        output: File to write.
        normal: Folder of normal images to compare with.
        product: File of `anomalib-clipad product`, in place of normal images.
        calibration: Folder of other normal images, which set the threshold, for each class name.
        false_alarm_rate: Where the slider begins, if calibrated.
        threshold: Where it begins, if not.
        backbone: CLIP model, as of ClipAD.
        pretrained: Weights of the backbone.
        image_size: Height and width in pixels at which the model sees images.
        prompts: industrial, medical, or a YAML file of states and templates.
        text_weight: Share of the text where there are normal images; with 0 no class name is needed.
        adapter: Trained layers of SDP+.
        examples: Folder of images that the page offers to try.
        title: Of the page.
        max_pixels: Larger images are refused.
        debug: Show where an error comes from.
    """
    from anomalib_clipad.images.listing import files_in
    from anomalib_clipad.web.build import build
    from anomalib_clipad.web.runtime import load_runtime

    runtime = load_runtime()  # before anything that takes long
    settings: dict[str, Any] = {"backbone": backbone, "image_size": image_size, "prompts": prompts}
    settings |= {"text_weight": text_weight, "adapter": adapter, "pretrained": pretrained}
    offered = {} if examples is None else {path.name: path.read_bytes() for path in files_in(examples)}
    built = build(
        class_name or [],
        references=normal,
        product=product,
        calibration=calibration,
        false_alarm_rate=false_alarm_rate,
        threshold=threshold,
        examples=offered,
        title=title,
        max_pixels=max_pixels,
        settings={name: value for name, value in settings.items() if value is not None},
    )
    built.write(output, runtime)
    size = output.stat().st_size
    print(f"{output}: {size / 1e6:.1f} MB")
    if size > _LARGE and (normal or product):
        print("Fewer normal images make it smaller; or `anomalib-clipad product --memory_size`, and --product here.")
