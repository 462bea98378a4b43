"""Representative vector selection (RVS): one vector for a cloud of prompt embeddings (paper section 3.2).

Every method takes the (n, D) matrix of L2-normalised embeddings of one class and state and returns one
L2-normalised vector (D,).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .methods import check_options

if TYPE_CHECKING:
    from sklearn.cluster import DBSCAN, MeanShift

    from .cache import EmbeddingCache


class NoClusterError(ValueError):
    """A clustering method found only noise, so there is no largest cluster; the message says what to change."""


def mean(embeddings: Tensor) -> Tensor:
    """The mean of the (n, D) embeddings.

    Example:
        >>> mean(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tensor([0.7071, 0.7071])
    """
    return normalize(embeddings.mean(dim=0), dim=0)


def pca(embeddings: Tensor) -> Tensor:
    """First principal component scores: each of the D entries is a sample, each of the n prompts a feature.

    With the samples X (D, n) centred per prompt and v the leading eigenvector of X^T X, the vector is X v: X's
    leading left singular vector. Its sign is chosen to agree with the mean of the embeddings.
    """
    samples = embeddings.double().T
    centred = samples - samples.mean(dim=0)
    component = torch.linalg.svd(centred, full_matrices=False).U[:, 0]
    if component @ samples.mean(dim=1) < 0:
        component = -component
    return normalize(component, dim=0).to(embeddings.dtype)


def kde(embeddings: Tensor, bandwidth: float = 0.3) -> Tensor:
    """Mean of the (n, D) embeddings weighted by their own Gaussian kernel density.

    The densities overflow in D dimensions; their ratios are all that counts, so they stay logarithms up to the softmax.
    """
    rows = embeddings.double()
    log_kernel = -torch.cdist(rows, rows).square() / (2 * bandwidth**2)
    weights = log_kernel.logsumexp(dim=1).softmax(dim=0)
    return normalize(weights @ rows, dim=0).to(embeddings.dtype)


def dbscan(embeddings: Tensor, eps: float = 0.5, min_samples: int = 15) -> Tensor:
    """Mean of DBSCAN's largest cluster; the paper uses ``eps=1.5, min_samples=25`` on VisA.

    Example:
        Two embeddings close together are the largest cluster; the third is noise.

        >>> embeddings = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
        >>> dbscan(embeddings, eps=0.7, min_samples=2)
        tensor([0.9487, 0.3162, 0.0000])

    Raises:
        NoClusterError: If there are fewer embeddings than ``min_samples``, or every embedding is noise.
    """
    count = len(embeddings)
    if count < min_samples:
        msg = (
            f"{count} prompts are fewer than min_samples={min_samples}, so that no cluster is possible. To choose "
            f"without this warning, set rvs to 'mean', or min_samples in rvs_options to {count} or less."
        )
        raise NoClusterError(msg)
    from sklearn.cluster import DBSCAN  # takes over a second to load

    return _largest_cluster_mean(embeddings, DBSCAN(eps=eps, min_samples=min_samples))


def mean_shift(embeddings: Tensor, bandwidth: float = 2.0) -> Tensor:
    """Mean of mean-shift's largest cluster."""
    from sklearn.cluster import MeanShift

    return _largest_cluster_mean(embeddings, MeanShift(bandwidth=bandwidth))


def _largest_cluster_mean(embeddings: Tensor, clustering: DBSCAN | MeanShift) -> Tensor:
    labels = torch.as_tensor(clustering.fit_predict(embeddings.cpu().numpy()))
    if (labels < 0).all():
        msg = (
            f"{clustering!r} found only noise among {len(embeddings)} embeddings. A larger eps or a smaller "
            "min_samples in rvs_options makes clusters more likely."
        )
        raise NoClusterError(msg)
    largest = labels[labels >= 0].bincount().argmax()
    return mean(embeddings[(labels == largest).to(embeddings.device)])


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {one.__name__: one for one in (mean, pca, kde, dbscan, mean_shift)}


def representative_vector(
    embeddings: Tensor,
    method: str = "dbscan",
    options: Mapping[str, float] | None = None,
    *,
    of: str = "these prompts",
    cache: EmbeddingCache | None = None,
) -> Tensor:
    """Select the representative vector of one class and state.

    Args:
        embeddings: L2-normalised prompt embeddings (n, D).
        method: One of ``methods.METHODS``.
        options: Keyword arguments of the method's function.
        of: What the embeddings describe, for the warning.
        cache: Where vectors are kept between runs, if anywhere; a mean that stands for a cluster is not.

    Returns:
        L2-normalised vector (D,). Where clustering finds only noise it is the mean, with a warning (the reference
        implementation fails there).
    """
    options = options or {}
    check_options(method, options)
    select = partial(_FUNCTIONS[method], embeddings, **options)
    try:
        return select() if cache is None else cache.vector(embeddings, method, options, select)
    except NoClusterError as error:
        warnings.warn(f"RVS of {of} takes the mean of all embeddings: {error}", stacklevel=2)
        return mean(embeddings)
