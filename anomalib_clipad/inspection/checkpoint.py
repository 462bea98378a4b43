"""The model of a Lightning checkpoint, for an inspector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from anomalib_clipad.predictor.live import TorchModel
from anomalib_clipad.torch_model import ClipADModel
from anomalib_clipad.vision.detector import Prediction


def from_checkpoint(path: Path, class_name: str | None = None) -> TorchModel:
    """The model of a Lightning checkpoint, with its thresholds, normal images and calibration.

    Args:
        path: ``.ckpt`` of ``ClipAD``.
        class_name: In place of the checkpoint's.

    Raises:
        ValueError: If the file is no checkpoint of ``ClipAD``.
    """
    from anomalib.data import InferenceBatch  # only a checkpoint needs anomalib

    from anomalib_clipad import ClipAD

    try:
        module: Any = ClipAD.load_from_checkpoint(path, map_location="cpu")
    except (KeyError, AttributeError, EOFError, RuntimeError, TypeError) as error:
        msg = f"{path} is no checkpoint of ClipAD, or is damaged ({' '.join(str(error).split())[:200]})."
        raise ValueError(msg) from error
    module = module.eval()
    if class_name is not None:
        module.class_name = class_name
    module.prepare()
    processor: Any = module.post_processor
    transform = module.pre_processor.transform if module.pre_processor is not None else nn.Identity()

    def outputs(_: ClipADModel, raw: Prediction) -> tuple[Tensor, Tensor]:
        assert raw.anomaly_map is not None
        found = processor(InferenceBatch(pred_score=raw.pred_score.cpu(), anomaly_map=raw.anomaly_map.cpu()))
        return found.pred_score, found.anomaly_map

    model = TorchModel(module.model, transform, outputs)
    certificate = getattr(processor, "certificate", None)
    if certificate is not None:
        model.normal = certificate.normal
    return model
