"""The inspector: images in, findings out."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.images.listing import files_in
from anomalib_clipad.images.picture import MAX_PIXELS, Channels, Picture, UnreadableError, open_picture
from anomalib_clipad.predictor.base import ExportedModel, Model, Prepared, Scored
from anomalib_clipad.verdicts.normal_scores import NormalScores
from anomalib_clipad.verdicts.regions import find_regions

from .finding import Finding, at_size

if TYPE_CHECKING:
    from anomalib_clipad.predictor.live import TorchModel

_ASPECT = 0.01
OnError = Callable[[Any, UnreadableError], None]


class Inspector:
    """Finds defects in images of any kind, and decides.

    Args:
        class_name: What the images show, such as ``hazelnut``; not needed where ``model`` or ``product`` knows, or with
            ``text_weight=0``.
        model: A checkpoint (``.ckpt``) or an exported file (``.onnx``, ``.xml``, ``.pt``). By default a model is built
            from ``backbone`` and the other settings.
        product: A product file of ``anomalib-clipad product``.
        normal: Normal images to compare with: a folder, or an iterable of images.
        mutual: Images none of which is known to be normal, two or more, that judge each other and all that are
            inspected: a folder, or an iterable. What cannot be read of them is passed over.
        pool: How many images of ``mutual`` at most are compared with; of more, some are chosen by a fixed seed.
        false_alarm_rate: Largest share of normal images that are called defective. It needs ``calibration``, several
            ``normal`` images, or a model that is calibrated.
        calibration: Normal images that set the threshold, neither scored nor in ``normal``: a folder, or an iterable.
        threshold: Score in [0, 1] from which on an image is defective, in place of 0.5; also of map values.
        ignore: What is never looked at: a mask file, or an array (H, W), where it is white, of the images' aspect. The
            score is then the largest map value of the rest, since the image's own probability is of all of it.
        min_area: Smaller regions do not count, in pixels of the image.
        channels: Order of the channels of arrays; ``bgr`` is OpenCV's.
        max_pixels: Larger images are refused.
        batch_size: Images that are scored together, where there are several.
        workers: Threads that read images.
        **settings: Those of ``ClipAD`` by which a model is built: ``backbone``, ``pretrained``, ``image_size``,
            ``prompts``, ``rvs``, ``smoothing``, ``precision``, ``adapter``, ``text_weight``, ``tiles`` ...; for an
            exported file ``precision``, OpenVINO's hint.

    Raises:
        ValueError: If an argument is not valid, or does not go with another.
        FileNotFoundError: If a file or folder is not there.

    Example:
        >>> inspector = Inspector("hazelnut", backbone="clipad-mini")
        >>> finding = inspector.inspect(np.zeros((120, 160, 3), np.uint8))
        >>> finding.label, finding.map.shape
        (False, (120, 160))
    """

    def __init__(
        self,
        class_name: str | None = None,
        *,
        model: str | Path | None = None,
        product: str | Path | None = None,
        normal: Any = None,
        mutual: Any = None,
        pool: int = 100,
        false_alarm_rate: float | None = None,
        calibration: Any = None,
        threshold: float | None = None,
        ignore: Any = None,
        min_area: int = 0,
        channels: Channels = "rgb",
        max_pixels: int = MAX_PIXELS,
        batch_size: int = 8,
        workers: int = 2,
        **settings: Any,
    ) -> None:
        if channels not in {"rgb", "bgr"}:
            msg = f"channels has to be 'rgb' or 'bgr'; got {channels!r}."
            raise ValueError(msg)
        if mutual is not None:
            others = {"normal": normal, "product": product, "calibration": calibration, "tiles": settings.get("tiles")}
            _check_mutual({**others, "false_alarm_rate": false_alarm_rate}, pool)
        self.channels, self.max_pixels, self.min_area = channels, max_pixels, min_area
        self.batch_size, self.workers = max(batch_size, 1), max(workers, 1)
        self._ignore = None if ignore is None else self._mask(ignore)
        self.model = _model(class_name, model, None if product is None else Path(product), settings)
        self._last: tuple[Picture, Scored] | None = None
        given = [] if normal is None else self._prepared(normal, "normal")
        if given:
            self.torch_model("normal").remember(given)
        if mutual is not None:
            self._gather(mutual, pool)
        self._calibrate(calibration, given, false_alarm_rate)
        self.decide_by(threshold, false_alarm_rate)

    def decide_by(self, threshold: float | None = None, false_alarm_rate: float | None = None) -> None:
        """Decide by another threshold or false-alarm rate from now on; by default as the model does.

        Raises:
            ValueError: If both are given, one is out of range, or the model is not calibrated for a rate.
        """
        if threshold is not None and false_alarm_rate is not None:
            msg = "An image is called defective by a threshold or by a false-alarm rate; pass one of them."
            raise ValueError(msg)
        if threshold is not None:
            check_threshold(threshold)
        normal = self.model.normal
        if false_alarm_rate is not None and normal is None:
            msg = "A false-alarm rate needs normal images that set the threshold; pass calibration, a folder of them."
            raise ValueError(msg)
        rate = normal.rate if normal and threshold is None and false_alarm_rate is None else false_alarm_rate
        if rate is not None and normal is not None:
            self._limits = tuple(normal.limits(rate))
        else:
            self._limits = (0.5, 0.5) if threshold is None else (threshold, threshold)
        if self._ignore is not None:
            self._limits = (self._limits[1], self._limits[1])
        self._threshold = threshold

    @overload
    def inspect(self, images: str | os.PathLike[str] | NDArray[Any]) -> Finding: ...
    @overload
    def inspect(self, images: Any) -> Any: ...
    def inspect(self, images: Any) -> Any:
        """Look at an image, or at several.

        Args:
            images: A path, a Pillow image, a numpy array (H, W, 3) or (H, W), or a torch tensor (3, H, W); or an
                iterable of these, such as a generator of camera frames, or a folder.

        Returns:
            A ``Finding``; or for several a generator of them, in order, which reads ahead while it scores.

        Raises:
            UnreadableError: If one of them is no image.
        """
        if isinstance(images, (str, os.PathLike)) and Path(images).is_dir():
            return self.stream(files_in(Path(images)))
        if _is_one(images):
            picture = open_picture(images, self.channels, self.max_pixels)
            return self._look(picture)
        return self.stream(images)

    def stream(self, images: Iterable[Any], on_error: OnError | None = None) -> Iterator[Finding]:
        """Look at images one after the other, in batches, while others are read.

        Args:
            images: As of ``inspect``; a ``None`` among them says that there is none for now, so that those before it
                wait for no others.
            on_error: Called with what cannot be read and why; by default the error ends it all.
        """
        self._last = None
        for batch in self._batches(images, on_error):
            scored = self.model.score([prepared for _, prepared in batch])
            for index, (picture, _) in enumerate(batch):
                yield self._conclude(picture, float(scored.score[index]), scored.anomaly_map[index])

    def again(
        self,
        class_name: str | None = None,
        *,
        prompts: Any = None,
        normal: Any = None,
        threshold: float | None = None,
        false_alarm_rate: float | None = None,
    ) -> Finding:
        """Look at the last image again, otherwise, without a second pass through the tower.

        What is given stays so for the images that follow.

        Args:
            class_name: Another name of what it shows.
            prompts: Other prompts, as of ``ClipAD``.
            normal: Other normal images to compare with; they pass through the tower.
            threshold: Another threshold.
            false_alarm_rate: Another rate.

        Raises:
            RuntimeError: If there is no last image that was inspected on its own.
            ValueError: If the model is an exported file and more than the decision is to be changed.
        """
        if self._last is None:
            msg = "There is no image to look at again: inspect one first, on its own."
            raise RuntimeError(msg)
        if threshold is not None or false_alarm_rate is not None:
            self.decide_by(threshold, false_alarm_rate)
        picture, scored = self._last
        if not (class_name is None and prompts is None and normal is None):
            model = self.torch_model("another class, other prompts or normal images")
            if model.model.pool is not None:
                msg = "Images that judge each other are judged anew by another threshold alone; make another Inspector."
                raise ValueError(msg)
            if self.model.normal is not None:
                self.model.normal = None
                self.decide_by(self._threshold)
            if class_name is not None or prompts is not None:
                model.look_for(class_name, prompts)
            if normal is not None:
                model.remember(self._prepared(normal, "normal"))
            scored = model.rescore()
            self._last = picture, scored
        return self._conclude(picture, float(scored.score[0]), scored.anomaly_map[0])

    def _look(self, picture: Picture) -> Finding:
        prepared = self.model.prepare(picture)
        keep = getattr(self.model, "score_and_keep", None)
        scored: Scored = self.model.score([prepared]) if keep is None else keep(prepared)
        self._last = picture, scored
        return self._conclude(picture, float(scored.score[0]), scored.anomaly_map[0])

    def _conclude(self, picture: Picture, score: float, anomaly_map: NDArray[np.float32]) -> Finding:
        shown = picture.shown
        ignored = self._ignored(shown.shape[:2], picture.path)
        score_limit, map_limit = self._limits
        normal = self.model.normal
        large = at_size(anomaly_map, shown.shape[:2], ignored)
        of_peak = None if normal is None else normal.region_p_value
        if ignored is not None:
            score = float(large.max())
        of_image = None if normal is None else normal.p_value if ignored is None else normal.region_p_value
        regions = find_regions(large, map_limit, self.min_area, of_peak)
        return Finding(
            image=shown,
            score=score,
            label=not score <= score_limit,
            threshold=score_limit,
            anomaly_map=anomaly_map,
            regions=regions,
            p_value=None if of_image is None else of_image(score),
            class_name=self.model.class_name,
            path=picture.path,
            map_threshold=map_limit,
            ignored=ignored,
        )

    def _batches(self, images: Iterable[Any], on_error: OnError | None) -> Iterator[list[tuple[Picture, Prepared]]]:
        """Pictures and what the model takes of them, read ahead by some threads."""

        def read(source: Any) -> tuple[Picture, Prepared]:
            picture = open_picture(source, self.channels, self.max_pixels)
            return picture, self.model.prepare(picture)

        sources = iter(images)
        ahead: deque[tuple[Any, Future[tuple[Picture, Prepared]]]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            batch: list[tuple[Picture, Prepared]] = []
            more = True
            while more or ahead:
                pause = False
                while more and not pause and len(ahead) < 2 * self.batch_size:
                    source = next(sources, _END)
                    more, pause = source is not _END, source is None
                    if more and not pause:
                        ahead.append((source, pool.submit(read, source)))
                if ahead:
                    source, future = ahead.popleft()
                    try:
                        batch.append(future.result())
                    except UnreadableError as error:
                        if on_error is None:
                            raise
                        on_error(source, error)
                if len(batch) == self.batch_size or (batch and pause and not ahead):
                    yield batch
                    batch = []
            if batch:
                yield batch

    def _prepared(self, images: Any, purpose: str) -> list[Prepared]:
        """Normal images, read and prepared."""
        if isinstance(images, (str, os.PathLike)):
            path = Path(images)
            images = files_in(path) if path.is_dir() else [path]
        prepared = [one for batch in self._batches(images, None) for _, one in batch]
        if not prepared:
            msg = f"There are no images in {purpose}."
            raise ValueError(msg)
        return prepared

    def _gather(self, images: Any, limit: int) -> None:
        """Let images judge each other."""
        model = self.torch_model("mutual")
        from anomalib_clipad.vision.pool import FEW, choose

        sources = files_in(Path(images)) if isinstance(images, (str, os.PathLike)) else list(images)
        chosen = (sources[place] for place in choose(len(sources), limit))
        batches = [[one for _, one in batch] for batch in self._batches(chosen, lambda *_: None)]
        count = sum(map(len, batches))
        if count < 2:
            msg = f"mutual compares images with each other; {count} of {len(sources)} can be read. It takes 2 or more."
            raise ValueError(msg)
        if count < FEW:
            msg = f"mutual compares only {count} images with each other; from {FEW} on it is worth more."
            warnings.warn(msg, stacklevel=3)
        model.gather(batches)

    def measure(self, images: Any, rate: float | None = None) -> tuple[NormalScores, list[str]]:
        """Scores of normal images, as verdicts at a false-alarm rate compare with them, and digests of the images.

        Args:
            images: A folder, or an iterable of images.
            rate: What becomes the rate of the result.

        Raises:
            ValueError: If there are none.
        """
        prepared = self._prepared(images, "calibration")
        starts = range(0, len(prepared), self.batch_size)
        scored = [self.model.score(prepared[start : start + self.batch_size]) for start in starts]
        return NormalScores.of(self._looked_at(scored), rate=rate), list(map(digest, prepared))

    def _calibrate(self, calibration: Any, normal: Sequence[Prepared], rate: float | None) -> None:
        if calibration is not None:
            measured, digests = self.measure(calibration, rate)
            check_apart(map(digest, normal), digests)
            self.model.normal = measured
        elif rate is not None and self.model.normal is None and len(normal) > 1:
            scored = self._looked_at([self.torch_model("normal").left_out(normal)])
            self.model.normal = NormalScores.of(scored, rate=rate, left_out=True)

    def _looked_at(self, scored: Sequence[Scored]) -> list[Scored]:
        """The same without what is ignored."""
        if self._ignore is None:
            return list(scored)
        return [Scored(score, self._without_ignored(maps)) for score, maps in scored]

    def _without_ignored(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        size = maps.shape[-2:]
        return np.stack([at_size(one, size, self._resized_mask(size)) for one in maps])

    def torch_model(self, what: str) -> TorchModel:
        """Its model, which is in torch.

        Args:
            what: That needs it.

        Raises:
            ValueError: If it is an exported file.
        """
        if isinstance(self.model, ExportedModel):
            msg = f"An exported file cannot take {what}: build the model from a backbone, or from a checkpoint."
            raise ValueError(msg)
        return self.model  # type: ignore[return-value]  # there are two kinds

    def _mask(self, ignore: Any) -> NDArray[np.bool_]:
        picture = open_picture(ignore, max_pixels=self.max_pixels)
        return picture.levels.mean(axis=0) > 0.5

    def _ignored(self, size: tuple[int, ...], path: Path | None) -> NDArray[np.bool_] | None:
        if self._ignore is None:
            return None
        (height, width), (own_height, own_width) = size, self._ignore.shape
        if abs(width * own_height / (height * own_width) - 1) > _ASPECT:
            msg = (
                f"The mask of what to ignore is {own_width} x {own_height} pixels, {path or 'an image'} is {width} x "
                f"{height}: they are of different aspects. Draw the mask on such an image."
            )
            raise ValueError(msg)
        return self._resized_mask(size)

    def _resized_mask(self, size: tuple[int, ...]) -> NDArray[np.bool_]:
        import cv2

        assert self._ignore is not None
        height, width = size
        resized = cv2.resize(self._ignore.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        return np.asarray(resized, bool)


_END = object()


def digest(image: Prepared) -> str:
    """Name of a prepared image by its content."""
    return blake2b(image.tobytes(), digest_size=16).hexdigest()


def check_apart(normal: Iterable[str], calibration: Iterable[str]) -> None:
    """Check that no image is compared with itself.

    Args:
        normal: Digests of the images to compare with.
        calibration: Digests of those that set the threshold.

    Raises:
        ValueError: If one is in both.
    """
    if not set(normal).isdisjoint(calibration):
        msg = "An image is in both normal and calibration. It would be compared with itself: use each once."
        raise ValueError(msg)


def check_threshold(threshold: float) -> None:
    """Check a threshold of scores.

    Raises:
        ValueError: If it is none.
    """
    if not 0 <= threshold <= 1:
        msg = f"threshold has to be a score in [0, 1]; got {threshold}."
        raise ValueError(msg)


def _check_mutual(others: Mapping[str, Any], pool: int) -> None:
    given = [name for name, value in others.items() if value is not None]
    if given:
        msg = (
            f"mutual lets whole images judge each other, so their scores depend on each other; it cannot be used with "
            f"{', '.join(given)}. Choose one of them."
        )
        raise ValueError(msg)
    if pool < 2:
        msg = f"pool is a number of images that are compared with, 2 or more; got {pool}."
        raise ValueError(msg)


def _is_one(images: Any) -> bool:
    """Whether it is one image and not several."""
    if isinstance(images, (str, os.PathLike, Picture)) or hasattr(images, "getexif"):
        return True
    dimensions = getattr(images, "ndim", None)
    if dimensions is not None:
        return int(dimensions) <= 3
    return not isinstance(images, Iterable)


def _model(class_name: str | None, model: str | Path | None, product: Path | None, settings: dict[str, Any]) -> Model:
    if model is None:
        from anomalib_clipad.predictor.live import by_name

        return by_name(class_name, product=product, **settings)
    path = Path(model).expanduser()
    if path.suffix == ".ckpt":
        if not path.is_file():
            msg = f"There is no file {path}."
            raise FileNotFoundError(msg)
        if settings or product is not None:
            msg = f"A checkpoint has its settings already; pass it without {', '.join([*settings, 'product'])}."
            raise ValueError(msg)
        from .checkpoint import from_checkpoint

        return from_checkpoint(path, class_name)
    precision = settings.pop("precision", None)
    if settings:
        msg = f"An exported file has its settings already; pass it without {', '.join(settings)}."
        raise ValueError(msg)
    exported = ExportedModel(path, product, precision)
    if class_name is not None and exported.class_name not in {None, class_name}:
        msg = f"{path} looks at '{exported.class_name}', not at '{class_name}'. Leave out the class name, or export it."
        raise ValueError(msg)
    return exported
