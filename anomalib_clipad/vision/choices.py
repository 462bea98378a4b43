"""What the image side lets choose, by name; without torch, since a command line names it too."""

from __future__ import annotations

from typing import Literal, get_args

Tap = Literal["reference", "block"]
TAPS: tuple[str, ...] = get_args(Tap)
Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
JoiningName = Literal["spread", "sum"]
JOININGS: tuple[str, ...] = get_args(JoiningName)
