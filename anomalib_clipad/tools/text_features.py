"""`anomalib-clipad text-features`: vectors of several classes for one exported graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from anomalib_clipad.storage import atomic_folder


def text_features(
    class_name: list[str],
    output: Path = Path("features.safetensors"),
    settings: dict[str, Any] | None = None,
) -> None:
    """Write the representative vectors of classes, the second input of a graph exported with ``text_input``.

    Args:
        class_name: Names of the classes.
        output: File to write: one tensor (D, 2) per class, normal and abnormal, under the class's name.
        settings: Those by which a model is built; what is no matter of the text changes no vector.

    Raises:
        ValueError: If a class name is empty, or the backbone or an option is unknown.
        WeightsUnavailableError: If the weights cannot be downloaded.
        OSError: If the file cannot be written; it is then as it was before.
    """
    from anomalib_clipad.adaptors.files import TrainedLayers
    from anomalib_clipad.backbones import load_backbone
    from anomalib_clipad.predictor.building import settings_with
    from anomalib_clipad.text.cache import EmbeddingCache
    from anomalib_clipad.text.class_encoder import check_class_name
    from anomalib_clipad.torch_model import ClipADModel

    for name in class_name:
        check_class_name(name)
    given = dict(settings or {})
    adapter = given.pop("adapter", None)
    layers = None if adapter is None else TrainedLayers(adapter)
    chosen = settings_with(layers, given)
    model = ClipADModel(load_backbone(chosen.backbone, chosen.pretrained, chosen.image_size), chosen, EmbeddingCache())
    if model.adapter is not None and layers is not None:
        layers.load(model.adapter, model.settings, model.fingerprint)
    vectors = {name: model.encode(name).contiguous() for name in class_name}
    with atomic_folder(output.parent) as folder:
        metadata = {name: str(value) for name, value in chosen.as_dict().items()}
        save_file(vectors, folder / output.name, metadata=metadata)
    print(f"{output}: {', '.join(f'{name} {tuple(vector.shape)}' for name, vector in vectors.items())}")
