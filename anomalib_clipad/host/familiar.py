"""Images that a model was made with and that a run scores too."""

from __future__ import annotations

import logging
from collections.abc import Collection, Hashable, Iterable
from typing import Any

from torch import Tensor

from anomalib_clipad.vision.pool import key_of

logger = logging.getLogger(__name__)


class Familiar:
    """Notices them, and warns when the run ends.

    Args:
        warning: What to say; ``%d`` is how many there are.
    """

    def __init__(self, warning: str) -> None:
        self._warning = warning
        self._scored: set[str] = set()

    def notice(self, images: Iterable[Tensor], keys: Collection[str]) -> None:
        """Look among the scored images (3, H, W) for those of some keys; see ``key_of``."""
        if keys:
            self._scored |= {key for key in map(key_of, images) if key in keys}

    def finish(self) -> None:
        """End a run."""
        if self._scored:
            logger.warning(self._warning, len(self._scored))
        self._scored = set()


def split_of(data: Any) -> Hashable:
    """What tells the images of one datamodule from another's."""
    return type(data), str(getattr(data, "root", "")), str(getattr(data, "category", ""))
