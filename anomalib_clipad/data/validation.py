"""Data modules without validation data: what anomalib leaves undefined, defined."""

from __future__ import annotations

import warnings

from anomalib.data import AnomalibDataModule
from anomalib.data.utils import ValSplitMode


def ensure_validation_data(data: AnomalibDataModule) -> None:
    """Give a data module that was set up with ``val_split_mode="none"`` an empty validation set.

    anomalib gives it none, and then fails wherever validation data are asked for, which every zero-shot test does.

    Raises:
        ValueError: If validation data were to come from a folder (``from_dir``), and the data module has none.
    """
    if hasattr(data, "val_data") or type(data).val_dataloader is not AnomalibDataModule.val_dataloader:
        return
    if data.val_split_mode is ValSplitMode.FROM_DIR:
        others = ", ".join(mode.value for mode in ValSplitMode if mode is not ValSplitMode.FROM_DIR)
        msg = (
            f"{data.name} has no folder of validation images, so val_split_mode='from_dir' gives it no validation "
            f"data. Choose another val_split_mode: {others}."
        )
        raise ValueError(msg)
    warnings.filterwarnings("ignore", message="Total length of `DataLoader` across ranks is zero")  # it is meant so
    data.val_data = data.test_data.subsample([])
