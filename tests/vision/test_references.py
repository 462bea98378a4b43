"""Few-shot and mutual scoring against the numbers of their authors' modules."""

from itertools import pairwise

import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor
from torch.nn.functional import normalize

from anomalib_clipad.vision import references
from anomalib_clipad.vision.references import (
    leave_one_out,
    mutual_rows,
    mutual_scores,
    nearest_distance,
    neighbourhood_features,
    rescore,
    scores_against,
)


def memory_of(tokens: Tensor) -> Tensor:
    return normalize(tokens.transpose(0, 1).flatten(1, 2), dim=-1)


def test_few_shot_distances_are_aprilgans(reference_numbers: dict[str, Tensor]) -> None:
    memory = memory_of(reference_numbers["reference_tokens"])
    distance = nearest_distance(reference_numbers["tokens"], memory)
    torch.testing.assert_close(distance, reference_numbers["few_shot/distance"], atol=1e-5, rtol=0)


def test_a_memory_of_many_patches_is_compared_in_tiles() -> None:
    tokens, memory = torch.randn(2, 4, 9, 8), torch.randn(4, 2500, 8)
    for stage in range(4):
        for image in range(2):
            expected = cdist(tokens[image, stage], memory[stage], "cosine").min(axis=1)
            ours = nearest_distance(tokens, normalize(memory, dim=-1))[image, stage]
            torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float32), atol=1e-5, rtol=0)


@pytest.mark.parametrize("radius", [1, 3, 5])
def test_mutual_features_are_muscs(reference_numbers: dict[str, Tensor], radius: int) -> None:
    for stage in range(4):
        features = neighbourhood_features(reference_numbers["tokens"][:, stage], radius)
        expected = reference_numbers[f"mutual/features_r{radius}"][:, stage]
        torch.testing.assert_close(features, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("radius", [1, 3, 5])
def test_mutual_scores_of_one_radius_are_muscs(reference_numbers: dict[str, Tensor], radius: int) -> None:
    scores = mutual_scores(reference_numbers["tokens"], radii=[radius])
    expected = reference_numbers[f"mutual/scores_r{radius}"].mean(dim=1)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)


def test_mutual_scores_are_muscs(reference_numbers: dict[str, Tensor]) -> None:
    scores = mutual_scores(reference_numbers["tokens"])
    torch.testing.assert_close(scores, reference_numbers["mutual/scores"], atol=1e-4, rtol=0)


def test_an_image_outside_is_scored_as_if_it_joined_the_pool(reference_numbers: dict[str, Tensor]) -> None:
    tokens = reference_numbers["tokens"]
    alone = scores_against(tokens[:1], tokens[1:])
    torch.testing.assert_close(alone[0], mutual_scores(tokens)[0], atol=1e-5, rtol=0)


def test_one_image_has_nobody_to_be_compared_with() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        mutual_scores(torch.randn(1, 4, 9, 8))


def test_two_images_judge_each_other() -> None:
    tokens = torch.randn(2, 4, 9, 8)
    features = [neighbourhood_features(tokens[:, stage], 1) for stage in range(4)]
    expected = torch.tensor(sum(cdist(stage[0], stage[1]).min(axis=1) for stage in features) / 4)
    torch.testing.assert_close(mutual_scores(tokens, radii=[1])[0], expected.float(), atol=1e-5, rtol=0)


def test_rescored_images_are_muscs(reference_numbers: dict[str, Tensor]) -> None:
    rescored = rescore(reference_numbers["mutual/peak"], reference_numbers["cls"])
    torch.testing.assert_close(rescored, reference_numbers["mutual/rescored_mvtec"], atol=1e-4, rtol=0)


def test_with_itself_alone_an_image_keeps_its_score() -> None:
    cls = torch.nn.functional.normalize(torch.randn(4, 6), dim=-1)
    rescored = rescore(torch.tensor([1.0, 3.0, 2.0, 5.0]), cls, neighbours=[1])
    torch.testing.assert_close(rescored, torch.tensor([0.0, 0.5, 0.25, 1.0]))


def test_scores_that_are_all_equal_stay_equal() -> None:
    cls = torch.nn.functional.normalize(torch.randn(5, 6), dim=-1)
    assert rescore(torch.ones(5), cls).eq(0).all()


def test_leaving_one_out_compares_with_all_others() -> None:
    tokens = torch.randn(5, 4, 9, 8)
    distance = leave_one_out(tokens)
    for index in range(5):
        others = torch.cat([tokens[:index], tokens[index + 1 :]])
        expected = nearest_distance(tokens[index : index + 1], memory_of(others)).sum(dim=1)
        torch.testing.assert_close(distance[index], expected[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("images", [1, 2])
def test_any_number_of_images_judge_each_other_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch, images: int) -> None:
    tokens = torch.randn(7, 4, 9, 8)
    left_out, mutual = leave_one_out(tokens), mutual_scores(tokens)
    monkeypatch.setattr(references, "_PRODUCTS", images * 9**2)
    torch.testing.assert_close(leave_one_out(tokens), left_out)
    torch.testing.assert_close(mutual_scores(tokens), mutual)


def test_some_rows_of_a_pool_are_scored_as_all_of_it() -> None:
    tokens = torch.randn(7, 4, 9, 8)
    torch.testing.assert_close(mutual_rows(tokens, range(2, 5)), mutual_scores(tokens)[2:5])


def test_more_normal_images_never_raise_a_distance() -> None:
    tokens, references = torch.randn(3, 4, 9, 8), torch.randn(6, 4, 9, 8)
    distances = [nearest_distance(tokens, memory_of(references[:count])) for count in (1, 2, 4, 6)]
    rounding = 1e-6  # sums of another order differ in their last bits
    assert all((more <= fewer + rounding).all() for fewer, more in pairwise(distances))
