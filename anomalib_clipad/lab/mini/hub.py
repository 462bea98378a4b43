"""clipad-mini as a folder for a model hub: an open_clip repository that `hf-hub:` and `local-dir:` load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from anomalib_clipad.backbones.sources import BUNDLED, SHIPPED
from anomalib_clipad.storage import atomic_folder

_CARD = """---
license: apache-2.0
library_name: open_clip
pipeline_tag: zero-shot-image-classification
tags:
- anomaly-detection
- clip
- open_clip
---
# {name}

A small CLIP for trials of CLIP-AD, zero-shot anomaly detection, trained on generated images. Its model card,
with how it was trained and what it reaches, is `docs/clipad-mini.md` of the package anomalib-clipad.

```python
import open_clip

model, preprocess = open_clip.create_model_from_pretrained("local-dir:path/of/this/folder")
```

```bash
anomalib-clipad inspect images/ --class-name hazelnut --backbone local-dir:path/of/this/folder
```
"""

_SPACE = """---
title: CLIP-AD
sdk: gradio
app_file: app.py
license: apache-2.0
---
# CLIP-AD

Find defects in images of things a model has never seen; a trial with the embedded model {name}.
"""
_APP = '''"""The playground of anomalib-clipad."""

from anomalib_clipad.tools.playground import playground

if __name__ == "__main__":
    playground({"backbone": "clipad-mini"}, host="0.0.0.0", port=7860)
'''


def write_hub_folder(output: Path) -> Path:
    """Write the folder: ``open_clip_config.json``, ``open_clip_model.safetensors`` and ``README.md``.

    Args:
        output: Folder to write to; files of these names are replaced.

    Returns:
        The folder.
    """
    config = json.loads(SHIPPED.with_suffix(".json").read_text(encoding="utf-8"))
    normalisation = {"mean": list(OPENAI_DATASET_MEAN), "std": list(OPENAI_DATASET_STD)}
    preprocess = {**normalisation, "interpolation": "bicubic", "resize_mode": "squash"}
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    with atomic_folder(output) as folder:
        (folder / "open_clip_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        shutil.copy(SHIPPED, folder / "open_clip_model.safetensors")
        (folder / "README.md").write_text(_CARD.format(name=BUNDLED), encoding="utf-8")
    return output


def write_space_folder(output: Path) -> Path:
    """Write the playground as a Space: ``app.py``, ``requirements.txt`` and ``README.md``.

    Args:
        output: Folder to write to; files of these names are replaced.

    Returns:
        The folder.
    """
    with atomic_folder(output) as folder:
        (folder / "app.py").write_text(_APP, encoding="utf-8")
        (folder / "requirements.txt").write_text("anomalib-clipad[playground]\n", encoding="utf-8")
        (folder / "README.md").write_text(_SPACE.format(name=BUNDLED), encoding="utf-8")
    return output


def main(output: Path = Path("clipad-mini"), space: Path | None = None) -> None:
    """Write clipad-mini as an open_clip repository for a model hub.

    Args:
        output: Folder to write to.
        space: Folder for the playground as a Space, if it is wanted too.
    """
    print(write_hub_folder(output))
    if space is not None:
        print(write_space_folder(space))
