"""`anomalib-clipad page`: one HTML file that looks at images by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_LARGE = 15_000_000
"""Bytes above which a page says how to make it smaller."""


def page(
    class_name: list[str] | None = None,
    output: Path = Path("inspector.html"),
    settings: dict[str, Any] | None = None,
    decision: dict[str, Any] | None = None,
    product: Path | None = None,
    examples: Path | None = None,
    title: str | None = None,
    debug: bool = False,  # noqa: ARG001  # read by the command line
) -> None:
    """Write a page that is the inspector: it needs no server, no network and no installation.

    Args:
        class_name: What images may show; the page lets choose.
        output: File to write.
        settings: Those by which a model is built.
        decision: What images are compared with, and where the slider begins: at the false-alarm rate if the page is
            calibrated, for each class name, else at the threshold.
        product: File of `anomalib-clipad product`, in place of references.
        examples: Folder of images that the page offers to try.
        title: Of the page.
        debug: Show where an error comes from.
    """
    from anomalib_clipad.images.listing import files_in
    from anomalib_clipad.web.build import build
    from anomalib_clipad.web.runtime import load_runtime

    runtime = load_runtime()  # before anything that takes long
    decision = decision or {}
    offered = {} if examples is None else {path.name: path.read_bytes() for path in files_in(examples)}
    built = build(
        class_name or [],
        settings=settings or {},
        product=product,
        examples=offered,
        title=title,
        **decision,
    )
    built.write(output, runtime)
    size = output.stat().st_size
    print(f"{output}: {size / 1e6:.1f} MB")
    if size > _LARGE and (product or decision.get("references")):
        print("Fewer references make it smaller; or `anomalib-clipad product --memory_size`, and --product here.")
