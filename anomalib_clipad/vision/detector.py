"""The detector: images and two vectors of text to a score and an anomaly map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from .choices import JoiningName, Tap
from .joining import LEAST, SHARES, Joining, by_spread, published, spread
from .memory import Memory
from .reader import Read, Reader, View
from .references import leave_one_out, nearest_distance
from .sdp import DualPath
from .smoothing import blur_matrix, smooth, smoothing_matrix, upsampling_matrix
from .surgery import ScoreScale, calibrate_reference_map
from .tiles import Tiles


class Prediction(NamedTuple):
    """What is found in a batch of images; the fields are those of anomalib's ``InferenceBatch``.

    Attributes:
        pred_score: Score of each image (B,).
        pred_label: Whether the image is defective (B,), where that is decided.
        anomaly_map: Score of each pixel (B, H, W).
        pred_mask: Whether the pixel is defective (B, H, W), where that is decided.
    """

    pred_score: Tensor
    pred_label: Tensor | None = None
    anomaly_map: Tensor | None = None
    pred_mask: Tensor | None = None


class Alone(NamedTuple):
    """Image scores as they would be without the other part, each 0.5 between normal and abnormal.

    Attributes:
        text: Of the text alone (B,).
        images: Of the comparison with other images alone (B,).
    """

    text: Tensor
    images: Tensor


class Joined(Prediction):
    """What is found by text and by a comparison with images together.

    Attributes:
        alone: What each of the two says alone; worked out when it is asked for, so that no graph computes it.
    """

    alone: Callable[[], Alone]

    @classmethod
    def of(cls, prediction: Prediction, alone: Callable[[], Alone]) -> Joined:
        """A prediction that knows its parts."""
        joined = cls(*prediction)
        joined.alone = alone
        return joined


def patch_size(visual: nn.Module) -> int:
    """Height and width of an image tower's patches in pixels."""
    return int(cast("nn.Conv2d", visual.conv1).stride[0])


class Described(NamedTuple):
    """What a memory needs of B normal images.

    Attributes:
        tokens: Patch tokens of each view (places, B, 4, N, width).
        text_peaks: Largest value of the text's map of each (B,), if the text has a share.
    """

    tokens: Tensor
    text_peaks: Tensor | None = None


class Seen(NamedTuple):
    """What the tower makes of images, before they are compared with anything.

    Attributes:
        read: What the reader read of each view.
        size: Height and width of the images.
    """

    read: Read
    size: tuple[int, int]


def _stage_by_stage(tokens: Sequence[Tensor]) -> Tensor:
    """Tokens of the four stages (B, N, width) as one (B, 4, N, width), float32, each stage's next to each other."""
    return torch.stack(list(tokens)).float().transpose(0, 1)


class Evidence(NamedTuple):
    """What one pass through the tower tells of a batch, before images are compared with each other.

    Attributes:
        tokens: Outputs of the blocks that end the stages, for the patches (B, 4, N, width).
        cls: Features of the images as wholes, unit vectors (B, D).
        probability: Probability of the abnormal state by the text (B,), if the text has a share.
        text_map: Map of the text alone (B, H, W), as of ``forward`` without a memory, if it has a share.
    """

    tokens: Tensor
    cls: Tensor
    probability: Tensor | None = None
    text_map: Tensor | None = None


