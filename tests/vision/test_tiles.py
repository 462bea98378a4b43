"""Tiles: what was cut joins again, and a tiled image is scored as its parts are."""

import pytest
import torch
from conftest import remember
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import resize

from anomalib_clipad import ClipADModel
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.vision.tile_grid import TileGrid
from anomalib_clipad.vision.tiles import Tiles

SIDE = 112  # the canvas of 2 x 2 tiles of 64 pixels, which start 48 pixels apart
STARTS = [(top, left) for top in (0, 48) for left in (0, 48)]


def canvas(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def whole(images: Tensor) -> Tensor:
    return resize(images, [64, 64], interpolation=3, antialias=True)


def pieces(images: Tensor) -> list[Tensor]:
    return [images[..., top : top + 64, left : left + 64] for top, left in STARTS]


def merged(whole_map: Tensor, maps: list[Tensor]) -> Tensor:
    """The mean of both resolutions, with the ramps of the overlap of 16 pixels written out."""
    rising = (torch.arange(16) + 0.5) / 16
    first = torch.cat([torch.ones(48), 1 - rising, torch.zeros(48)])
    weights = {0: first, 48: first.flip(0)}
    joined = torch.zeros(len(whole_map), SIDE, SIDE)
    for (top, left), part in zip(STARTS, maps, strict=True):
        joined[:, top : top + 64, left : left + 64] += (
            part * weights[top][top : top + 64, None] * weights[left][left : left + 64]
        )
    return (joined + interpolate(whole_map[:, None], size=(SIDE, SIDE), mode="bilinear")[:, 0]) / 2


@pytest.mark.parametrize(
    ("rows", "columns", "size"),
    [(2, 3, (112, 160)), (1, 4, (64, 208)), (3, 2, (150, 97)), (2, 2, (128, 128)), (4, 5, (117, 128))],
)
def test_joining_what_was_cut_gives_it_back(rows: int, columns: int, size: tuple[int, int]) -> None:
    tiles = Tiles(rows, columns, size=64, patch=16)
    tiles.check(*size)
    images = torch.rand(2, 3, *size)
    cut = tiles.cut(images)
    assert cut.shape == (rows * columns * 2, 3, 64, 64)
    for channel in range(3):
        torch.testing.assert_close(tiles.join(cut[:, channel], *size), images[:, channel], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("size", "patch", "canvas_size"), [(64, 16, (112, 160)), (240, 16, (416, 592)), (336, 14, (588, 840))]
)
def test_neighbours_of_a_canvas_overlap_by_about_a_quarter(size: int, patch: int, canvas_size: tuple) -> None:
    tiles = Tiles(2, 3, size, patch)
    assert tiles.canvas == canvas_size
    pitch = tiles.canvas[0] - size
    assert pitch % patch == 0
    assert abs((size - pitch) / size - 0.25) < 0.02


def test_one_tile_is_no_tile(backbone: Backbone, expected: dict[str, Tensor]) -> None:
    plain, tiled = (ClipADModel(backbone, tiles=tiles) for tiles in (None, [1, 1]))
    assert tiled.settings == plain.settings
    for model in (plain, tiled):
        model.setup("bottle")
    assert torch.equal(plain(expected["images"]).anomaly_map, tiled(expected["images"]).anomaly_map)


@pytest.mark.parametrize(
    "options", [{}, {"tap": "block", "smoothing": 0.0}, {"variant": "sdp_plus"}, {"precision": "bfloat16"}]
)
def test_tiles_are_scored_as_images_of_their_own(backbone: Backbone, options: dict) -> None:
    plain, tiled = ClipADModel(backbone, **options), ClipADModel(backbone, **options, tiles=[2, 2])
    if plain.detector.adapter is not None:
        tiled.detector.adapter.load_state_dict(plain.detector.adapter.state_dict())
    for model in (plain, tiled):
        model.setup("bottle")
    images = canvas(3)
    alone, apart = plain(whole(images)), [plain(piece) for piece in pieces(images)]
    found = tiled(images)
    tolerance = 1e-2 if "precision" in options else 1e-5
    expected = merged(alone.anomaly_map, [part.anomaly_map for part in apart])
    torch.testing.assert_close(found.anomaly_map, expected, atol=tolerance, rtol=0)
    largest = torch.stack([part.pred_score for part in apart]).amax(dim=0)
    torch.testing.assert_close(found.pred_score, (alone.pred_score + largest) / 2, atol=tolerance, rtol=0)


def test_each_image_may_have_a_text_of_its_own(backbone: Backbone) -> None:
    model = ClipADModel(backbone, tiles=[2, 2])
    texts = []
    for name in ("bottle", "metal_nut"):
        model.setup(name)
        texts.append(model.text_features.clone())
    images = canvas(2)
    together = model.detector(images, torch.stack(texts))
    for index, text in enumerate(texts):
        alone = model.detector(images[index : index + 1], text)
        torch.testing.assert_close(together.anomaly_map[index], alone.anomaly_map[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(together.pred_score[index], alone.pred_score[0], atol=1e-5, rtol=0)


def views(images: Tensor) -> list[Tensor]:
    return [whole(images), *pieces(images)]


def by_hand(backbone: Backbone, normal: Tensor, images: Tensor, aligned: bool, share: float) -> Tensor:
    """Maps of a model without tiles, called on each view with the memory of the views it is compared with."""
    model = ClipADModel(backbone, text_weight=share)
    model.setup("bottle")
    maps = []
    for place, (seen, known) in enumerate(zip(views(images), views(normal), strict=True)):
        compared = [known] if aligned or place == 0 else pieces(normal)
        tokens = torch.cat([model.detector.examine(part, None).tokens for part in compared])
        text = model.text_features if share else None
        maps.append(model.detector(seen, text, tokens.transpose(0, 1).flatten(1, 2)).anomaly_map)
    return merged(maps[0], maps[1:])


def remembering(backbone: Backbone, normal: Tensor, share: float = 0.0, **options: object) -> ClipADModel:
    model = ClipADModel(backbone, text_weight=share, tiles=[2, 2], **options)
    model.setup("bottle")
    remember(model, normal)
    return model


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_tiles_are_compared_with_tiles_and_wholes_with_wholes(backbone: Backbone, aligned: bool, share: float) -> None:
    normal, images = canvas(3), canvas(2, seed=1)
    model = remembering(backbone, normal, share, aligned=aligned)
    assert model.detector.memory.tokens.shape == (5, 4, 3 * 16, 64)
    found = model(images)
    torch.testing.assert_close(found.anomaly_map, by_hand(backbone, normal, images, aligned, share), atol=1e-5, rtol=0)
    if not share:
        assert torch.equal(found.pred_score, found.anomaly_map.amax(dim=(-2, -1)))


def test_aligned_tiles_know_less(backbone: Backbone) -> None:
    normal, images = canvas(3), canvas(2, seed=1)
    anywhere, aligned = (remembering(backbone, normal, aligned=aligned)(images) for aligned in (False, True))
    assert (aligned.anomaly_map >= anywhere.anomaly_map - 1e-6).all()
    assert (aligned.anomaly_map - anywhere.anomaly_map).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("aligned", [False, True])
def test_the_scale_is_the_largest_leave_one_out_value_of_the_joined_map(backbone: Backbone, aligned: bool) -> None:
    normal = canvas(3)
    model = remembering(backbone, normal, aligned=aligned)
    largest = [
        by_hand(backbone, torch.cat([normal[:one], normal[one + 1 :]]), normal[one : one + 1], aligned, 0.0).max()
        for one in range(3)
    ]
    torch.testing.assert_close(model.detector.memory.farthest, max(largest), atol=1e-5, rtol=0)


def test_one_image_is_compared_with_its_mirror_images(backbone: Backbone) -> None:
    image = canvas(1)
    model = remembering(backbone, image)
    expected = model(torch.cat([image.flip(-1), image.flip(-2)])).pred_score.max()
    torch.testing.assert_close(model.detector.memory.farthest, expected, atol=1e-5, rtol=0)
    aligned = remembering(backbone, image, aligned=True)
    assert aligned.detector.memory.farthest > expected


def test_patches_are_chosen_place_by_place(backbone: Backbone) -> None:
    model = ClipADModel(backbone, text_weight=0.0, tiles=[2, 2])
    remember(model, canvas(3), lambda memory: memory[:, :7])
    assert model.detector.memory.tokens.shape == (5, 4, 7, 64)
    assert model(canvas(1)).anomaly_map.isfinite().all()


def pictures(count: int, rng: torch.Generator) -> Tensor:
    """Noise with as much contrast at each of eight sizes of detail."""
    octaves = [torch.randn(count, 3, 2**n, 2**n, generator=rng) for n in range(1, 9)]
    return sum(interpolate(octave, size=(256, 256), mode="bicubic") for octave in octaves) / 8**0.5


@pytest.mark.slow
def test_a_small_defect_in_a_large_image_stands_out_with_tiles(backbone: Backbone) -> None:
    """A dot of 3 pixels in pictures of 256, less than a pixel at the model's size; details and noise of all sizes."""
    rng = torch.Generator().manual_seed(1)
    texture = pictures(1, rng)
    normal, good = (texture + 0.1 * pictures(count, rng) for count in (4, 8))
    defective = good.clone()
    for index, image in enumerate(defective):
        top, left = 20 + 24 * index, 220 - 24 * index
        image[:, top : top + 3, left : left + 3] = 3
    contrast, separated = {}, {}
    for tiles in (None, [5, 5]):
        model = ClipADModel(backbone, text_weight=0.0, smoothing=0.0, tiles=tiles)
        size = list(model.input_size)
        assert size == ([64, 64] if tiles is None else [256, 256])
        remember(model, resize(normal, size, interpolation=3, antialias=True))
        scores = [model(resize(part, size, interpolation=3, antialias=True)).pred_score for part in (good, defective)]
        contrast[tiles is not None] = float((scores[1] / scores[0]).mean())
        separated[tiles is not None] = float((scores[1][:, None] > scores[0]).float().mean())  # AUROC
    assert contrast[False] < 1.5
    assert contrast[True] > 3
    assert separated[False] < 0.85
    assert separated[True] == 1


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((64, 64), "2 rows of tiles of 64 pixels do not fit images of 64 x 64 pixels, 1 to 1 would"),
        ((112, 500), "2 columns .* 8 to 28 would"),
        ((40, 112), r"none would.*112 x 112"),
    ],
)
def test_images_the_tiles_do_not_fit_are_refused(backbone: Backbone, size: tuple[int, int], message: str) -> None:
    model = ClipADModel(backbone, tiles=[2, 2])
    model.setup("bottle")
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(1, 3, *size))


