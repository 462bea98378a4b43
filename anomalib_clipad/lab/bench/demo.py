"""``python -m anomalib_clipad.lab demo-picture``: the picture that opens README."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from anomalib_clipad.tools.demo import demo

_COLOURS = 256


def picture(output: Path) -> None:
    """Save the contact sheet of ``anomalib-clipad demo`` in 256 colours, which take a third of the bytes.

    Args:
        output: File to write.
    """
    with TemporaryDirectory() as folder:
        demo(Path(folder))
        Image.open(Path(folder) / "contact_sheet.png").convert("RGB").quantize(_COLOURS).save(output, optimize=True)