class Detector(nn.Module):
    """From images to scores (docs/algorithm.md): a reader of the tower, smoothing, references, tiles.

    Args:
        visual: open_clip ``VisionTransformer``, or its like, in any number format; only read.
        image_size: Height and width of the images in pixels.
        smoothing: Standard deviation of the map's Gaussian in pixels.
        tap: Where the ordinary path is read at the end of a stage.
        adapter: Trained layers, which read the tower in their own way; without them it is SDP.
        memory: Normal images to compare with, if any.
        text_weight: Share of the text where there is something to compare with, in [0, 1]; by default that of the
            joining.
        joining: How text and references are joined where the spreads of both are known: ``spread`` or ``sum``.
        tiles: How larger images are cut, if they are: whole and tiles go through the tower in one batch.

    Raises:
        ValueError: If the Gaussian is wider than the images.

    Example:
        An image becomes a map.

        >>> from open_clip.transformer import VisionTransformer
        >>> visual = VisionTransformer(32, patch_size=16, width=16, layers=4, heads=2, mlp_ratio=2, output_dim=8).eval()
        >>> detector = Detector(visual, image_size=32)
        >>> text = torch.nn.functional.normalize(torch.randn(8, 2), dim=0)  # of a ClassEncoder
        >>> with torch.no_grad():
        ...     score, _, anomaly_map, _ = detector(torch.randn(1, 3, 32, 32), text)
        >>> score.shape, anomaly_map.shape
        (torch.Size([1]), torch.Size([1, 32, 32]))
    """

    sdp = DualPath()
    smoothing_matrix: Tensor
    blur_matrix: Tensor
    reference_matrix: Tensor

    def __init__(
        self,
        visual: nn.Module,
        image_size: int,
        smoothing: float = 8.0,
        tap: Tap = "reference",
        adapter: Reader | None = None,
        memory: Memory | None = None,
        text_weight: float | None = None,
        joining: JoiningName = "spread",
        tiles: Tiles | None = None,
    ) -> None:
        super().__init__()
        if smoothing > image_size:
            msg = f"A smoothing of {smoothing:g} pixels is wider than the images, which have {image_size}; pass less."
            raise ValueError(msg)
        self.visual, self.adapter, self.memory = visual, adapter, memory
        self.image_size, self.smoothing, self.tap = image_size, smoothing, tap
        self.text_weight, self.joined_by, self.tiles = text_weight, joining, tiles
        grid = image_size // patch_size(visual)
        blur = blur_matrix(image_size, smoothing)
        smoothed = smoothing_matrix(grid, image_size, smoothing)
        distances = smoothed if self.reader.by_patches else blur @ upsampling_matrix(grid, image_size)
        self.register_buffer("smoothing_matrix", smoothed, persistent=False)
        self.register_buffer("reference_matrix", distances.clone(), persistent=False)
        if adapter is not None:
            self.register_buffer("blur_matrix", blur, persistent=False)

    @property
    def reader(self) -> Reader:
        """How it compares with text."""
        return self.sdp if self.adapter is None else self.adapter

    @property
    def view(self) -> View:
        """What it lends to its reader."""
        blur = None if self.adapter is None else self.blur_matrix
        return View(self.visual, self.tap, self.smoothing_matrix, blur)

    @property
    def uses_text(self) -> bool:
        """Whether the text has a share where there is something to compare with."""
        return self.text_weight != 0

    @property
    def scale(self) -> ScoreScale:
        """How its raw outputs become probabilities."""
        return self.reader.scale if self.memory is None else self.reference_scale(self.midpoint, self.joining)

    @property
    def joining(self) -> Joining:
        """How text and references are joined, with the memory of now."""
        spreads = None
        if self.memory is not None and self.memory.knows_spreads:
            spreads = float(self.memory.text_spread), float(self.memory.spread)
        return self.joining_of(spreads)

    def joining_of(self, spreads: tuple[float, float] | None) -> Joining:
        """How text and references are joined, by their spreads, if these are known."""
        if self.joined_by == "spread" and spreads is not None and self.uses_text:
            return by_spread(self.share("spread"), *spreads)
        return published(self.share("sum"), self.reader.by_patches)

    def share(self, joining: JoiningName) -> float:
        """Share of the text, in [0, 1]."""
        return SHARES[joining] if self.text_weight is None else self.text_weight

    def reference_scale(self, midpoint: Tensor, joining: Joining) -> ScoreScale:
        """The scale where images are compared with others.

        Args:
            midpoint: The raw map value whose probability is 0.5.
            joining: Of text and references.
        """
        probability = partial(calibrate_reference_map, midpoint=midpoint)
        raw = probability if self.reader.by_patches else None
        return ScoreScale(probability, midpoint, joining.score, joining.peak, raw)

    @property
    def midpoint(self) -> Tensor:
        """The raw map value between normal and abnormal, with the memory of now."""
        memory, joining = cast("Memory", self.memory), self.joining
        text = memory.text_peak if joining.by_peak else self.reader.undecided
        return joining.text * text + joining.references * memory.farthest

    def forward(
        self,
        images: Tensor,
        text: Tensor | None,
        memory: Tensor | None = None,
        joining: Joining | None = None,
    ) -> Prediction:
        """Find defects.

        Args:
            images: Normalised images (B, 3, H, W) of the detector's size, or of one its tiles cover.
            text: Representative vectors, normal and abnormal: (D, 2), or (B, D, 2), one pair per image. ``None`` where
                the text has no share.
            memory: Patch tokens of normal images, in place of the detector's own, as of ``Memory``.
            joining: In place of the detector's own; of a memory that is given, the published one by default.

        Returns:
            ``pred_score`` and ``anomaly_map`` of the reader, or the map's maximum as score where the text has no share.
            With a memory, see ``judge``; with tiles, see ``Tiles`` for how they are merged. Float32.
        """
        if memory is not None:
            memory = normalize(memory.float(), dim=-1)
        elif self.memory is not None:
            memory = self.memory.tokens
        if memory is None or (self.uses_text and text is not None):
            return self.conclude(self.observe(images, outputs=memory is not None), text, memory, joining)
        evidence = self.examine(self._views(images), None)
        return self._judged(evidence, self._distance(evidence.tokens, memory), images.shape[-2:], joining)

    def observe(self, images: Tensor, outputs: bool) -> Seen:
        """One pass through the tower.

        Args:
            images: As in ``forward``.
            outputs: Also keep what is compared with references.
        """
        read = self.reader.read(self.view, self._views(images), outputs)
        return Seen(read, (images.shape[-2], images.shape[-1]))

    def conclude(
        self, seen: Seen, text: Tensor | None, memory: Tensor | None, joining: Joining | None = None
    ) -> Prediction:
        """Compare what was observed with text and references, as ``forward`` does.

        Args:
            seen: Of ``observe``; with its ``outputs``, where there is a memory.
            text: As in ``forward``.
            memory: As in ``forward``; ``None`` for none at all.
            joining: As in ``forward``.
        """
        if self.tiles is not None and text is not None and text.ndim == 3:
            text = text.repeat(self.tiles.places, 1, 1)
        if memory is None:
            assert text is not None, "without references there is nothing but the text"
            found = self.reader.compare(self.view, seen.read.features, text)
            return self._merge(found.score, found.anomaly_map, seen.size)
        evidence = self._evidence(seen.read, text if self.uses_text else None)
        distance = self._distance(evidence.tokens, memory)
        merged = self._judged(evidence, distance, seen.size, joining)
        if evidence.text_map is None or self.memory is None:
            return merged
        return Joined.of(merged, partial(self._alone, evidence, distance, self.memory.farthest, seen.size))

    def _alone(self, evidence: Evidence, distance: Tensor, farthest: Tensor, size: Sequence[int]) -> Alone:
        """Scores of text and references, each as ``forward`` and ``scale`` would have it without the other."""
        by_images = calibrate_reference_map(self.peaks(distance, size), farthest)
        return Alone(self.score_by_text(evidence, size), by_images)

    def score_by_text(self, evidence: Evidence, size: Sequence[int]) -> Tensor:
        """Image scores (B,) without validation data of the text alone, whatever images are compared with.

        Args:
            evidence: Of ``examine``, with a text.
            size: Height and width of the images.
        """
        found = self._merge(evidence.probability, cast("Tensor", evidence.text_map), size)
        return self.reader.scale.score(found.pred_score, cast("Tensor", found.anomaly_map).amax(dim=(-2, -1)))

    def examine(self, images: Tensor, text: Tensor | None) -> Evidence:
        """One pass through the tower, for views that are to be compared with others.

        Args:
            images: Normalised images (B, 3, H, W) of the detector's size.
            text: As in ``forward``.
        """
        if not self.uses_text or text is None:
            tokens, cls = self.reader.read_tokens(self.view, images)
            return Evidence(_stage_by_stage(tokens), cls)
        return self._evidence(self.reader.read(self.view, images, tokens=True), text)

    def _evidence(self, read: Read, text: Tensor | None) -> Evidence:
        tokens = _stage_by_stage(cast("Sequence[Tensor]", read.tokens))
        cls = self.reader.image_features(self.view, read.features)
        found = (None, None) if text is None else self.reader.compare(self.view, read.features, text)
        return Evidence(tokens, cls, *found)

    def judge(self, evidence: Evidence, distance: Tensor, joining: Joining | None = None) -> Prediction:
        """Join text and images (docs/algorithm.md, References).

        Args:
            evidence: Of ``examine``.
            distance: Distance of each patch to other images, summed over the sets of tokens (B, N).
            joining: As in ``forward``.

        Returns:
            ``anomaly_map``: weighted sum of the text's part and the smoothed distances. ``pred_score``: the map's
            maximum, or as it was published: as in ``forward``, or by the reader's own rule.
        """
        joining = joining or self.joining
        anomaly_map = joining.references * smooth(distance, self.reference_matrix)  # (B, H, W)
        own = joining.references * distance.amax(dim=-1)  # with by_patches
        if evidence.text_map is None:
            largest = own if self.reader.by_patches else anomaly_map.amax(dim=(-2, -1))
            return Prediction(pred_score=largest, anomaly_map=anomaly_map)
        anomaly_map = anomaly_map + joining.text * self.reader.text_part(evidence.text_map)
        score = cast("Tensor", evidence.probability)
        if self.reader.by_patches:
            score = own + joining.text * self.reader.text_part(score)
        return Prediction(pred_score=score, anomaly_map=anomaly_map)

    @torch.no_grad()
    def describe(self, images: Tensor, text: Tensor | None = None) -> Described:
        """What a memory needs of normal images (B, 3, H, W), by a text as in ``forward``."""
        places = 1 if self.tiles is None else self.tiles.places
        seen = self.examine(self._views(images), text)
        tokens = seen.tokens.unflatten(0, (places, -1))
        if seen.text_map is None:
            return Described(tokens)
        maps = self._merge_maps(self.reader.text_part(seen.text_map), *images.shape[-2:])
        return Described(tokens, maps.amax(dim=(-2, -1)))

    @torch.no_grad()
    def keep(
        self, described: Described, image: Tensor, choose: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor | None:
        """Fill the memory with normal images that were described before.

        Its scale is the largest value in the maps of the normal images, each compared with all the others; of a single
        image's, compared with its two mirror images.

        Args:
            described: Of k images, in order.
            image: One of the images (1, 3, H, W).
            choose: Which patches to keep: of all, (4, M, width), some, (4, m, width).

        Returns:
            Distance of each view of an image to the other images (places k, N), for ``leave_one_out``; of one image,
            ``None``.

        Raises:
            ValueError: If an image has values that are no numbers.
        """
        tokens = described.tokens
        memory = tokens.movedim(1, 2).flatten(2, 3)  # (places, 4, k N, width)
        if self.tiles is None:
            memory = memory.squeeze(0)
        left_out = self._left_out(tokens.flatten(0, 1)) if tokens.shape[1] > 1 else None
        distance = self._mirrored(image, normalize(memory, dim=-1)) if left_out is None else left_out
        peaks = self.peaks(distance, image.shape[-2:])
        if choose is not None:
            memory = choose(memory) if self.tiles is None else torch.stack([choose(place) for place in memory])
        self.memory = Memory(memory, peaks.max())
        if left_out is not None and tokens.shape[1] >= LEAST:
            self.memory.spread.copy_(spread(self._map_peaks(left_out, image.shape[-2:])))
        if described.text_peaks is not None:
            self.memory.learn_text(described.text_peaks)
        return left_out

    def peaks(self, distance: Tensor, size: Sequence[int]) -> Tensor:
        """Image scores (B,) of images of a height and width without text, by the distances of their views (V, N)."""
        if self.reader.by_patches:
            largest = distance.amax(dim=-1)
            return largest if self.tiles is None else self.tiles.merge_scores(largest)
        return self._map_peaks(distance, size)

    def _map_peaks(self, distance: Tensor, size: Sequence[int]) -> Tensor:
        """Largest values (B,) of the smoothed maps of images, by the distances of their views (V, N)."""
        return self._merge_maps(smooth(distance, self.reference_matrix), *size).amax(dim=(-2, -1))

    @torch.no_grad()
    def leave_one_out(
        self, batches: Iterable[Tensor], text: Tensor | None, distance: Tensor | None = None
    ) -> Prediction:
        """Judge each of several normal images by all the others, as ``forward`` would with a memory of those.

        Args:
            batches: Normalised images (B, 3, H, W), k >= 2 altogether.
            text: As in ``forward``.
            distance: Of ``keep``, where it was given these images.
        """
        places = 1 if self.tiles is None else self.tiles.places
        image, seen = torch.empty(0), []
        for image in batches:
            seen.append(self.examine(self._views(image), text))
        joined = Evidence(*(_by_place(parts, places) for parts in zip(*seen, strict=True)))
        return self._judged(joined, self._left_out(joined.tokens) if distance is None else distance, image.shape[-2:])

    def _distance(self, tokens: Tensor, memory: Tensor) -> Tensor:
        """Distance of each view's patches to the nearest of a memory of unit vectors, summed over the stages (V, N)."""
        if self.tiles is None:
            return self._summed(nearest_distance(tokens, memory))
        groups = zip(self.tiles.group(tokens), self.tiles.group(memory), strict=True)
        return self.tiles.ungroup([self._summed(nearest_distance(seen, known[0])) for seen, known in groups])

    def _left_out(self, tokens: Tensor) -> Tensor:
        """The same distance (V, N) among normal images, each to all the others, from their tokens (V, 4, N, width)."""
        if self.tiles is None:
            return self.reader.distance_unit * leave_one_out(tokens)
        unit = self.reader.distance_unit
        return self.tiles.ungroup([unit * leave_one_out(group) for group in self.tiles.group(tokens)])

    def _summed(self, distances: Tensor) -> Tensor:
        """Distances of the sets (V, sets, N) as one (V, N)."""
        return self.reader.distance_unit * distances.sum(dim=1)

    def _mirrored(self, image: Tensor, memory: Tensor) -> Tensor:
        """The same distance (2 V, N), of the mirror images of one image (1, 3, H, W).

        A tile is mirrored in its place, and its distances are mirrored back, to join those of its neighbours.
        """
        if self.tiles is None:
            mirrored = torch.cat([image.flip(-1), image.flip(-2)])
            return self._distance(self.examine(mirrored, None).tokens, memory)
        views, grid, found = self._views(image), self.reference_matrix.shape[1], []
        for axis in (-1, -2):
            distance = self._distance(self.examine(views.flip(axis), None).tokens, memory)
            found.append(distance.unflatten(1, (grid, grid)).flip(axis).flatten(1))
        return torch.stack(found, dim=1).flatten(0, 1)

    def _views(self, images: Tensor) -> Tensor:
        """What the tower sees of images (B, 3, H, W): themselves, or wholes and tiles."""
        return images if self.tiles is None else self.tiles.views(images)

    def _merge(self, probability: Tensor | None, maps: Tensor, size: Sequence[int]) -> Prediction:
        """One prediction for each image (H, W) large, of the views' probabilities (V,), if any, and maps (V, S, S)."""
        anomaly_map = self._merge_maps(maps, *size)
        if probability is None:
            return Prediction(pred_score=anomaly_map.amax(dim=(-2, -1)), anomaly_map=anomaly_map)
        score = probability if self.tiles is None else self.tiles.merge_scores(probability)
        return Prediction(pred_score=score, anomaly_map=anomaly_map)

    def _judged(
        self, evidence: Evidence, distance: Tensor, size: Sequence[int], joining: Joining | None = None
    ) -> Prediction:
        """``judge``, and one prediction for each image (H, W) large of those of the views."""
        joining = joining or self.joining
        judged = self.judge(evidence, distance, joining)
        alone = evidence.probability is None and not self.reader.by_patches
        merged = self._merge(judged.pred_score, cast("Tensor", judged.anomaly_map), size)
        peak = cast("Tensor", merged.anomaly_map).amax(dim=(-2, -1))
        if isinstance(joining.by_peak, Tensor):  # of a graph for any memory
            return merged._replace(pred_score=torch.where(joining.by_peak, peak, merged.pred_score))
        return merged._replace(pred_score=peak) if alone or joining.by_peak else merged

    def _merge_maps(self, maps: Tensor, height: int, width: int) -> Tensor:
        return maps if self.tiles is None else self.tiles.merge_maps(maps, height, width)

    def check(self, images: Tensor) -> None:
        """Check images before they are scored.

        Raises:
            ValueError: If the images are of another shape, the memory is of other tiles, the model was cast to another
                number format, or the device cannot run the tower's.
        """
        size = (self.image_size, self.image_size) if self.tiles is None else self.tiles.canvas
        if self.tiles is not None and images.ndim == 4:
            height, width = size = (images.shape[2], images.shape[3])
            self.tiles.check(height, width)
        expected = (3, *size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            msg = f"Expected images of shape (B, {', '.join(map(str, expected))}); got {tuple(images.shape)}."
            raise ValueError(msg)
        places = 1 if self.tiles is None else self.tiles.places
        if self.memory is not None and self.memory.places != places:
            msg = (
                f"The memory holds {self.memory.places} views of each normal image, the model has {places}: it was "
                "filled with other tiles. Fill it anew."
            )
            raise ValueError(msg)
        if self.smoothing_matrix.dtype != torch.float32:
            given = str(self.smoothing_matrix.dtype).removeprefix("torch.")
            msg = (
                f"The model was cast to {given}, but scores are computed in float32. Do not cast it: construct it with "
                f"precision='bfloat16' (or 'float16' on a GPU) for a faster image tower."
            )
            raise ValueError(msg)
        if self.visual.proj.dtype == torch.float16 and images.device.type == "cpu":
            msg = "float16 does not run on a CPU; use precision='bfloat16' or 'float32', or a GPU."
            raise ValueError(msg)


def together(parts: Sequence[Described]) -> Described:
    """What was described of several batches as one."""
    peaks = [one.text_peaks for one in parts if one.text_peaks is not None]
    return Described(torch.cat([one.tokens for one in parts], dim=1), torch.cat(peaks) if peaks else None)


def _by_place(parts: Sequence[Any], places: int) -> Any:
    """Views of several batches (places B, ...) as those of one, place by place; ``None`` where there are none."""
    if parts[0] is None:
        return None
    return torch.cat([part.unflatten(0, (places, -1)) for part in parts], dim=1).flatten(0, 1)
