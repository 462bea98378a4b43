"""ClipAD: CLIP-AD as an anomalib model.

Paper: "CLIP-AD: A Language-Guided Staged Dual-Path Model for Zero-shot Anomaly Detection", arXiv 2311.00453.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from anomalib import LearningType
from anomalib.data import AnomalibDataModule, Batch, ImageBatch, InferenceBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import ImageVisualizer, Visualizer
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from lightning.pytorch.utilities.types import STEP_OUTPUT
from omegaconf import OmegaConf
from torch import Tensor, nn

from . import plugin
from .adaptors.base import Adaptor
from .adaptors.files import TrainedLayers, adapter_file
from .adaptors.losses import total
from .backbones import load_backbone
from .checks import check_choice, check_count, is_number
from .data.validation import ensure_validation_data
from .deploy.exporter import Exporter
from .deploy.graph import InferenceGraph
from .host.calibration import DefectSource, check_guarantee
from .host.checkpoints import KEY, pack, take_normal, unpack
from .host.command_line import message_alone
from .host.evaluator import SevenMetrics
from .host.image_files import FullDepthReading
from .host.post_processor import ClipADPostProcessor
from .host.pre_processor import ClipADPreProcessor, lasting
from .host.preparation import Preparation
from .host.references import References
from .host.shares import count_once
from .host.statistics import require_labels, reset_metrics
from .host.tiler import SourceSize, tiles_of
from .host.visualizer import ClipADVisualizer
from .predictor.live import LivePredictor
from .settings import Settings, Variant
from .text.cache import EmbeddingCache
from .text.class_encoder import check_class_name
from .text.methods import Method
from .torch_model import ClipADModel
from .training.adapter_training import AdapterTraining
from .training.feature_cache import CACHE_KINDS, CacheKind
from .training.optimizer import optimizer_of
from .vision.choices import JoiningName, Precision, Tap
from .vision.tiles import Tiles

logger = logging.getLogger(__name__)
_TRUE_PRECISIONS = {"bf16-true", "16-true", "64-true", "transformer-engine", "transformer-engine-float16"}
"""Lightning's precisions that cast a whole model."""


_FITTING = (TrainerFn.FITTING, TrainerFn.VALIDATING)
"""What fits statistics anew."""


