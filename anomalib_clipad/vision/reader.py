"""How images are compared with text: the interface of everything that a detector can read a tower with."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, cast

from torch import Tensor, nn

from .choices import Tap
from .dual_path import STAGES
from .references import RADII
from .surgery import ScoreScale


class View(NamedTuple):
    """What a detector lends to its reader.

    Attributes:
        visual: The image tower.
        tap: Where the ordinary path is read at the end of a stage.
        smoothing: From patches to smoothed pixels along one axis (S, G), of ``smoothing_matrix``.
        blur: The Gaussian alone (S, S), of ``blur_matrix``; SDP has none.
    """

    visual: Any
    tap: Tap
    smoothing: Tensor
    blur: Tensor | None


class Read(NamedTuple):
    """What one pass through the tower leaves.

    Attributes:
        features: What the reader compares with text.
        tokens: Patches that are compared with other images (B, N, width), stage by stage, where they are wanted.
    """

    features: Any
    tokens: Sequence[Tensor] | None = None


class Found(NamedTuple):
    """What the comparison with text says, raw.

    Attributes:
        score: Score of each image (B,).
        anomaly_map: Map (B, S, S).
    """

    score: Tensor
    anomaly_map: Tensor


class Reader(nn.Module):
    """Reads an image tower and compares what it read with two vectors of text; only arithmetic, without a class name.

    Attributes:
        scale: How its raw outputs become probabilities.
        smoothing: Standard deviation of the map's Gaussian in pixels that it was published with.
        sets: How many sets of tokens are compared with those of other images.
        distance_unit: What the sum of the sets' cosine distances is multiplied by, beside ``text_part``.
        undecided: The ``text_part`` of a probability of 0.5.
        by_patches: Whether distances are upsampled as its map is, and the image score is the largest one on the grid,
            beside ``text_part`` of the raw score; else all is as with APRIL-GAN.
        radii: Neighbourhoods over which mutual scoring averages tokens.
    """

    scale: ScoreScale
    smoothing: ClassVar[float] = 8.0
    sets: ClassVar[int] = STAGES
    distance_unit: ClassVar[float] = 1.0
    undecided: ClassVar[float] = STAGES / 2
    by_patches: ClassVar[bool] = False
    radii: ClassVar[Sequence[int]] = RADII

    @property
    def mutual_unit(self) -> float:
        """What mutual scores, which are means over the sets, are multiplied by, beside ``text_part``."""
        return self.distance_unit * self.sets

    @abstractmethod
    def read(self, view: View, images: Tensor, tokens: bool) -> Read:
        """One pass through the tower.

        Args:
            view: The detector's.
            images: Normalised images (B, 3, S, S).
            tokens: Also keep what is compared with other images.
        """

    @abstractmethod
    def compare(self, view: View, features: Any, text: Tensor) -> Found:
        """Compare with text.

        Args:
            view: The detector's.
            features: Of ``read``.
            text: Vectors, normal and abnormal: (D, 2), or (B, D, 2), one pair per image.
        """

    @abstractmethod
    def image_features(self, view: View, features: Any) -> Tensor:
        """Features of the images as wholes (B, D), unit vectors: images that look alike have a large cosine."""

    @abstractmethod
    def text_part(self, anomaly_map: Tensor) -> Tensor:
        """Its raw map as it is added to distances to other images: in units of four probabilities, or of its own rule.

        With ``by_patches`` it takes raw scores too.
        """

    def read_tokens(self, view: View, images: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """``Read.tokens`` and ``image_features`` alone, where no text has a share."""
        read = self.read(view, images, tokens=True)
        return cast("Sequence[Tensor]", read.tokens), self.image_features(view, read.features)
