"""The variants af_clip and aa_clip of the model: the authors' raw outputs, scores, what is refused."""

from pathlib import Path

import pytest
import torch
from neighbours import close, numbers, tiny, weights
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from anomalib_clipad import ClipADModel
from anomalib_clipad.adaptors.registry import ADAPTORS
from anomalib_clipad.predictor.decision import STATISTICS, Decision, unfitted
from anomalib_clipad.settings import VARIANTS
from anomalib_clipad.vision.detector import Prediction
from anomalib_clipad.vision.pool import Pool, key_of
from anomalib_clipad.vision.references import ranged

NEIGHBOURS = {"af_clip": ("af", 5e-5), "aa_clip": ("aa", 1e-4)}


def load(model: ClipADModel, prefix: str) -> ClipADModel:
    own = model.adapter.state_dict()
    own.update(weights(numbers(), f"{prefix}/weights/"))
    model.adapter.load_state_dict(own | {"trained": torch.tensor(True)})
    model.setup("bottle")
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClipADModel]:
    folder = tmp_path_factory.mktemp("tiny")
    backbone = tiny(folder, quick_gelu=True)  # as OpenAI's weights have it; AA-CLIP puts GELU in its place
    return {
        variant: load(ClipADModel(backbone, variant=variant), prefix) for variant, (prefix, _) in NEIGHBOURS.items()
    }


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return numbers()


def test_every_variant_but_sdp_is_an_adaptor() -> None:
    assert set(VARIANTS) == {"sdp", *ADAPTORS}


@pytest.mark.parametrize("variant", NEIGHBOURS)
def test_raw_outputs_are_the_authors(models: dict[str, ClipADModel], expected: dict[str, Tensor], variant: str) -> None:
    prefix, tolerance = NEIGHBOURS[variant]
    found = models[variant](expected["images"])
    close(found.anomaly_map, expected[f"{prefix}/map"], tolerance)
    score = {"af": "af/cls_probability", "aa": "aa/det_score"}[prefix]
    close(found.pred_score, expected[score], 5e-5 if prefix == "af" else 2e-5)


def ranges(found: Prediction) -> dict[str, Tensor]:
    """What is fitted to images: those of the authors' min-maxes, and thresholds at the means."""
    score, anomaly_map = found.pred_score, found.anomaly_map
    peak = anomaly_map.amax(dim=(1, 2))
    image = (torch.tensor(0.0), torch.tensor(2.0), torch.tensor(0.7))
    return dict(
        zip(
            STATISTICS,
            (*score.aminmax(), *peak.aminmax(), *image, *anomaly_map.aminmax(), anomaly_map.mean()),
            strict=True,
        )
    )


def test_fitted_scores_are_the_authors(models: dict[str, ClipADModel], expected: dict[str, Tensor]) -> None:
    raw = {variant: model.predict(expected["images"]) for variant, model in models.items()}
    for variant, wanted in (("aa_clip", expected["aa/score"]), ("af_clip", ranged(expected["af/cls_probability"]))):
        decision = Decision(ranges(raw[variant]), models[variant].detector.scale, False, False, (0.5, 0.5))
        fused = decision(raw[variant]).pred_score
        close(fused / (2 if variant == "aa_clip" else 1), wanted, 5e-5)


@pytest.mark.parametrize("variant", NEIGHBOURS)
def test_metrics_are_those_of_the_authors_scores(models: dict[str, ClipADModel], variant: str) -> None:
    found, scale = models[variant].predict(torch.randn(40, 3, 112, 112)), models[variant].detector.scale
    score = found.pred_score
    if variant == "aa_clip":
        peak = found.anomaly_map.amax(dim=(1, 2)) - found.anomaly_map.min()
        score = peak / (found.anomaly_map.max() - found.anomaly_map.min()) + ranged(score)
    labels, masks = (
        value > value.mean() + value.std() * torch.randn(value.shape) for value in (score, found.anomaly_map)
    )
    fitted = Decision(ranges(found), scale, True, True, (0.5, 0.5))(found)
    alone = Decision(unfitted()._buffers, scale, True, True, (0.5, 0.5))(found)
    by_authors = binary_auroc(found.anomaly_map, masks)
    for said in (fitted, alone):
        assert float(binary_auroc(said.anomaly_map, masks)) == pytest.approx(float(by_authors), abs=1e-5)
    judged = [fitted] if variant == "aa_clip" else [fitted, alone]  # of one image alone AA-CLIP's says nothing
    for said in judged:
        assert float(binary_auroc(said.pred_score, labels)) == pytest.approx(
            float(binary_auroc(score, labels)), abs=1e-5
        )


@pytest.mark.parametrize(("variant", "undecided", "far"), [("af_clip", 0.5, 1.0), ("aa_clip", 2.0, 400.0)])
def test_half_is_undecided_and_no_two_values_become_one(
    models: dict[str, ClipADModel], variant: str, undecided: float, far: float
) -> None:
    scale = models[variant].detector.scale
    assert float(scale.probability(torch.tensor(undecided))) == 0.5
    assert scale.midpoint == undecided
    values = scale.probability(torch.linspace(2 * undecided - far, far, 2001))
    assert (values.diff() > 0).all()
    assert values.min() >= 0
    assert values.max() <= 1


def test_the_clip_of_another_variant_stays_as_it_is(tmp_path: Path, expected: dict[str, Tensor]) -> None:
    backbone = tiny(tmp_path, quick_gelu=True)
    before = backbone.clip.encode_image(expected["images"])
    for variant in NEIGHBOURS:
        ClipADModel(backbone, variant=variant)
    assert torch.equal(backbone.clip.encode_image(expected["images"]), before)


def test_a_gaussian_of_ones_own(tmp_path: Path, expected: dict[str, Tensor]) -> None:
    maps = []
    for smoothing in (None, 0.0, 8.0):
        model = load(ClipADModel(tiny(tmp_path, quick_gelu=False), variant="aa_clip", smoothing=smoothing), "aa")
        assert model.settings.smoothing == (smoothing or 0.0)
        maps.append(model(expected["images"]).anomaly_map)
    assert torch.equal(maps[0], maps[1])
    assert maps[2].std() < maps[0].std()


@torch.no_grad()
def test_aa_clip_compares_with_images(models: dict[str, ClipADModel], expected: dict[str, Tensor]) -> None:
    images, detector = expected["images"], models["aa_clip"].detector
    pool = Pool(detector, models["aa_clip"].examine(images), [key_of(image) for image in images])
    assert pool.score.isfinite().all()
    detector.keep(detector.describe(images[:2]), images[:1])
    alone, beside = detector.leave_one_out([images[:2]], models["aa_clip"].text_features), detector(images, None)
    assert alone.anomaly_map.isfinite().all()
    assert float(beside.anomaly_map[0].max()) < 1e-3 < float(beside.anomaly_map[2].max())  # it knows the first one
    detector.memory = None


@pytest.mark.parametrize("variant", NEIGHBOURS)
def test_tiles_merge(tmp_path: Path, expected: dict[str, Tensor], variant: str) -> None:
    prefix, _ = NEIGHBOURS[variant]
    model = load(ClipADModel(tiny(tmp_path, quick_gelu=False), variant=variant, tiles=[1, 2]), prefix)
    found = model(torch.randn(2, 3, *model.input_size))
    assert found.anomaly_map.shape == (2, *model.input_size)
    assert found.pred_score.isfinite().all()