class ClipAD(AnomalibModule):
    """CLIP-AD: zero-shot anomaly detection and segmentation with CLIP.

    Patches of an image are compared with two vectors of text, one for the flawless and one for the damaged object. In
    SDP nothing is trained; SDP+ adds linear layers trained on other data. Validation data, where there is any, only
    sets thresholds and the scale of scores.

    Args:
        class_name: What the images show, such as ``hazelnut`` or ``metal_nut``. Without it the datamodule's
            ``category`` is taken, else "object".
        backbone: CLIP model: an open_clip name, ``hf-hub:owner/model``, ``local-dir:/folder``, the path of an
            open_clip model configuration (``.json``), or ``clipad-mini``, which is part of the package.
        pretrained: Weights of the backbone: an open_clip tag, the path of a weights file, or ``tag:path`` for the file
            of a tag that was downloaded by hand. ``null`` means random weights.
        image_size: Height and width in pixels at which the model sees images, a multiple of the backbone's patch
            size. By default the backbone's own.
        rvs: Method of representative vector selection: ``mean``, ``pca``, ``kde``, ``dbscan`` or ``mean_shift``.
        rvs_options: Parameters of that method: ``bandwidth`` (kde 0.3, mean_shift 2), ``eps`` and ``min_samples``
            (dbscan 0.5 and 15; the paper uses 1.5 and 25 on VisA).
        prompts: ``industrial``, the paper's prompts; ``medical``, a set of our own; or the path of a YAML file with
            the lists ``normal``, ``abnormal`` (states such as ``flawless {}``) and ``templates`` (such as
            ``a photo of a {}.``).
        smoothing: Standard deviation of the anomaly map's Gaussian in pixels at the model's image size. By default that
            of the variant: 8 (the paper: 2 for SDP+ on VisA), of AF-CLIP 4, of AA-CLIP 0.
        tap: Where the ordinary path is read at the end of a stage: ``reference``, as in all published results, or
            ``block``, the output of the stage's last block.
        text_cache: Keep prompt embeddings on disk between runs.
        precision: Number format of the image tower: ``float32``, ``bfloat16`` (fast on processors with bf16 matrix
            units) or ``float16`` (GPU only). Text features, scores and maps are float32 in any case.
        variant: ``sdp``, or one with layers, which ``anomalib train`` trains on the data module ``Auxiliary``, or which
            ``adapter`` brings along: ``sdp_plus``, four linear layers, ``af_clip`` or ``aa_clip``.
        adapter: Trained layers: a file (``.safetensors`` of this package, ``.ckpt`` of a training, ``.pth`` of SDP+'s
            authors), a folder of the two files of AF-CLIP's or AA-CLIP's authors, or what was released: ``visa`` or
            ``mvtec`` of SDP+, ``af_clip_visa`` or ``af_clip_mvtec``.
        epochs: Epochs of training; they take the place of the trainer's ``max_epochs``. By default those of the
            variant's authors: 5 of SDP+, 2 of AF-CLIP, 25 of AA-CLIP, whose first fifth trains the text tower's layers.
        learning_rate: Learning rate of training, by Adam. By default that of the variant's authors: 1e-4, of AA-CLIP
            5e-4, and a fiftieth of it for the text tower's layers.
        feature_cache: Where the patch features of training pictures, which never change, are kept between epochs:
            ``none``, ``memory`` or ``disk``. In the second stage of AA-CLIP's training they change, and are not kept.
        as_coded: Train as the authors' programs do, also where their papers say otherwise: AF-CLIP's gradient; the
            losses and the attention of the first stage of AA-CLIP.
        k_shot: Number of normal images to compare with, the first ones of the datamodule's training split or of
            ``few_shot_source``. By default none, or all of ``few_shot_source`` where that is given.
        few_shot_source: Folder of normal images, a single one, or a product file of ``anomalib-clipad product``.
        memory_size: Patches of each stage that are kept of the normal images, chosen by a greedy coreset; all by
            default.
        mutual: Compare the images of a run with each other. None of them needs to be known as normal.
        pool: How many images at most are compared with, where ``mutual``; of more, some are chosen by a fixed seed.
        text_weight: Share of the text in [0, 1] where images are compared with others too. By default 0.25, or 0.5 of
            a plain sum; with 0 no class name is needed.
        joining: How text and other images are joined: ``spread``, each in units of the spread of its own peaks among
            the normal images (three or more; of unlabelled ones eight or more; else ``sum``), or ``sum``, the
            published plain sum.
        tiles: Rows and columns of overlapping tiles, for small defects in large images: each tile is seen at the
            model's image size, beside the whole image. The map comes out at the tiles' resolution, with the default
            pre-processor about (1 + 3 rows) / 4 times the image size high; any other may deliver other sizes that the
            tiles cover. anomalib's ``TilerConfigurationCallback`` sets them too, see ``follow_tiler``.
        aligned: Where there are tiles and normal images: compare a tile with the tiles of the same place only, for
            parts that lie in a fixture.
        false_alarm_rate: Largest share of normal images that are called defective, such as 0.05: labels and masks then
            follow conformal p-values, and predictions have ``p_value``. It takes 1 / rate - 1 calibration images or
            more. By default labels follow the threshold with the best F1 on labelled validation data.
        calibration_source: Folder of normal images that are neither references nor scored; ``validation``, the
            datamodule's validation split; or ``references``, those normal images, each left out in turn. By default
            the validation split where it has no defective images, else the references.
        miss_rate: Largest share of defects that are called good, such as 0.1, beside ``false_alarm_rate``: predictions
            then have ``verdict`` too: 0 good, 1 look, 2 defective. It takes 1 / rate - 1 known defects or more.
        defect_source: Known defects, neither scored nor among the other images: the ticks of an audit (``ticks.csv``),
            or a folder of those of a random or complete inspection.
        verify_images: Folder of images that exports carry with their scores, for ``anomalib-clipad verify``; by
            default generated ones.
        pre_processor: anomalib pre-processor, or whether to use the default: bicubic resize to the square, or with
            tiles to their rectangle, CLIP's normalisation.
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
        smoothing: float | None = None,
        tap: Tap = "reference",
        text_cache: bool = True,
        precision: Precision = "float32",
        variant: Variant = "sdp",
        adapter: str | Path | None = None,
        epochs: int | None = None,
        learning_rate: float | None = None,
        feature_cache: CacheKind = "none",
        as_coded: bool = False,
        k_shot: int | None = None,
        few_shot_source: str | Path | None = None,
        memory_size: int | None = None,
        mutual: bool = False,
        pool: int = 100,
        text_weight: float | None = None,
        joining: JoiningName = "spread",
        tiles: list[int] | None = None,
        aligned: bool = False,
        false_alarm_rate: float | None = None,
        calibration_source: str | Path | None = None,
        miss_rate: float | None = None,
        defect_source: str | Path | None = None,
        verify_images: str | Path | None = None,
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        given = locals()
        with message_alone():
            if class_name is not None:
                check_class_name(class_name)
            _check_training(epochs, learning_rate, feature_cache)
            source = None if few_shot_source is None else Path(few_shot_source).expanduser()
            references = References(k_shot, source, memory_size, mutual, pool)
            normal = check_guarantee(false_alarm_rate, calibration_source, mutual)
            known = DefectSource.of(miss_rate, defect_source, false_alarm_rate)
            chosen = {option.name: _plain(given[option.name]) for option in Settings.options()}
            layers = None if adapter is None else TrainedLayers(adapter)
            if layers is not None:
                chosen = layers.settings(chosen)
            settings = Settings.of(**chosen)
            references.check_tiles(settings.tiles, settings.aligned)
            if layers is not None:
                adapter_file(layers.source)  # before a backbone is loaded for nothing
            loaded = load_backbone(settings.backbone, settings.pretrained, settings.image_size)
            model = ClipADModel(loaded, settings, EmbeddingCache() if text_cache else None)
            if model.adapter is not None and layers is not None:
                layers.load(model.adapter, model.settings, model.fingerprint)
        if pre_processor is True:
            pre_processor = self.configure_pre_processor(model.input_size, loaded.mean, loaded.std)
        super().__init__(
            pre_processor=lasting(pre_processor),
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )
        self.model: ClipADModel = model
        self.class_name = class_name
        stages = (model.adapter or Adaptor).course
        self.epochs = sum(stage.epochs for stage in stages) if epochs is None else epochs
        self.learning_rate = stages[-1].learning_rate if learning_rate is None else learning_rate
        self.feature_cache = feature_cache
        if model.adapter is not None:
            model.adapter.as_coded = as_coded
        self._pinned = False  # whether a checkpoint chose the class name
        self._training: AdapterTraining | None = None
        if false_alarm_rate is not None and not isinstance(self.post_processor, ClipADPostProcessor):
            msg = "Verdicts at a false-alarm rate are those of ClipADPostProcessor; leave out post_processor."
            raise ValueError(msg)
        own = self.post_processor if isinstance(self.post_processor, ClipADPostProcessor) else None
        if own is not None and false_alarm_rate is not None:
            own.false_alarm_rate = false_alarm_rate
        self.preparation = Preparation(LivePredictor(model, self._pre_process, own), references, normal, known)
        self.verify_images = None if verify_images is None else Path(verify_images).expanduser()
        self._record_settings()

    def _record_settings(self) -> None:
        """Keep the model's settings as hyper-parameters: plain data, with which a checkpoint constructs it again."""
        sources = ("k_shot", "calibration_source", "verify_images", "few_shot_source", "memory_size", "adapter")
        emptied = dict.fromkeys((*sources, "miss_rate", "defect_source"))  # a checkpoint has the memory itself
        self.hparams.update({**self.model.settings.as_dict(), **emptied, "aligned": False})
        self.hparams.update({"mutual": self.references.mutual, "pool": self.references.pool})

    def forward(self, batch: Tensor, *args: Any, **kwargs: Any) -> InferenceBatch:
        """Find defects in RGB images (B, 3, H, W) in [0, 1], as ``Engine.predict`` does."""
        del args, kwargs
        self.preparation.predictor.check_size(*batch.shape[-2:])
        self.prepare()
        if self.references.mutual and self.model.pool is None:
            msg = "mutual compares the images of a whole run: use the engine's predict or test, or pass k_shot instead."
            raise RuntimeError(msg)
        found = self.model(self._pre_process(batch))  # anomalib's forward would resize without antialiasing
        return self.post_processor(found) if self.post_processor else found

    def prepare(self) -> None:
        """Encode the prompts of the class and remember the normal images, as the engine does before it predicts.

        Raises:
            ValueError: If there are no normal images to remember.
            RuntimeError: If its layers are not trained.
        """
        self._encode_class()
        self.preparation.remember(self._datamodule)
        self.preparation.certify(self._datamodule)

    # Class name and text features

    def _encode_class(self) -> None:
        """Encode the prompts of the class, unless that is already done or restored from a checkpoint.

        Raises:
            RuntimeError: If its layers are not trained.
        """
        if self.model.untrained and not self._is_running(TrainerFn.FITTING):
            msg = (
                f"The layers of {self.model.title} are not trained. Train them with `anomalib train` on the data "
                "module Auxiliary, or pass trained ones as `adapter` or in a checkpoint."
            )
            raise RuntimeError(msg)
        if self.model.settings.uses_text:
            self.preparation.encode(*self._resolve_class_name(), self._is_running(*_FITTING))

    def on_validation_start(self) -> None:
        """Begin with empty metrics, the text features of the class, and the images to compare with."""
        reset_metrics(self)
        self._begin(self.trainer.val_dataloaders)

    def on_test_start(self) -> None:
        """Begin as in validation."""
        reset_metrics(self)
        self._begin(self.trainer.test_dataloaders)

    def on_predict_start(self) -> None:
        """Begin with the text features of the class and the images to compare with."""
        self._begin(self.trainer.predict_dataloaders)

    def _begin(self, loader: Any) -> None:
        self._encode_class()
        if self._is_running(TrainerFn.FITTING):
            self.model.refresh()
            return
        self.preparation.remember(self._datamodule, self._is_running(*_FITTING))
        self.preparation.gather(loader, self.trainer.global_rank, self.trainer.world_size)
        self.preparation.certify(self._datamodule)

    def on_validation_end(self) -> None:
        """Let go of the images that were compared with each other."""
        self.preparation.finish()

    on_test_end = on_validation_end
    on_predict_end = on_validation_end

    @property
    def _datamodule(self) -> Any:
        """The data of the run, if it has any."""
        return getattr(self._trainer, "datamodule", None) if self._trainer else None

    def _resolve_class_name(self) -> tuple[str, str]:
        """The class name and where it comes from: the argument, else the datamodule's category, else "object"."""
        category = getattr(self._datamodule, "category", None)
        if self.class_name is None:
            return (str(category), "the datamodule's category") if category else ("object", "default")
        if self._pinned and category and category != self.class_name:
            logger.warning(
                "The checkpoint is for the class '%s' and stays with it, though the data is of '%s'. Set the model's "
                "class_name to '%s', or None, to change that.",
                self.class_name,
                category,
                category,
            )
        return self.class_name, "given"

    def _is_running(self, *functions: TrainerFn) -> bool:
        """Whether the engine is at one of these functions right now."""
        if self._trainer is None:
            return False
        return self.trainer.state.status == TrainerStatus.RUNNING and self.trainer.state.fn in functions

    @property
    def references(self) -> References:
        """What images are compared with, besides the text."""
        return self.preparation.references

    def _pre_process(self, images: Tensor) -> Tensor:
        """Pre-process images (..., 3, H, W) as the engine does."""
        transform: Any = self.pre_processor.transform if self.pre_processor else None
        return transform(images) if transform else images

    # Tiles

    def follow_tiler(self) -> None:
        """Cut images as anomalib's ``TilerConfigurationCallback`` asks for, if it does.

        Its ``tile_size`` is the model's image size, and images have to be larger than that: pass a pre-processor that
        delivers them so. Rows and columns follow from that size and the ``stride``, and the tiles are spread evenly::

            pre_processor = ClipAD.configure_pre_processor((480, 480))  # or PreProcessor(Compose([Resize, Normalize]))
            tiler = TilerConfigurationCallback(enable=True, tile_size=240, stride=180)
            Engine(callbacks=[tiler]).test(ClipAD(pre_processor=pre_processor), datamodule=data)

        Raises:
            ValueError: If its sizes do not fit the model's and the pre-processor's.
        """
        size, settings = self.model.image_size, self.model.settings
        if self.model.tiler is None:
            return
        height, width = self._pre_process(torch.zeros(1, 3, size, size)).shape[-2:]
        tiles = tiles_of(self.model.tiler, size, height, width)
        if tiles == settings.tiles:
            return
        self.references.check_tiles(tiles, settings.aligned)
        with warnings.catch_warnings(record=True) as said:  # also where a run only validates
            warnings.simplefilter("always")
            self.preparation.forget_references()
            self.model.configure(replace(settings, tiles=tiles))
            cast("Tiles", self.model.detector.tiles).check(height, width)
            self.preparation.predictor.changed(f"tiles={list(tiles)}")
        for one in said:
            logger.warning("%s", one.message)
        self._record_settings()

    # Evaluation

    def setup(self, stage: str) -> None:
        """Check Lightning's precision, allow data without a validation set, share images among processes exactly.

        Raises:
            ValueError: If the trainer's precision would cast the whole model, or the tiler does not fit the model.
        """
        super().setup(stage)
        self.follow_tiler()
        if str(self.trainer.precision) in _TRUE_PRECISIONS:
            msg = (
                f"The engine's precision '{self.trainer.precision}' would cast scores and thresholds too. Leave it at "
                "'32-true' and set the model's own: ClipAD(precision='bfloat16'), or 'float16' on a GPU."
            )
            raise ValueError(msg)
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, AnomalibDataModule):
            ensure_validation_data(data)
        if stage in {"validate", "test"} and self.trainer.world_size > 1:
            count_once(self.trainer.strategy)

    def configure_callbacks(self) -> list[Callback]:
        """Components of anomalib, and before them the care for image files and their size."""
        return [FullDepthReading(), SourceSize(), *cast("list[Callback]", super().configure_callbacks())]

    def validation_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Predict a batch; the post-processor fits itself on the predictions."""
        del args, kwargs
        require_labels(batch)
        self._notice(batch, calibrated=False)  # a validation split may calibrate
        predictions = self.model(batch.image)
        return batch.update(**predictions._asdict())

    def test_step(self, batch: Batch, batch_idx: int, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Predict a batch, which has to have labels."""
        require_labels(batch)
        self._notice(batch)
        return super().test_step(batch, batch_idx, *args, **kwargs)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> STEP_OUTPUT:
        """Predict a batch."""
        self._notice(batch)
        return super().predict_step(batch, batch_idx, dataloader_idx)

    def _notice(self, batch: Batch, calibrated: bool = True) -> None:
        self.preparation.notice(map(str, getattr(batch, "image_path", None) or ()), calibrated)

    def val_dataloader(self) -> list:
        """No validation data of its own: zero-shot prediction needs none, and a datamodule's takes precedence."""
        warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")  # it is meant so
        return []

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep everything but CLIP, which is large and never changes."""
        super().on_save_checkpoint(checkpoint)
        fitted = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        pack(checkpoint, self.model, finished=fitted and self._is_last_epoch)
        checkpoint[KEY] |= self.preparation.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore class name, settings and layers; CLIP stays as it was loaded, if it is the one of the checkpoint.

        Raises:
            ValueError: If the checkpoint was written by another version, or with another backbone, variant or tiler.
        """
        super().on_load_checkpoint(checkpoint)
        asked = self.model.settings.tiles
        old = take_normal(checkpoint)
        unpack(checkpoint, self, self.model)
        written = self.model.settings.tiles
        if self.model.tiler is not None and written != asked:
            msg = (
                f"The checkpoint was written with tiles={written}, TilerConfigurationCallback asks for {asked}. Leave "
                "out the callback, or fit the model anew with it."
            )
            raise ValueError(msg)
        restored = self.model.class_name
        if self.class_name not in {None, restored}:
            warnings.warn(
                f"The checkpoint is for the class '{restored}', which replaces '{self.class_name}'.", stacklevel=2
            )
        self.class_name, self._pinned = restored, restored is not None
        self.preparation.restore(checkpoint[KEY], old)
        self._record_settings()

    # Training

    @property
    def learning_type(self) -> LearningType:
        """Zero-shot or few-shot; while its layers are untrained, one of those that anomalib trains."""
        if self.model.untrained:
            return LearningType.ONE_CLASS
        return LearningType.FEW_SHOT if self.references.few_shot else LearningType.ZERO_SHOT

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Epochs of training, where there is anything to train."""
        if self.learning_type is not LearningType.ONE_CLASS:
            return {}
        arguments = {"max_epochs": self.epochs, "num_sanity_val_steps": 0}
        if len(cast("Adaptor", self.model.adapter).course) > 1:  # each stage has a batch size of its own
            arguments["reload_dataloaders_every_n_epochs"] = 1
        return arguments

    def configure_optimizers(self) -> Any:
        """Adam on the layers; none where there is nothing to train."""
        adapter = self.model.adapter
        return None if adapter is None else optimizer_of(adapter, self.learning_rate)

    def on_fit_start(self) -> None:
        """Encode the prompts of all training categories."""
        data, epochs = getattr(self.trainer, "datamodule", None), self.trainer.max_epochs or 0
        self._training = AdapterTraining(self.model, data, self.feature_cache, epochs)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """The losses of the layers, summed."""
        del batch_idx
        losses = self.training_part.losses(batch, self.current_epoch)
        if self._is_last_epoch:
            self.training_part.sample(batch)
        loss, size = total(losses), batch.batch_size
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size)
        self.log_dict({f"train_{name}": value for name, value in losses.items()}, batch_size=size)
        return loss

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """From the first step on the layers are trained ones."""
        del args, kwargs
        self.training_part.adapter.trained.fill_(True)

    def on_train_epoch_end(self) -> None:
        """Write the layers, and at the end say whether they are better than none."""
        self.model.refresh()
        if not self.trainer.is_global_zero:
            return
        folder = Path(self.trainer.default_root_dir)
        self.training_part.save(folder, self.current_epoch + 1, self.learning_rate)
        if self._is_last_epoch:
            sdp, plus = self.training_part.compare()
            title = self.model.title
            logger.info("Pixel AUROC on training pictures: SDP %.3f, %s %.3f.", sdp, title, plus)
            if plus < sdp:
                warnings.warn(
                    f"{title} is worse than SDP on its own training pictures: pixel AUROC {plus:.3f} against {sdp:.3f} "
                    f"after {self.global_step} steps. Train for more steps (epochs={5 * self.epochs}, more pictures), "
                    "or stay with SDP.",
                    stacklevel=2,
                )

    def on_fit_end(self) -> None:
        """Let go of text features and patch features."""
        self._training = None

    @property
    def _is_last_epoch(self) -> bool:
        return self.current_epoch + 1 >= (self.trainer.max_epochs or 0)

    @property
    def training_part(self) -> AdapterTraining:
        """The training that is going on."""
        assert self._training is not None, "training has not started"
        return self._training

    # Export

    def deployed(self, text_input: bool = False, memory_input: bool = False) -> InferenceGraph:
        """The model as one module, from images in [0, 1] to scores, labels, maps and masks; see ``Exporter.graph``.

        Raises:
            RuntimeError: If the model has no class name, or untrained layers.
        """
        return self._exporter(text_input, memory_input).deployed(text_input, memory_input).to(self.device)

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Write a ``.pt`` file; see ``Exporter.to_torch``."""
        return self._exporter().to_torch(export_root, model_file_name)

    def to_onnx(  # type: ignore[override]  # anomalib's export replaces Lightning's
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        text_input: bool = False,
        memory_input: bool = False,
        **kwargs: Any,
    ) -> Path:
        """Write an ONNX file; see ``Exporter.to_onnx``."""
        exporter = self._exporter(text_input, memory_input)
        return exporter.to_onnx(export_root, model_file_name, input_size, text_input, memory_input, **kwargs)

    def to_openvino(self, export_root: Path | str, model_file_name: str = "model", *args: Any, **kwargs: Any) -> Path:
        """Write OpenVINO's files; see ``Exporter.to_openvino``."""
        return self._exporter().to_openvino(export_root, model_file_name, *args, **kwargs)

    def _exporter(self, text_input: bool = False, memory_input: bool = False) -> Exporter:
        if self.references.mutual:
            msg = "mutual compares the images of a whole run, which a file cannot. Export with k_shot, or with neither."
            raise RuntimeError(msg)
        if not text_input:
            if self.model.settings.uses_text and self.model.class_name is None and self.class_name is None:
                msg = "An exported model is for one class; give class_name, or a checkpoint that has one."
                raise RuntimeError(msg)
            self._encode_class()
        if not memory_input:
            self.preparation.remember(self._datamodule)
        if not (text_input or memory_input):
            self.preparation.certify(self._datamodule)
        transform = cast("nn.Module | None", self.pre_processor.transform if self.pre_processor else None)
        images, defects = self.preparation.calibration_images(), self.preparation.known_defects()
        return Exporter(self.preparation.predictor, transform, self.post_processor, images, self.verify_images, defects)

    # Components

    @classmethod
    def configure_pre_processor(
        cls,
        image_size: tuple[int, int] | None = None,
        mean: tuple[float, ...] = open_clip.OPENAI_DATASET_MEAN,
        std: tuple[float, ...] = open_clip.OPENAI_DATASET_STD,
    ) -> PreProcessor:
        """Pillow's bicubic resize to the square, aspect not kept, and CLIP's normalisation.

        Args:
            image_size: Height and width in pixels; by default those of ViT-B-16-plus-240.
            mean: Mean per channel, for values in [0, 1].
            std: Standard deviation per channel.
        """
        return ClipADPreProcessor(image_size or (240, 240), mean, std)

    @staticmethod
    def configure_post_processor() -> PostProcessor:
        """The post-processor with the paper's image score."""
        return ClipADPostProcessor()

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """The paper's seven metrics."""
        return SevenMetrics()

    @classmethod
    def configure_visualizer(cls) -> ImageVisualizer:
        """The visualizer that gives every image a picture of its own."""
        return ClipADVisualizer()


def _check_training(epochs: int | None, learning_rate: float | None, feature_cache: str) -> None:
    if epochs is not None:
        check_count("epochs", epochs)
    if learning_rate is not None and not (is_number(learning_rate) and learning_rate > 0):
        msg = f"learning_rate has to be a positive number; got {learning_rate!r}."
        raise ValueError(msg)
    check_choice("feature_cache", feature_cache, CACHE_KINDS)


def _plain(value: Any) -> Any:
    """Plain Python data of what may come as OmegaConf containers from ``get_model`` or as paths."""
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True)
    return str(value) if isinstance(value, Path) else value


plugin.attach_plugins()  # where anomalib was imported by this module, its hook came too early
