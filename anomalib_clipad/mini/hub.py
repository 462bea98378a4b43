"""clipad-mini as a folder for a model hub: an open_clip repository that `hf-hub:` and `local-dir:` load."""

from __future__ import annotations

import json
from pathlib import Path

from jsonargparse import auto_cli
from safetensors.torch import load_file, save_file

from anomalib_clipad.backbones.backbone import BUNDLED
from anomalib_clipad.storage import atomic_folder

_HOME = Path(__file__).parent
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
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


def write_hub_folder(output: Path) -> Path:
    """Write the folder: ``open_clip_config.json``, ``open_clip_model.safetensors`` and ``README.md``.

    Args:
        output: Folder to write to; files of these names are replaced.

    Returns:
        The folder.
    """
    config = json.loads((_HOME / f"{BUNDLED}.json").read_text(encoding="utf-8"))
    preprocess = {"mean": list(_MEAN), "std": list(_STD), "interpolation": "bicubic", "resize_mode": "squash"}
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    with atomic_folder(output) as folder:
        (folder / "open_clip_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        save_file(load_file(_HOME / f"{BUNDLED}.safetensors"), folder / "open_clip_model.safetensors", {"format": "pt"})
        (folder / "README.md").write_text(_CARD.format(name=BUNDLED), encoding="utf-8")
    return output


def main(output: Path = Path("clipad-mini")) -> None:
    """Write clipad-mini as an open_clip repository for a model hub.

    Args:
        output: Folder to write to.
    """
    print(write_hub_folder(output))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