def test_images_of_another_shape_are_refused(backbone: Backbone) -> None:
    model = ClipADModel(backbone, tiles=[2, 2])
    model.setup("bottle")
    with pytest.raises(ValueError, match=r"\(B, 3, 112, 112\); got \(1, 1, 112, 112\)"):
        model(torch.zeros(1, 1, 112, 112))
    with pytest.raises(ValueError, match=r"\(B, 3, 112, 112\); got \(3, 112, 112\)"):
        model(torch.zeros(3, 112, 112))


def test_a_memory_of_other_tiles_is_refused(backbone: Backbone) -> None:
    model = remembering(backbone, canvas(2))
    other = ClipADModel(backbone, tiles=[2, 3])
    other.setup("bottle")
    other.detector.memory = model.detector.memory
    with pytest.raises(ValueError, match=r"5 views .* the model has 7"):
        other(torch.zeros(1, 3, 112, 160))


def test_what_compares_whole_images_is_refused(backbone: Backbone) -> None:
    model = ClipADModel(backbone, tiles=[2, 2], text_weight=0.0)
    for see in (model.examine, model.tokens):
        with pytest.raises(ValueError, match="leave out tiles"):
            see(canvas(1))


# Before any image is cut

GRID = TileGrid(rows=2, columns=3, size=64, patch=16, aligned=True)  # on a canvas of 112 x 160 pixels


