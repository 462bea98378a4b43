"""The inspector: images in, findings out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, overload

import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.checks import check_count, check_counts, in_a_line, is_number
from anomalib_clipad.data.corrections import read_corrections
from anomalib_clipad.data.ticks import Ticks, missed_in_words, read_ticks
from anomalib_clipad.images.alike import identify
from anomalib_clipad.images.listing import files_in, is_folder
from anomalib_clipad.images.mask import read_mask
from anomalib_clipad.images.picture import MAX_PIXELS, Channels, Picture, UnreadableError, is_pillow, read
from anomalib_clipad.noted import noted
from anomalib_clipad.predictor.base import Look, Predictor, Prepared, Scored, Shown
from anomalib_clipad.predictor.exported import ExportedPredictor
from anomalib_clipad.predictor.frame import WHOLE
from anomalib_clipad.verdicts.conformal import check_rate
from anomalib_clipad.verdicts.decision import Decision
from anomalib_clipad.verdicts.defect_scores import VERDICTS
from anomalib_clipad.verdicts.normal_scores import Limits, NormalScores
from anomalib_clipad.verdicts.regions import find_regions

from .ahead import Ahead, OnError, T, in_batches
from .finding import Finding, at_size
from .fitting import Fitting, remark_doubt, remark_few

if TYPE_CHECKING:
    from anomalib_clipad.predictor.live import LivePredictor

    from .teaching import Lesson

_ASPECT = 0.01
_POOL = 100


class _Taken(NamedTuple):
    """An image that was read: itself, what the model takes of it, and what there is to say of it."""

    picture: Picture
    prepared: Prepared
    remark: str | None


class Inspector:
    """Finds defects in images of any kind, and decides.

    Args:
        class_name: What the images show, such as ``hazelnut``; not needed where ``model`` or ``product`` knows, or with
            ``text_weight=0``.
        model: A checkpoint (``.ckpt``) or an exported file (``.onnx``, ``.xml``, ``.pt``). By default a model is built
            from ``backbone`` and the other settings.
        product: A product file of ``anomalib-clipad product``.
        references: Normal images to compare with: a folder, or an iterable of images. Copies count once.
        memory_size: Patches a stage, and with tiles a place, that are kept of the references; by default all.
        mutual: Images none of which is known to be normal, two or more, that judge each other and all that are
            inspected: a folder, or an iterable. What cannot be read of them is passed over.
        pool: How many images of ``mutual`` at most are compared with, by default 100; of more, some are chosen by a
            fixed seed.
        false_alarm_rate: Largest share of normal images that are called defective. It needs ``calibration``, several
            ``references``, or a model that is calibrated.
        calibration: Normal images that set the threshold, neither scored nor in ``references``: a folder, or an
            iterable. Copies count once.
        miss_rate: Largest share of defects that are called good, beside ``false_alarm_rate``: then there are three
            verdicts, and what is neither is to *look* at. It needs ``defects``, or a model that has known ones.
        defects: Known defects, neither scored nor among the other images: the ticks of an audit (``ticks.csv``), a
            folder, or an iterable. They have to come from a random or complete inspection, not from the top of a
            sorted list. Copies count once.
        threshold: An image is defective if its score is above it, in place of the model's own decision; likewise a
            pixel by its map value.
        ignore: What is never looked at: a mask file, or an array (H, W), where it is white, of the images' aspect. The
            score is then the largest map value of the rest, since the image's own probability is of all of it.
        min_area: Smaller regions do not count, in pixels of the image.
        channels: Order of the channels of arrays; ``bgr`` is OpenCV's.
        max_pixels: Larger images are refused.
        batch_size: Images that are scored together, where there are several.
        workers: Threads that read images.
        fitting: Where it is fitted to ``references`` and ``calibration``; by default in this process.
        normal: Former name of ``references``.
        **settings: Those of ``ClipAD`` by which a model is built: ``backbone``, ``pretrained``, ``image_size``,
            ``prompts``, ``rvs``, ``smoothing``, ``precision``, ``adapter``, ``text_weight``, ``tiles`` ...; for an
            exported file ``precision``, OpenVINO's hint.

    Attributes:
        model: What scores images.

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
        references: Any = None,
        memory_size: int | None = None,
        mutual: Any = None,
        pool: int | None = None,
        false_alarm_rate: float | None = None,
        calibration: Any = None,
        miss_rate: float | None = None,
        defects: Any = None,
        threshold: float | None = None,
        ignore: Any = None,
        min_area: int = 0,
        channels: Channels = "rgb",
        max_pixels: int = MAX_PIXELS,
        batch_size: int = 8,
        workers: int = 2,
        fitting: Fitting | None = None,
        normal: Any = None,
        **settings: Any,
    ) -> None:
        references = _renamed(references, normal)
        if channels not in {"rgb", "bgr"}:
            msg = f"channels has to be 'rgb' or 'bgr'; got {channels!r}."
            raise ValueError(msg)
        if mutual is not None:
            others = {"references": references, "product": product, "calibration": calibration}
            others |= {"defects": defects, "miss_rate": miss_rate}
            _check_mutual({**others, "tiles": settings.get("tiles"), "false_alarm_rate": false_alarm_rate})
        elif pool is not None:
            msg = "pool says how many images judge each other; pass it with mutual, or leave it out."
            raise ValueError(msg)
        check_counts(2, pool=pool)
        if false_alarm_rate is not None:
            check_rate(false_alarm_rate)
        self._ticks = read_ticks(Path(defects).expanduser()) if _is_table(defects) else None
        _check_second(miss_rate, defects, threshold, self._ticks)
        _check_compared(references, memory_size, product, settings.get("aligned"))
        if calibration is not None and false_alarm_rate is None and threshold is None:
            msg = "calibration calibrates a false-alarm rate; pass false_alarm_rate too, such as 0.05, or a threshold."
            raise ValueError(msg)
        self.channels, self.max_pixels = channels, check_count("max_pixels", max_pixels)
        self.min_area = check_count("min_area", min_area, 0)
        self.batch_size, self.workers = check_count("batch_size", batch_size), check_count("workers", workers)
        self._ignore = None if ignore is None else read_mask(ignore, max_pixels)
        path = None if product is None else Path(product).expanduser()
        self._checkpoint = None if model is None or Path(model).suffix != ".ckpt" else Path(model).expanduser()
        self.model = _predictor(class_name, model, path, mutual is not None, references is not None, settings)
        self._last: tuple[Picture, Scored, int] | None = None
        self._mutual, fitting = mutual is not None, fitting or Fitting()
        with noted() as notes:
            if references is not None:
                given = _sources(references, "references")
                shown = fitting.references(self, given, memory_size)
            if mutual is not None:
                fitting.pool(self, _sources(mutual), _POOL if pool is None else pool)
                remark_few(0 if (pooled := self.live("mutual").model.pool) is None else len(pooled.rows))
            if calibration is not None:
                fitting.calibration(self, _sources(calibration, "calibration"), false_alarm_rate)
            elif self.model.normal is not None and self._ignore is not None:
                if threshold is None:
                    msg = (
                        "The model is calibrated on all of each image, and now a part is ignored: its p-values would "
                        "be too large. Pass calibration anew, decide by a threshold, or leave out ignore."
                    )
                    raise ValueError(msg)
                self.model.keep_normal(None)
            elif self.model.normal is not None:
                remark_doubt(self.model.normal)
            elif false_alarm_rate is not None and len(self.model.references) > 1:
                if references is None:
                    msg = (
                        "The model is not calibrated, and the images that it compares with are not at hand. Pass "
                        "calibration, a folder of other normal images."
                    )
                    raise ValueError(msg)
                fitting.left_out(self, given, shown, false_alarm_rate)
            if self._ticks is None and defects is not None:
                fitting.defects(self, _sources(defects, "defects"), miss_rate)
            elif self._ticks is not None and self._ticks.defects:
                fitting.defects(self, list(self._ticks.defects), miss_rate)
            else:
                self._known_defects(miss_rate)
        self._notes = tuple(notes)
        self.decide_by(threshold, false_alarm_rate)
        if miss_rate is not None and self.decision.rate is None:
            msg = "miss_rate is the second of two rates; pass false_alarm_rate too, such as 0.05."
            raise ValueError(msg)

    def _known_defects(self, miss_rate: float | None) -> None:
        """Take over the known defects of the model, at another miss rate if one is asked for.

        Raises:
            ValueError: If there are none, or they were scored by what is ignored now.
        """
        normal = self.model.raw_normal
        if normal is None or normal.defects is None:
            if miss_rate is not None:
                msg = "miss_rate takes known defects; pass defects, a folder of them or the ticks of an audit."
                raise ValueError(msg)
            return
        if self._ignore is not None:
            msg = (
                "The known defects of the model were scored with all of each image, and now a part is ignored, so its "
                "miss rate would not hold. Pass defects anew, or leave out ignore."
            )
            raise ValueError(msg)
        if miss_rate is not None:
            self.model.keep_normal(replace(normal, defects=replace(normal.defects, rate=miss_rate)))

    def decide_by(self, threshold: float | None = None, false_alarm_rate: float | None = None) -> None:
        """Decide by another threshold or false-alarm rate from now on; by default as the model does.

        Raises:
            ValueError: If both are given, one is out of range, the model is not calibrated for a rate, or neither is
                given and the model has no decision of its own.
        """
        if threshold is not None and false_alarm_rate is not None:
            msg = "An image is called defective by a threshold or by a false-alarm rate; pass one of them."
            raise ValueError(msg)
        if threshold is not None:
            check_threshold(threshold, self.model.normalized)
        if false_alarm_rate is not None and self.model.normal is None:
            msg = (
                "A false-alarm rate needs normal images that set the threshold; pass calibration, a folder of them, or "
                "several references."
            )
            raise ValueError(msg)
        self._decision_by(threshold, false_alarm_rate, self.model.normal)
        self._asked = threshold, false_alarm_rate

    @property
    def decision(self) -> Decision:
        """By what images are called defective now, and where that comes from."""
        return self._decision_by(*self._asked, self.model.normal)

    @property
    def audited(self) -> tuple[str, ...]:
        """What the ticks of an audit say, in words: how many defects there are, and how many are missed now."""
        if self._ticks is None:
            return ()
        decision, normal = self.decision, self.model.normal
        if not decision.decided or normal is None or normal.defects is None or not self._ticks.defects:
            return (self._ticks.said(),)
        defects, limits = normal.defects, decision.limits
        missed = (
            defects.image_scores <= limits.score if self._ignore is None else defects.region_scores <= limits.region
        )
        return self._ticks.said(), missed_in_words(int(missed.sum()), len(defects))

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say of the images that it was fitted to.

        It is what was warned of: copies, images whose scores stand apart, so few that they are of little use; and where
        the threshold, or what is good, hangs on a single image, which one that is.
        """
        decision, normal = self.decision, self.model.normal
        defects = normal.defects if normal is not None and decision.rate is not None else None
        hints = (decision.hint, None if defects is None else defects.hint)
        return (*self._notes, *(hint for hint in hints if hint is not None))

    def _decision_by(
        self, threshold: float | None, false_alarm_rate: float | None, normal: NormalScores | None
    ) -> Decision:
        """By what images are called defective, with the calibration of now."""
        rate = normal.rate if normal is not None and false_alarm_rate is None else false_alarm_rate
        if threshold is not None:
            return Decision(Limits(threshold, threshold), threshold=threshold)
        if normal is not None and rate is not None:
            return Decision(normal.limits(rate), rate=rate, normal=normal)
        own = self.model.own_limits
        if own is None:
            msg = "This model only scores images (its enable_thresholding is off): pass a threshold to decide by."
            raise ValueError(msg)
        return Decision(own, normal=normal, fitted=self.model.fitted, mutual=self._mutual)

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
            ValueError: If one does not go with the tiles or with the mask of what to ignore.
        """
        if isinstance(images, (str, os.PathLike)) and is_folder(images):
            return self.stream(files_in(Path(images)))
        if _is_one(images):
            taken = self._take(read(images, self.channels, self.max_pixels))
            scored = self.model.score_and_keep(taken.prepared)
            self._last = taken.picture, scored, self.model.version
            return self._conclude(taken, scored)
        return self.stream(images)

    def stream(self, images: Iterable[Any], on_error: OnError | None = None) -> Iterator[Finding]:
        """Look at images one after the other, in batches, while others are read.

        Args:
            images: As of ``inspect``; a ``None`` among them says that there is none for now, so that those before it
                wait for no others. An ``UnreadableError`` stands for an image that cannot be had.
            on_error: Called with what cannot be looked at and why; by default the error ends it all.

        Raises:
            ValueError: Without ``on_error``, if an image cannot be looked at; after the findings of those before it.
            Exception: What ``images`` raises, likewise; and what concerns all images, such as a full memory.
        """
        self._last = None
        for batch in self.read_ahead(images, self._take, on_error):
            for one, scored, index in self._scored(batch, on_error):
                try:
                    finding = self._conclude(one.taken, scored, index)
                except MemoryError as error:
                    if on_error is None:
                        raise
                    on_error(one.source, _too_large(one.source, error))
                    continue
                yield finding

    def _scored(
        self, batch: Sequence[Ahead[_Taken]], on_error: OnError | None
    ) -> Iterator[tuple[Ahead[_Taken], Scored, int]]:
        """The images of a batch with their scores, and their places there; one by one if the model refuses one."""
        try:
            scored = self.model.score([one.taken.prepared for one in batch])
        except ValueError as error:
            if len(batch) > 1:
                for one in batch:
                    yield from self._scored([one], on_error)
            elif on_error is None:
                raise
            else:
                on_error(batch[0].source, error)
            return
        for index, one in enumerate(batch):
            yield one, scored, index

    def again(
        self,
        class_name: str | None = None,
        *,
        prompts: Any = None,
        references: Any = None,
        threshold: float | None = None,
        false_alarm_rate: float | None = None,
        normal: Any = None,
    ) -> Finding:
        """Look at the last image again, otherwise, without a second pass through the tower.

        For another class or other prompts, references that are joined with the text by spread pass through it again.
        What is given stays so for the images that follow. Another class, other prompts or other references let go of
        thresholds and calibration, which were fitted to other scores, with a warning.

        Args:
            class_name: Another name of what it shows.
            prompts: Other prompts, as of ``ClipAD``.
            references: Other normal images to compare with; they pass through the tower.
            threshold: Another threshold.
            false_alarm_rate: Another rate; with other references it is calibrated on them, each left out in turn.
            normal: Former name of ``references``.

        Raises:
            RuntimeError: If there is no last image that was inspected on its own.
            ValueError: If the model is an exported file and more than the decision is to be changed, or a rate is asked
                for and nothing calibrates it. Then nothing changes.
        """
        references = _renamed(references, normal)
        self._looked_at()
        if threshold is not None:
            self.decide_by(threshold, false_alarm_rate)
        if class_name is not None or prompts is not None or references is not None:
            live = self.live("another class, other prompts or references")
            if live.model.pool is not None:
                msg = "Images that judge each other are judged anew by another threshold alone; make another Inspector."
                raise ValueError(msg)
            if false_alarm_rate is not None and references is None:
                msg = (
                    "The calibration does not hold for another class or other prompts, so there is no false-alarm rate "
                    "for it. Make another Inspector with calibration, or pass references with the rate."
                )
                raise ValueError(msg)
            with noted() as notes:
                shown = [] if references is None else self.shown(_sources(references, "references"), reference=True)
                live.look_for(class_name, prompts, anew=bool(shown))
                if shown:
                    live.fit(shown)
                if false_alarm_rate is not None:
                    live.calibrate_left_out(shown, false_alarm_rate, self.look)
            self._notes = tuple(notes)
        if false_alarm_rate is not None:
            self.decide_by(None, false_alarm_rate)
        return self.look_again()

    def look_again(self) -> Finding:
        """The last image, with the model and the decision of now, without a second pass through the tower.

        Raises:
            RuntimeError: If there is no last image that was inspected on its own.
        """
        picture, scored, version = self._looked_at()
        if self.model.version != version:
            scored = self.live("another look").rescore()
            self._last = picture, scored, self.model.version
        taken = _Taken(picture, scored.anomaly_map[0], self._remark(picture))
        return self._conclude(taken, scored)

    def _looked_at(self) -> tuple[Picture, Scored, int]:
        if self._last is None:
            msg = "There is no image to look at again: inspect one first, on its own."
            raise RuntimeError(msg)
        return self._last

    def teach(
        self,
        ticks: Any,
        *,
        unticked: Any = (),
        references: Any = None,
        calibration: Any = None,
        false_alarm_rate: float | None = None,
    ) -> Lesson:
        """Learn from ticks: images ticked as good join the references, as whole images (docs/teaching.md).

        What it had learnt of thresholds and calibration is let go of, with a warning: other references give other
        scores. If the calibration is refused, the model is taught all the same, without one.

        Args:
            ticks: ``ticks.csv`` of the page of a run, or several such files. Their order, and that of the rows, does
                not matter; copies count once. To undo a tick, teach the model of before without it.
            unticked: The other images of the list that was ticked: a folder, or an iterable of files.
            references: The references again, where the model is a checkpoint or came with a product file, which do not
                hold their images.
            calibration: Normal images that set the threshold, as of the class; neither taught nor of that list.
            false_alarm_rate: Largest share of normal images that are called defective; by default that of now.

        Returns:
            What has changed, image by image.

        Raises:
            ValueError: If the model is an exported file or images judge each other, the ticks are none of a run or
                teach nothing, a reference is not at hand, or the calibration is not valid.
            FileNotFoundError: If a file is not there.
        """
        from .teaching import teach

        files = [ticks] if isinstance(ticks, (str, os.PathLike)) else list(ticks)
        corrections = read_corrections(Path(one).expanduser() for one in files)
        again = () if references is None else _sources(references, "references")
        calibrating = () if calibration is None else _sources(calibration, "calibration")
        with noted() as notes:
            lesson = teach(self, corrections, _sources(unticked), again, calibrating, false_alarm_rate)
        self._notes = tuple(notes)
        return lesson

    def save(self, path: str | Path) -> Path:
        """Write the model with its references and calibration, for ``model=`` or ``product=`` of another inspector.

        Args:
            path: A checkpoint (``.ckpt``) or a product file (``.safetensors``), which holds no calibration.

        Raises:
            ValueError: If the file is of another kind or would not hold what decides, or the model is an exported file.
            OSError: If the file cannot be written; it is then as it was before.
        """
        from .saving import save

        return save(self.live("writing"), Path(path).expanduser(), self._checkpoint)

    @property
    def last(self) -> Picture | None:
        """The image of ``look_again``, if there is one."""
        return None if self._last is None else self._last[0]

    def live(self, what: str) -> LivePredictor:
        """Its predictor, which is in torch.

        Args:
            what: That needs it.

        Raises:
            ValueError: If it is an exported file.
        """
        if isinstance(self.model, ExportedPredictor):
            msg = f"An exported file cannot take {what}: build the model from a backbone, or from a checkpoint."
            raise ValueError(msg)
        return cast("LivePredictor", self.model)  # there are two kinds

    def show(self, image: Any, reference: bool = False) -> Shown:
        """What the predictor takes of a normal image."""
        picture = read(image, self.channels, self.max_pixels)
        if not reference:
            self._ignored(picture)
        return self.model.show(picture, str(picture.path or ""), reference)

    @property
    def ignored(self) -> NDArray[np.bool_] | None:
        """What is never looked at, as it was given (H, W)."""
        return self._ignore

    @property
    def look(self) -> Look | None:
        """What is looked at of the map of a normal image, where something is ignored."""
        if self._ignore is None:
            return None
        return lambda anomaly_map, size: at_size(anomaly_map, size, self._resized_mask(size))

    def _take(self, picture: Picture) -> _Taken:
        self._ignored(picture)
        return _Taken(picture, self.model.prepare(picture), self._remark(picture))

    def _remark(self, picture: Picture) -> str | None:
        """What there is to say of an image that the model has seen before."""
        known = self.model.known()
        found = None if known is None else known.find(identify(picture, str(picture.path or "an image")))
        if found is None:
            return None
        kind = "reference or calibration image"
        defects = None if self.model.normal is None else self.model.normal.defects
        if defects is not None and found.digest in {one["digest"] for one in defects.identities}:
            kind = "known defect"
        return f"it is, or looks like, the {kind} {found.name}: nothing can be said about it"

    def _conclude(self, taken: _Taken, scored: Scored, index: int = 0) -> Finding:
        picture, normal = taken.picture, self.model.normal
        decision = self._decision_by(*self._asked, normal)
        limits = decision.limits
        score, anomaly_map = float(scored.score[index]), scored.anomaly_map[index]
        by_text, by_references = scored.text, scored.references
        shown, ignored = picture.shown, self._ignored(picture)
        large = at_size(anomaly_map, shown.shape[:2], ignored)
        if ignored is not None:
            score, limits = float(large.max()), Limits(limits.region, limits.region)
            by_text = by_references = None
        p_value = verdict = None
        if normal is not None and normal.three and decision.rate is not None:
            verdict = VERDICTS[int(normal.judge([score], decision.rate, regions=ignored is not None)[0])]
        if normal is not None:
            p_value = normal.p_value(score) if ignored is None else normal.region_p_value(score)
        if taken.remark is not None:
            warnings.warn(f"{picture.path or 'An image'}: {taken.remark}.", stacklevel=3)
        return Finding(
            image=shown,
            score=score,
            label=not score <= limits.score,
            threshold=limits.score,
            anomaly_map=anomaly_map,
            regions=find_regions(
                large, limits.region, self.min_area, None if normal is None else normal.region_p_value
            ),
            p_value=p_value,
            class_name=self.model.class_name,
            path=picture.path,
            map_threshold=limits.region,
            ignored=ignored,
            remark="; ".join(filter(None, (taken.remark, picture.remark))) or None,
            decided=decision.decided,
            text_score=None if by_text is None else float(by_text[index]),
            reference_score=None if by_references is None else float(by_references[index]),
            verdict=verdict,
        )

    def read_ahead(
        self, images: Iterable[Any], take: Callable[[Picture], T], on_error: OnError | None
    ) -> Iterator[list[Ahead[T]]]:
        """What is taken of images, some at a time, read ahead by some threads.

        Raises:
            Exception: As of ``stream``, after what came before.
        """

        def one(source: Any) -> T:
            try:
                return take(read(source, self.channels, self.max_pixels))
            except (MemoryError, RuntimeError) as error:  # torch raises the latter
                raise _too_large(source, error) from error

        return in_batches(images, one, self.workers, self.batch_size, on_error)

    def shown(self, images: Iterable[Any], reference: bool = False, purpose: str = "calibration") -> list[Shown]:
        """Normal images, or known defects, read and prepared.

        Args:
            images: One or more.
            reference: Whether they are to be compared with.
            purpose: What those are called that have no name, with their numbers.

        Raises:
            ValueError: If one cannot be read or does not fit.
        """

        def take(picture: Picture) -> Shown:
            return self.show(picture, reference)

        shown = [one.taken for batch in self.read_ahead(images, take, None) for one in batch]
        purpose = "references" if reference else purpose
        return [
            one if one.identity.name else one._replace(identity=one.identity._replace(name=f"{purpose} {number}"))
            for number, one in enumerate(shown, 1)
        ]

    def _ignored(self, picture: Picture) -> NDArray[np.bool_] | None:
        """What is not looked at in an image.

        Raises:
            ValueError: If it is of another aspect than the mask.
        """
        if self._ignore is None:
            return None
        (height, width), (own_height, own_width) = picture.pixels.shape[:2], self._ignore.shape
        if abs(width * own_height / (height * own_width) - 1) > _ASPECT:
            msg = (
                f"The mask of what to ignore is {own_width} x {own_height} pixels, {picture.path or 'an image'} is "
                f"{width} x {height}: they are of different aspects. Draw the mask on such an image."
            )
            raise ValueError(msg)
        return self._resized_mask((height, width))

    def _resized_mask(self, size: tuple[int, ...]) -> NDArray[np.bool_]:
        import cv2

        assert self._ignore is not None
        height, width = size
        resized = cv2.resize(self._ignore.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        return np.asarray(resized, bool)


def check_threshold(threshold: float, normalized: bool = True) -> None:
    """Check a threshold of scores, which lie in [0, 1] if they are normalised.

    Raises:
        ValueError: If it is none.
    """
    if not (is_number(threshold, 0, 1) if normalized else is_number(threshold)):
        msg = f"threshold has to be a score{' in [0, 1]' if normalized else ''}; got {threshold!r}."
        raise ValueError(msg)


def _renamed(references: Any, normal: Any) -> Any:
    """References, by their former name if need be."""
    if normal is None:
        return references
    if references is not None:
        msg = "normal is the former name of references; pass references alone."
        raise ValueError(msg)
    warnings.warn("normal is now called references; the old name goes with version 0.4.", DeprecationWarning, 3)
    return normal


def _check_mutual(others: Mapping[str, Any]) -> None:
    given = [name for name, value in others.items() if value is not None]
    if given:
        msg = (
            f"mutual lets whole images judge each other, so their scores depend on each other; it cannot be used with "
            f"{', '.join(given)}. Choose one of them."
        )
        raise ValueError(msg)


def _is_table(images: Any) -> bool:
    """Whether it is a file of ticks."""
    return isinstance(images, (str, os.PathLike)) and Path(images).suffix.lower() == ".csv"


def _check_second(miss_rate: float | None, defects: Any, threshold: float | None, ticks: Ticks | None) -> None:
    """Check what is asked of a second rate, before anything is loaded."""
    if miss_rate is not None:
        check_rate(miss_rate, "miss_rate")
        if ticks is not None:
            ticks.check(miss_rate)
        if threshold is not None:
            msg = "Three verdicts follow two rates; pass miss_rate with false_alarm_rate, and no threshold."
            raise ValueError(msg)
    elif defects is not None and ticks is None:
        msg = "defects are what a miss rate is calibrated on; pass miss_rate too, such as 0.1."
        raise ValueError(msg)


def _check_compared(references: Any, memory_size: int | None, product: Any, aligned: bool | None) -> None:
    if references is not None and product is not None:
        msg = "A product file has its references already; pass it without references."
        raise ValueError(msg)
    check_counts(memory_size=memory_size)
    if memory_size is not None and references is None:
        msg = "memory_size is a number of patches that are kept of references; pass references with it."
        raise ValueError(msg)
    if aligned and references is None and product is None:
        msg = "aligned compares tiles with those of references; pass references with it."
        raise ValueError(msg)


def _sources(images: Any, needed_for: str | None = None) -> list[Any]:
    """What a user gives as several images: a folder, one image, or an iterable.

    Raises:
        ValueError: If there are none, and it is said what they are needed for.
    """
    if isinstance(images, (str, os.PathLike)):
        path = Path(images).expanduser()
        found: list[Any] = files_in(path) if path.is_dir() else [path]
    else:
        found = list(images)
    if not found and needed_for is not None:
        msg = f"There are no images in {needed_for}."
        raise ValueError(msg)
    return found


def _too_large(source: Any, error: Exception) -> UnreadableError:
    """What is said of an image that there is no memory for, or that torch cannot resize."""
    path = source if isinstance(source, (str, os.PathLike)) else getattr(source, "path", None)
    reason = in_a_line(error).rstrip(".") or "it takes more memory than there is"
    return UnreadableError(f"{path or 'The image'} cannot be looked at ({reason}).")


def _is_one(images: Any) -> bool:
    """Whether it is one image and not several."""
    if isinstance(images, (str, os.PathLike, Picture)) or is_pillow(images):
        return True
    dimensions = getattr(images, "ndim", None)
    if dimensions is not None:
        return int(dimensions) <= 3
    return not isinstance(images, Iterable)


def _predictor(
    class_name: str | None,
    model: str | Path | None,
    product: Path | None,
    mutual: bool,
    anew: bool,
    settings: dict[str, Any],
) -> Predictor:
    """What looks at images.

    Raises:
        ValueError: If an argument does not go with it, or its maps cannot be put back on images.
    """
    if model is None:
        from anomalib_clipad.predictor.building import by_name

        return by_name(class_name, product=product, **settings)
    path = Path(model).expanduser()
    predictor: Predictor
    if path.suffix == ".ckpt":
        if settings or product is not None:
            msg = f"A checkpoint has its settings already; pass it without {', '.join([*settings, 'product'])}."
            raise ValueError(msg)
        from .checkpoint import from_checkpoint

        predictor = from_checkpoint(path, class_name, mutual, anew)
    else:
        precision = settings.pop("precision", None)
        if settings:
            msg = f"An exported file has its settings already; pass it without {', '.join(settings)}."
            raise ValueError(msg)
        predictor = ExportedPredictor(path, product, precision, class_name)
    if predictor.frame != WHOLE:
        msg = (
            f"The pre-processing of {path} does not show the whole image ({predictor.frame}), so its map cannot be put "
            "back on the image. Use the engine or the file itself, or a pre-processor that only resizes."
        )
        raise ValueError(msg)
    return predictor
