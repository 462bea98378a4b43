"""An audit: images drawn at random, and a page on which a person looks at them without any scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from anomalib_clipad.checks import check_count
from anomalib_clipad.data.ticks import Audit, digest_of_drawn
from anomalib_clipad.images.content import digest_of, digest_of_all
from anomalib_clipad.images.picture import MAX_PIXELS, Picture, UnreadableError, read

from .lock import folder_lock
from .page import About, PageRow, thumbnail, write_page
from .run_folder import new_run, take_folder
from .run_page import relative_to
from .sources import Source


def write_audit(
    folder: Path,
    sources: Iterable[Source],
    count: int,
    seed: int = 0,
    *,
    title: str = "Audit",
    overwrite: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> tuple[Audit, list[str]]:
    """Draw images at random and write a page on which each is ticked.

    Args:
        folder: Where the page goes, an output folder as of a run.
        sources: All images, files.
        count: How many to draw; all of them if there are no more.
        seed: Of the draw.
        title: What the page is called.
        overwrite: Remove what an earlier run has written to the folder.
        max_pixels: Larger images are passed over, as those that cannot be read.

    Returns:
        What was drawn, and what was passed over and why.

    Raises:
        ValueError: If there are no images, one is a frame of a film, or the count or the seed is none.
        FileExistsError: If the folder holds files that may not be removed.
    """
    check_count("audit", count)
    check_count("audit_seed", seed, 0)
    listed = list(sources)
    if any(isinstance(source.image, Picture) for source in listed):
        msg = "An audit draws image files, and a film has none: write its frames as files first."
        raise ValueError(msg)
    passed: list[str] = []
    rows = list(_drawn(folder, listed, count, seed, max_pixels, passed))
    if not rows:
        msg = f"There is no image to audit that can be read: {'; '.join(passed[:3])}."
        raise ValueError(msg)
    names = digest_of_all(str(source.path) for source in listed)
    audit = Audit(seed, len(rows), len(listed) - len(passed), names[:12], digest_of_drawn(row.digest for row in rows))
    about = About(
        decided=False, decision=f"An audit: {audit}. Tick every image; scores are not shown.", audit=str(audit)
    )
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder):
        take_folder(folder, new_run({"audit": str(audit)}, {}, about._asdict()), overwrite, resume=False)
        write_page(folder, rows, title, None, about)
    return audit, passed


def _drawn(
    folder: Path, listed: Sequence[Source], count: int, seed: int, max_pixels: int, passed: list[str]
) -> Iterator[PageRow]:
    """So many images, in the order of the draw; those that cannot be read are passed over."""
    for place in np.random.default_rng(seed).permutation(len(listed)):
        if not count:
            return
        source = listed[place]
        try:
            if isinstance(source.image, UnreadableError):
                raise source.image
            pixels = read(source.image, max_pixels=max_pixels).shown
        except UnreadableError as error:
            passed.append(str(error))
            continue
        count -= 1
        yield PageRow(
            str(source.path),
            None,
            None,
            False,
            thumbnail(pixels),
            image=relative_to(source.path, folder),
            size=(pixels.shape[1], pixels.shape[0]),
            digest=digest_of(source.path),
        )