@pytest.mark.parametrize(("height", "width", "fits"), [(32, 48, True), (31, 48, False), (32, 47, False)])
def test_a_tile_shows_at_least_a_patch_of_pixels(height: int, width: int, fits: bool) -> None:
    if fits:
        GRID.check_source(height, width)
    else:
        with pytest.raises(ValueError, match=rf"{height} x {width} pixels is too small for tiles=\[2, 3\]"):
            GRID.check_source(height, width)


@pytest.mark.parametrize(
    ("stretch", "fits"), [(1.0, True), (1.09, True), (1 / 1.09, True), (1.11, False), (1 / 1.11, False)]
)
def test_aligned_tiles_may_be_stretched_by_less_than_a_patch(stretch: float, fits: bool) -> None:
    """A patch is a tenth of the canvas."""
    width = round(1500 * stretch)
    if fits:
        GRID.check_places(1000, width, aspect=1.5)
    else:
        with pytest.raises(ValueError, match=r"of another shape than the normal images \(1\.50\)"):
            GRID.check_places(1000, width, aspect=1.5)


def test_where_tiles_are_not_aligned_or_the_shape_is_not_known_any_shape_goes() -> None:
    GRID._replace(aligned=False).check_places(100, 1000, aspect=1.5)
    GRID.check_places(100, 1000, aspect=0.0)
