"""ClipAD: CLIP-AD as an anomalib model.

Paper: "CLIP-AD: A Language-Guided Staged Dual-Path Model for Zero-shot Anomaly Detection", arXiv 2311.00453.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, Literal, get_args

import open_clip
from anomalib import LearningType
from anomalib.data import Batch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from omegaconf import OmegaConf
from torch import nn
from torchvision.transforms.v2 import Compose, InterpolationMode, Normalize, Resize

from . import plugin
from .backbones import load_backbone
from .deploy.export import Deployment
from .host.checkpoints import pack, unpack
from .host.evaluator import SevenFigures
from .host.image_files import ImageFiles
from .host.post_processor import ClipADPostProcessor
from .host.shares import count_once
from .sdp_plus.feature_cache import CACHE_KINDS, CacheKind
from .sdp_plus.files import load_adapter
from .sdp_plus.training import AdapterTraining
from .text.cache import EmbeddingCache
from .text.prompts import BUILT_IN
from .text.rvs import Method
from .torch_model import ClipADModel, Precision
from .vision.dual_path import Tap

logger = logging.getLogger(__name__)
Variant = Literal["sdp", "sdp_plus"]
VARIANTS: tuple[str, ...] = get_args(Variant)


class ClipAD(AdapterTraining, Deployment, AnomalibModule):
    """CLIP-AD: zero-shot anomaly detection and segmentation with CLIP.

    Patches of an image are compared with two vectors of text, one for the flawless and one for the damaged object. In
    SDP nothing is trained; SDP+ adds linear layers trained on other data. Validation data, where there is any, only
    sets thresholds and the scale of scores.

    Args:
        class_name: What the images show, such as ``hazelnut`` or ``metal_nut``. Without it the datamodule's
            ``category`` is taken, else "object".
        backbone: CLIP model: an open_clip name, ``hf-hub:owner/model``, ``local-dir:/folder``, the path of an
            open_clip model configuration (``.json``), or ``clipad-mini``, which is part of the package.
        pretrained: Weights of the backbone: an open_clip tag or the path of a weights file. ``null`` means random
            weights.
        image_size: Height and width in pixels at which the model sees images, a multiple of the backbone's patch
            size. By default the backbone's own.
        rvs: Method of representative vector selection: ``mean``, ``pca``, ``kde``, ``dbscan`` or ``mean_shift``.
        rvs_options: Parameters of that method: ``bandwidth`` (kde 0.3, mean_shift 2), ``eps`` and ``min_samples``
            (dbscan 0.5 and 15; the paper uses 1.5 and 25 on VisA).
        prompts: ``industrial``, the paper's prompts; ``medical``, a set of our own; or the path of a YAML file with
            the lists ``normal``, ``abnormal`` (states such as ``flawless {}``) and ``templates`` (such as
            ``a photo of a {}.``).
        smoothing: Standard deviation of the anomaly map's Gaussian in pixels at the model's image size.
        tap: Where the ordinary path is read at the end of a stage: ``reference``, as in all published results, or
            ``block``, the output of the stage's last block.
        text_cache: Keep prompt embeddings on disk between runs.
        precision: Number format of the image tower: ``float32``, ``bfloat16`` (fast on processors with bf16 matrix
            units) or ``float16`` (GPU only). Text features, scores and maps are float32 in any case.
        variant: ``sdp``, or ``sdp_plus``: with four linear layers, which ``anomalib train`` trains on the data module
            ``Auxiliary``, or which ``adapter`` brings along.
        adapter: Trained layers of SDP+: a file (``.safetensors`` of this package, ``.ckpt`` of a training,
            ``.pth`` of the authors), or ``visa`` or ``mvtec``, the authors' released layers.
        epochs: Epochs of training; they take the place of the trainer's ``max_epochs``.
        learning_rate: Learning rate of training, by Adam.
        feature_cache: Where the patch features of training pictures, which never change, are kept between epochs:
            ``none``, ``memory`` or ``disk``.
        pre_processor: anomalib pre-processor, or whether to use the default: bicubic resize to the square, CLIP's
            normalisation.
        post_processor: anomalib post-processor, or whether to use the default, ``ClipADPostProcessor``.
        evaluator: anomalib evaluator, or whether to use the default: image AUROC, F1-max, AP; pixel AUROC, F1-max,
            AP, PRO.
        visualizer: anomalib visualizer, or whether to use the default.

    Raises:
        ValueError: If an argument is not valid; the message says what is.
        WeightsUnavailableError: If the backbone's weights cannot be downloaded.
    """

    def __init__(
        self,
        class_name: str | None = None,
        backbone: str = "ViT-B-16-plus-240",
        pretrained: str | None = "laion400m_e31",
        image_size: int | None = None,
        rvs: Method = "dbscan",
        rvs_options: dict[str, int | float] | None = None,
        prompts: str | dict[str, list[str]] = "industrial",
        smoothing: float = 8.0,
        tap: Tap = "reference",
        text_cache: bool = True,
        precision: Precision = "float32",
        variant: Variant = "sdp",
        adapter: str | Path | None = None,
        epochs: int = 5,
        learning_rate: float = 1e-4,
        feature_cache: CacheKind = "none",
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        rvs_options, prompts = _plain(rvs_options), _plain(prompts)  # checkpoints keep plain types only
        if class_name is not None and not class_name.strip():
            msg = "class_name is empty; name the object in the images, such as 'hazelnut', or leave it out."
            raise ValueError(msg)
        for name, value, allowed in (("variant", variant, VARIANTS), ("feature_cache", feature_cache, CACHE_KINDS)):
            if value not in allowed:
                msg = f"Unknown {name} '{value}'; expected one of {', '.join(allowed)}."
                raise ValueError(msg)
        clip = load_backbone(backbone, pretrained, image_size)
        cache = EmbeddingCache() if text_cache else None
        adapted = adapter is not None or variant == "sdp_plus"
        model = ClipADModel(clip, rvs, rvs_options, prompts, smoothing, tap, cache, precision, adapted)
        if pre_processor is True:
            pre_processor = self.configure_pre_processor((clip.image_size, clip.image_size), clip.mean, clip.std)
        if post_processor is True:
            post_processor = ClipADPostProcessor(adapted=adapted)
        super().__init__(
            pre_processor=pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )
        self.hparams["prompts"] = (
            prompts if isinstance(prompts, str) and prompts in BUILT_IN else model.prompts.as_dict()
        )
        self.hparams["variant"], self.hparams["adapter"] = ("sdp_plus" if adapted else "sdp"), None
        self.model: ClipADModel = model
        self.class_name = class_name
        self.epochs, self.learning_rate, self.feature_cache = epochs, learning_rate, feature_cache
        self.trained = adapter is not None
        if adapter is not None and model.adapter is not None:
            load_adapter(model.adapter, str(adapter), self.adapter_settings())

    def setup(self, stage: str | None = None) -> None:
        """Share images among processes without repeating any."""
        super().setup(stage)
        if stage in {"validate", "test"} and self.trainer.world_size > 1:
            count_once(self.trainer.strategy)

    def _encode_class(self) -> None:
        """Encode the prompts of the class, unless that is already done, or restored from a checkpoint."""
        name, origin = self._resolve_class_name()
        if self.model.adapter is not None and not self.trained and not self._is_fitting():
            msg = (
                "The layers of SDP+ are not trained. Train them with `anomalib train` on the data module Auxiliary, or "
                "pass trained ones as `adapter` or in a checkpoint."
            )
            raise RuntimeError(msg)
        known = self.model.class_name
        if name == known or (origin == "default" and known is not None):
            return
        logger.info("Class name: '%s' (%s).", name, origin)
        if origin == "default":
            logger.warning(
                "No class name is given and the data has no category. Naming the object in the images, as in "
                "class_name='hazelnut', helps the model."
            )
        self.model.setup(name)

    on_validation_start = _encode_class
    on_test_start = _encode_class
    on_predict_start = _encode_class

    def _is_fitting(self) -> bool:
        return self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING

    def _resolve_class_name(self) -> tuple[str, str]:
        """The class name and where it comes from: the argument, else the datamodule's category, else "object"."""
        datamodule = getattr(self._trainer, "datamodule", None) if self._trainer else None
        category = getattr(datamodule, "category", None)
        if self.class_name is not None:
            return self.class_name, "given"
        return (str(category), "the datamodule's category") if category else ("object", "default")

    def configure_callbacks(self) -> list[Callback]:
        """Components of anomalib, and before them the care for image files."""
        return [ImageFiles(), *super().configure_callbacks()]

    def validation_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Predict a batch; the post-processor fits itself on the predictions."""
        del args, kwargs
        predictions = self.model(batch.image)
        return batch.update(**predictions._asdict())

    def val_dataloader(self) -> list:
        """No validation data of its own: zero-shot prediction needs none, and a datamodule's takes precedence."""
        warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")  # it is meant so
        return []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep everything but CLIP, which is large and never changes."""
        super().on_save_checkpoint(checkpoint)
        last = self._is_fitting() and self.current_epoch + 1 >= (self.trainer.max_epochs or 0)
        pack(checkpoint, self.model, self.trained, finished=last)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore class name, options and layers; CLIP stays as it was loaded, if it is the one of the checkpoint.

        Raises:
            ValueError: If the checkpoint was written with another backbone or variant.
        """
        super().on_load_checkpoint(checkpoint)
        self.trained = unpack(checkpoint, self.model, self.hparams, self.class_name)
        self.class_name = self.model.class_name

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Epochs of training, where there is anything to train."""
        if self.learning_type is LearningType.ZERO_SHOT:
            return {}
        return {"max_epochs": self.epochs, "num_sanity_val_steps": 0}

    @property
    def learning_type(self) -> LearningType:
        """Zero-shot; while its layers are untrained, one of those that anomalib trains."""
        untrained = self.model.adapter is not None and not self.trained
        return LearningType.ONE_CLASS if untrained else LearningType.ZERO_SHOT

    @classmethod
    def configure_pre_processor(
        cls,
        image_size: tuple[int, int] | None = None,
        mean: tuple[float, ...] = open_clip.OPENAI_DATASET_MEAN,
        std: tuple[float, ...] = open_clip.OPENAI_DATASET_STD,
    ) -> PreProcessor:
        """Bicubic resize to the square, aspect not kept, and CLIP's normalisation.

        Args:
            image_size: Height and width in pixels; by default those of ViT-B-16-plus-240.
            mean: Mean per channel, for values in [0, 1].
            std: Standard deviation per channel.
        """
        size = image_size or (240, 240)
        return PreProcessor(
            transform=Compose(
                [
                    Resize(size, interpolation=InterpolationMode.BICUBIC, antialias=True),
                    Normalize(mean=list(mean), std=list(std)),
                ]
            ),
        )

    @staticmethod
    def configure_post_processor() -> PostProcessor:
        """The post-processor with the paper's image score, for SDP."""
        return ClipADPostProcessor()

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """The paper's seven figures."""
        return SevenFigures()


def _plain(value: Any) -> Any:
    """Plain Python data of what may come as OmegaConf containers from ``get_model`` or as paths."""
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True)
    return str(value) if isinstance(value, Path) else value


plugin.attach_plugins()  # where anomalib was imported by this module, its hook came too early
