"""Peers, measured by the same metrics."""

from __future__ import annotations

from anomalib.metrics import Evaluator
from anomalib.models import WinClip
from anomalib.post_processing import PostProcessor

from .evaluator import SevenMetrics


class WinClipBaseline(WinClip):
    """anomalib's zero-shot WinClip, reported in the paper's seven metrics.

    Its scores are left as they are: anomalib's normalisation clamps them, which would tie some and lessen its metrics.
    """

    def val_dataloader(self) -> list:
        """No validation data of its own, as with ``ClipAD``."""
        return []

    @staticmethod
    def configure_post_processor() -> PostProcessor:
        """anomalib's post-processor without normalisation."""
        return PostProcessor(enable_normalization=False)

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """The paper's seven metrics."""
        return SevenMetrics()
