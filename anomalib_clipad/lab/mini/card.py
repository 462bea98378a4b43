"""`python -m anomalib_clipad.lab mini-card`: every metric of clipad-mini's model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from anomalib.data import Folder
from tqdm.auto import tqdm

from anomalib_clipad import ClipAD
from anomalib_clipad.data import GeneratedParts
from anomalib_clipad.lab.evaluation import evaluate
from anomalib_clipad.metrics import Metrics
from anomalib_clipad.parts.categories import HELD_OUT_CATEGORIES
from anomalib_clipad.text.prompts import INDUSTRIAL
from anomalib_clipad.tools.evaluation import format_table, with_mean

_TEMPLATES = list(INDUSTRIAL.templates)
VARIANTS: dict[str, dict[str, Any]] = {
    "clipad-mini": {},
    "240 pixels": {"image_size": 240},
    "random weights": {"pretrained": None},
    "swapped prompts": {
        "prompts": {
            "normal": list(INDUSTRIAL.abnormal),
            "abnormal": list(INDUSTRIAL.normal),
            "templates": _TEMPLATES,
        }
    },
    "stateless prompts": {"prompts": {"normal": ["{}"], "abnormal": ["{}"], "templates": _TEMPLATES}},
}
"""The trained model and what it is compared with: options of ``ClipAD``."""


def card(real: list[Path] | None = None, data: Path | None = None, threads: int = 2) -> None:
    """Print the metrics of the held-out categories, of all variants, and of real images.

    Args:
        real: Folders of real categories in MVTec AD's layout; their names are the class names.
        data: Folder of the generated pictures; by default in the user's cache.
        threads: Number of CPU threads.
    """
    torch.set_num_threads(threads)
    means: dict[str, Metrics] = {}
    for variant, options in VARIANTS.items():
        table = {}
        for name in tqdm(HELD_OUT_CATEGORIES, desc=variant, leave=False):
            datamodule = GeneratedParts(data, name, train_images=1, eval_batch_size=16)
            table[name] = evaluate(_model(options), datamodule)
        table = with_mean(table)
        means[variant] = table["mean"]
        if variant == "clipad-mini":
            print(f"{format_table(table)}\n")
    print(f"{format_table(means, 'mean of held-out categories')}\n")
    for folder in real or []:
        photographs = real_category(folder)
        rows = {name: evaluate(_model(options, folder.name), photographs) for name, options in VARIANTS.items()}
        print(f"{format_table(rows, f'real: {folder.name}')}\n")


def real_category(folder: Path) -> Folder:
    """Pictures of any format in MVTec AD's layout, masks or not, tested by the paper's protocol."""
    defects = sorted(path.name for path in (folder / "test").iterdir() if path.name != "good")
    return Folder(
        name=folder.name,
        root=folder,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=[f"test/{name}" for name in defects],
        mask_dir=[f"ground_truth/{name}" for name in defects] if (folder / "ground_truth").exists() else None,
        val_split_mode="same_as_test",
        eval_batch_size=16,
        num_workers=0,
    )


def _model(options: dict[str, Any], class_name: str | None = None) -> ClipAD:
    return ClipAD(class_name, backbone="clipad-mini", visualizer=False, **options)
