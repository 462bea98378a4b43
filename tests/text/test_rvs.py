"""Representative vector selection against the reference's numbers and against scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.decomposition import PCA
from sklearn.neighbors import KernelDensity
from torch import Tensor
from torch.nn.functional import normalize

from anomalib_clipad.text import rvs
from anomalib_clipad.text.methods import check_options

EXPECTED = load_file(Path(__file__).parents[1] / "golden" / "rvs_expected.safetensors")
CLOUDS = sorted({key.split("/")[0] for key in EXPECTED})
CASES = {
    "mean": ("mean", {}),
    "pca": ("pca", {}),
    "kde": ("kde", {}),
    "dbscan": ("dbscan", {}),
    "dbscan_eps1.5_min25": ("dbscan", {"eps": 1.5, "min_samples": 25}),
    "mean_shift": ("mean_shift", {}),
}


def cloud(name: str, state: int) -> Tensor:
    return EXPECTED[f"{name}/embeddings_{('normal', 'abnormal')[state]}"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("state", [0, 1])
def test_the_vector_is_the_references(name: str, case: str, state: int) -> None:
    method, options = CASES[case]
    vector = rvs.representative_vector(cloud(name, state), method, options)
    torch.testing.assert_close(vector, EXPECTED[f"{name}/{case}"][:, state], atol=1e-5, rtol=0)
    assert vector.norm().item() == pytest.approx(1, abs=1e-5)


def test_pca_is_scikit_learns_first_component_scores() -> None:
    embeddings = cloud("tight", 0)
    scores = PCA(n_components=1).fit_transform(embeddings.double().T.numpy())[:, 0]
    scores *= np.sign(scores @ embeddings.double().mean(dim=0).numpy())
    torch.testing.assert_close(rvs.pca(embeddings).double(), normalize(torch.tensor(scores), dim=0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("seed", range(4))
def test_the_sign_of_pca_agrees_with_the_mean(sign: int, seed: int) -> None:
    direction = sign * torch.randn(16, generator=torch.Generator().manual_seed(seed))
    embeddings = normalize(direction + 0.1 * torch.randn(30, 16), dim=1)
    assert rvs.pca(embeddings) @ rvs.mean(embeddings) > 0.5


@pytest.mark.parametrize("bandwidth", [0.3, 0.1])
def test_kde_weights_are_scikit_learns_densities(bandwidth: float) -> None:
    embeddings = cloud("three_clusters", 1)
    density = KernelDensity(bandwidth=bandwidth).fit(embeddings.numpy())
    log_weights = torch.tensor(density.score_samples(embeddings.numpy()))
    weighted = log_weights.softmax(dim=0).float() @ embeddings
    vector = rvs.representative_vector(embeddings, "kde", {"bandwidth": bandwidth})
    torch.testing.assert_close(vector, normalize(weighted, dim=0), atol=1e-5, rtol=0)


def test_kde_is_finite_where_densities_overflow() -> None:
    embeddings = normalize(torch.randn(1, 640) + 0.01 * torch.randn(200, 640), dim=1)
    vector = rvs.kde(embeddings, bandwidth=0.01)
    assert vector.isfinite().all()
    assert vector.norm().item() == pytest.approx(1, abs=1e-5)


def test_noise_only_falls_back_to_the_mean_and_names_the_class() -> None:
    embeddings = torch.eye(20)
    with pytest.warns(UserWarning, match=r"the normal prompts of class 'cup'.*only noise among 20.*larger eps"):
        vector = rvs.representative_vector(embeddings, "dbscan", of="the normal prompts of class 'cup'")
    torch.testing.assert_close(vector, rvs.mean(embeddings))


def test_fewer_prompts_than_min_samples_are_counted_in_the_advice() -> None:
    embeddings = cloud("tight", 0)[:14]
    with pytest.warns(UserWarning, match="14 prompts are fewer than min_samples=15") as caught:
        vector = rvs.representative_vector(embeddings)
    torch.testing.assert_close(vector, rvs.mean(embeddings))
    advice = str(caught[0].message)
    assert "rvs to 'mean', or min_samples in rvs_options to 14 or less" in advice
    assert "eps" not in advice


@pytest.mark.filterwarnings("error")
def test_the_advice_for_few_prompts_ends_the_warning() -> None:
    embeddings = cloud("tight", 0)[:14]
    rvs.representative_vector(embeddings, "mean")
    rvs.representative_vector(embeddings, "dbscan", {"min_samples": 14})


def two_groups() -> tuple[Tensor, Tensor]:
    """Six and nine embeddings, each group within 0.1 of itself and at distance 1.4 from the other."""
    small, large = torch.eye(8)[:2]
    noise = 0.01 * torch.randn(15, 8)
    embeddings = normalize(torch.cat([small.expand(6, 8), large.expand(9, 8)]) + noise, dim=1)
    return embeddings[:6], embeddings[6:]


@pytest.mark.parametrize(
    ("method", "options", "groups"),
    [
        ("dbscan", {"eps": 0.5, "min_samples": 5}, "large"),  # two clusters
        ("dbscan", {"eps": 1.6, "min_samples": 5}, "both"),  # one cluster, for its wide eps
        ("dbscan", {"eps": 1.6, "min_samples": 15}, "both"),
        ("mean_shift", {"bandwidth": 0.5}, "large"),
        ("mean_shift", {"bandwidth": 2.0}, "both"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_the_largest_cluster_under_the_options_is_averaged(method: str, options: dict, groups: str) -> None:
    small, large = two_groups()
    members = large if groups == "large" else torch.cat([small, large])
    vector = rvs.representative_vector(torch.cat([small, large]), method, options)
    torch.testing.assert_close(vector, normalize(members.mean(dim=0), dim=0), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("distance", "merged"), [(0.49, True), (0.51, False)])
def test_dbscans_eps_is_one_half(distance: float, merged: bool) -> None:
    sine = distance * (1 - distance**2 / 4) ** 0.5
    first, second = torch.tensor([[1.0, 0.0], [1 - distance**2 / 2, sine]])
    vector = rvs.dbscan(torch.cat([first.expand(16, 2), second.expand(15, 2)]))
    members = (16 * first + 15 * second) / 31 if merged else first
    torch.testing.assert_close(vector, normalize(members, dim=0), atol=1e-6, rtol=0)


def test_min_samples_decides_what_is_a_cluster() -> None:
    small, large = two_groups()
    with pytest.warns(UserWarning, match="only noise"):
        rvs.representative_vector(torch.cat([small, large]), "dbscan", {"eps": 0.5, "min_samples": 10})


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("median", {}, r"Unknown RVS method 'median'; expected one of mean, pca, kde, dbscan, mean_shift"),
        ("dbscan", {"bandwidth": 1}, r"'bandwidth' of the RVS method 'dbscan'; it takes \['eps', 'min_samples'\]"),
        ("mean", {"eps": 1}, "it takes no options"),
        ("dbscan", {"eps": -1}, "'eps' has to be a positive number; got -1"),
        ("dbscan", {"min_samples": 2.5}, "'min_samples' has to be a positive integer; got 2.5"),
        ("dbscan", {"min_samples": True}, "'min_samples' has to be a positive integer; got True"),
        ("kde", {"bandwidth": "wide"}, "'bandwidth' has to be a positive number; got 'wide'"),
        ("kde", {"bandwidth": 0}, "'bandwidth' has to be a positive number; got 0"),
    ],
)
def test_wrong_options_are_explained(method: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_options(method, options)
    with pytest.raises(ValueError, match=message):
        rvs.representative_vector(torch.eye(20), method, options)
