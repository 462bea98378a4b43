"""The whole of ClipAD as one module: image in, scores, labels, maps and masks out.

A file of it is read with torch and this package alone: neither anomalib nor open_clip nor torchvision is imported.
"""

from __future__ import annotations

from copy import copy, deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from anomalib_clipad.backbones.tower import Tower
from anomalib_clipad.predictor.decision import Decision, certified
from anomalib_clipad.verdicts.certificate import Certificate
from anomalib_clipad.vision.detector import Detector, Prediction
from anomalib_clipad.vision.joining import Joining


class InferenceGraph(nn.Module):
    """A copy of a model for one class, or for any class or product if text features or a memory are inputs.

    Args:
        detector: The model's detector.
        text_features: Representative vectors, normal and abnormal (D, 2).
        pre_processor: From images in [0, 1] to what the detector takes.
        post_processor: From its raw outputs to others, if any.
        inputs: Whether text features, and whether a memory, come with the images.
        metadata: What anyone should know who finds the file.

    Attributes:
        certificate: Scores of normal images, if verdicts follow a false-alarm rate.
        false_alarm_rate: That rate, where none comes with the images.
    """

    text_features: Tensor
    certificate: Certificate | None

    def __init__(
        self,
        detector: Detector,
        text_features: Tensor,
        pre_processor: nn.Module,
        post_processor: nn.Module | None,
        inputs: tuple[bool, bool],
        metadata: dict[str, str],
    ) -> None:
        super().__init__()
        self.pre_processor = pre_processor
        settings = (detector.image_size, detector.smoothing, detector.tap)
        self.text_input, self.memory_input = inputs
        memory = None if self.memory_input else deepcopy(detector.memory)
        parts = (deepcopy(detector.adapter), memory)
        joined = (detector.text_weight, detector.joined_by)
        self.detector = Detector(Tower.copy_of(detector.visual), *settings, *parts, *joined, detector.tiles)
        self.joining = detector.joining  # numbers, which a tracer sees as such
        self.metadata = metadata
        self.register_buffer("text_features", text_features.detach().clone())
        self.post_processor = _without_trainer(post_processor)
        self.certificate, self.false_alarm_rate = None, 0.0
        if isinstance(self.post_processor, Decision):
            self.post_processor.scale = self.detector.scale
        self.eval().requires_grad_(False)

    @property
    def memory_shape(self) -> tuple[int, ...]:
        """Shape of a memory of one image."""
        width, _ = cast("Tensor", self.detector.visual.proj).shape
        of_a_view = (self.detector.reader.sets, self.detector.reference_matrix.shape[1] ** 2, width)
        return of_a_view if self.detector.tiles is None else (self.detector.tiles.places, *of_a_view)

    def further_inputs(self) -> dict[str, Tensor]:
        """An example of each input beside the images."""
        inputs = {"text_features": self.text_features} if self.text_input else {}
        if self.memory_input:
            inputs |= {"memory": torch.randn(self.memory_shape), "midpoint": torch.tensor(1.0)}
        return inputs | ({"joining": torch.ones(4)} if self.joining_input else {})

    @property
    def joining_input(self) -> bool:
        """Whether it is told how text and memory are joined."""
        return self.memory_input and self.detector.uses_text

    @torch.no_grad()
    def forward(
        self,
        images: Tensor,
        text_features: Tensor | None = None,
        memory: Tensor | None = None,
        midpoint: Tensor | None = None,
        joining: Tensor | None = None,
        false_alarm_rate: float | Tensor | None = None,
    ) -> Prediction:
        """Find defects.

        Args:
            images: RGB images (B, 3, H, W) of any size, values in [0, 1].
            text_features: Representative vectors, normal and abnormal (D, 2), of a model with ``text_input``.
            memory: Patch tokens of normal images, as of ``Memory``, of a model with ``memory_input``.
            midpoint: The raw map value whose probability is 0.5, of a model with ``memory_input``: a scalar.
            joining: The numbers of ``Joining`` (4,), of a model with ``memory_input`` whose text has a share.
            false_alarm_rate: In place of its own, of a model with a certificate.

        Returns:
            ``pred_score`` (B,), ``pred_label`` (B,), ``anomaly_map`` (B, h, w) and ``pred_mask`` (B, h, w), of the
            model's own size h, w; with a certificate, ``p_value`` (B,) as an attribute, and ``verdict`` (B,), which is
            ``None`` without a miss rate.

        Raises:
            ValueError: If an input is given that the model does not have, or one is missing.
        """
        given = (text_features, memory, midpoint, joining)
        wanted = (self.text_input, self.memory_input, self.memory_input, self.joining_input)
        if [one is not None for one in given] != list(wanted):
            msg = (
                "text_features are an input of a model exported with text_input, memory and midpoint of one exported "
                "with memory_input, joining too where its text has a share, and only of such a one."
            )
            raise ValueError(msg)
        joined = self.joining if joining is None else Joining(*joining.unbind())
        text = self.text_features if text_features is None else text_features
        raw: Prediction = self.detector(self.pre_processor(images), text, memory, joined)
        if self.post_processor is None:
            return raw
        if midpoint is None:
            found: Prediction = self.post_processor(raw)
            if self.certificate is None:
                return found
            rate = self.false_alarm_rate if false_alarm_rate is None else false_alarm_rate
            return certified(found.pred_score, found.anomaly_map, self.certificate, rate)
        decided: Prediction = self.post_processor(raw, scale=self.detector.reference_scale(midpoint, joined))
        return decided


def _without_trainer(post_processor: nn.Module | None) -> nn.Module | None:
    """A copy without the ``log`` methods that Lightning hangs on callbacks, with its trainer and the model behind."""
    if post_processor is None:
        return None
    bare = copy(post_processor)
    for name in ("log", "log_dict"):
        vars(bare).pop(name, None)
    return deepcopy(bare)
