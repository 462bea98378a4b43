"""What teaching changes on generated parts: by the distances of images, as a model would have it."""

import numpy as np
import pytest
import torch

from anomalib_clipad.lab.bench import teaching
from anomalib_clipad.lab.bench.teaching import Category, measured, repetition


class Peaks:
    """A detector whose map is the distances themselves."""

    image_size = 1
    reader = type("Reader", (), {"distance_unit": 1.0})

    def peaks(self, distance: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return distance.amax(dim=-1)


@pytest.fixture
def category() -> Category:
    """Images on a line, one patch and one stage each: 61 normal ones from 0 to 12, defects from 20 on."""
    places = np.concatenate([np.arange(61) / 5, 20 + np.arange(14)])
    defective = np.repeat([False, True], [61, 14])
    distances = torch.tensor(np.abs(places[:, None] - places)[:, :, None, None])
    predictor = type("Predictor", (), {"model": type("Model", (), {"detector": Peaks()})})
    return Category(defective, distances, predictor())


def test_good_ticked_images_join_and_lower_false_alarms(category: Category) -> None:
    rows = np.mean([repetition(category, 16, seed) for seed in range(10)], axis=0)
    assert rows.shape == (3, 4)
    before, taught, wrong = rows
    assert taught[1] <= before[1]
    assert (before[3], taught[3], wrong[3]) == (0, 9, 11)  # of sixteen ticks seven are defects
    assert before[0] == taught[0] == 1 > wrong[0]


@pytest.mark.slow
def test_scores_are_those_of_a_model_with_these_references() -> None:
    small = measured("wood", train=3, good=2, defective=7)
    predictor = small.predictor
    data = teaching.GeneratedParts(category="wood", train_images=3, good_images=2, defective_images=7)
    data.setup()
    files = [str(path) for split in (data.train_data, data.test_data) for path in split.samples["image_path"]]
    shown = [predictor.show(teaching.read(file), file, reference=True) for file in files]
    predictor.fit([shown[0], shown[2]])
    found = predictor._raw([one.prepared for one in shown]).anomaly_map.max(axis=(1, 2))
    np.testing.assert_allclose(small.scores([0, 2]), found, atol=1e-5)
