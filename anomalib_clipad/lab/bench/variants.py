"""`python -m anomalib_clipad.lab variants`: what each variant costs, beside the image tower it reads."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from statistics import median
from time import process_time
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from anomalib_clipad.adaptors.registry import ADAPTORS
from anomalib_clipad.backbones import load_backbone
from anomalib_clipad.checks import check_counts
from anomalib_clipad.settings import VARIANTS
from anomalib_clipad.tools.evaluation import quiet
from anomalib_clipad.tools.tables import Row, markdown_table

from .comparison import random_model


def main(
    backbone: str = "clipad-mini", image_size: int | None = None, repeats: int = 5, threads: int | None = None
) -> None:
    """Print what each variant takes for one image, in time and in multiplications, beside `encode_image`.

    Each run follows one of `encode_image`, and the ratio is the median of the ratios of such pairs. Seconds are those
    of the processor, so that other work of the machine hardly matters. Layers are not trained, and the weights of an
    open_clip backbone are random.

    Args:
        backbone: open_clip model name, or clipad-mini.
        image_size: Height and width in pixels; by default the backbone's own.
        repeats: Pairs of runs.
        threads: Threads torch uses; by default its own choice.

    Raises:
        ValueError: If a number is below one.
    """
    check_counts(repeats=repeats, threads=threads)
    if threads:
        torch.set_num_threads(threads)
    with quiet(), warnings.catch_warnings(), torch.inference_mode():
        warnings.filterwarnings("ignore", message=".*RANDOM weights")
        warnings.filterwarnings("ignore", message="TF32 acceleration")
        loaded = load_backbone(backbone, None, image_size)
        image = torch.randn(1, 3, loaded.image_size, loaded.image_size)
        peer = partial(loaded.clip.encode_image, image)
        whole = multiplications(peer)
        rows: list[Row] = [["`encode_image`", whole, 1.0, median(_seconds(peer, repeats)), 1.0]]
        for variant in VARIANTS:
            run = partial(random_model(loaded, variant=variant).predict, image)
            title, count = ADAPTORS[variant].title if variant in ADAPTORS else "SDP", multiplications(run)
            rows.append([title, count, count / whole, *pairs(run, peer, repeats)])
    print(f"{backbone}, {loaded.image_size} pixels, {torch.get_num_threads()} threads\n")
    columns = [("for one image", ""), ("GMAC", ".4g"), ("ratio", ".2f"), ("processor, s", ".3g"), ("ratio", ".2f")]
    print(markdown_table(columns, rows))


def pairs(run: Callable[[], Any], peer: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median processor seconds of a function, and the median of its ratios to a peer's that was run just before."""
    ratios, seconds = [], []
    for _ in range(repeats):
        (its,), (own,) = _seconds(peer, 1), _seconds(run, 1)
        seconds.append(own)
        ratios.append(own / its)
    return median(seconds), median(ratios)


def multiplications(run: Callable[[], Any]) -> float:
    """Multiplications of matrices in a run, in thousand millions."""
    counter, fast = FlopCounterMode(display=False), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # what follows can be counted
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False), counter:
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() / 2e9


def _seconds(run: Callable[[], Any], repeats: int) -> list[float]:
    found = []
    for _ in range(repeats):
        begin = process_time()
        run()
        found.append(process_time() - begin)
    return found
