"""`anomalib-clipad product`: what an exported graph needs to know of one product."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def product(
    output: Path = Path("product.safetensors"),
    class_name: str | None = None,
    settings: dict[str, Any] | None = None,
    decision: dict[str, Any] | None = None,
    k_shot: int | None = None,
) -> None:
    """Write text features, memory and scale of one product, the inputs of a graph exported with ``memory_input``.

    Args:
        output: File to write.
        class_name: What the images show; not needed if the share of the text is 0.
        settings: Those by which a model is built.
        decision: The references, and how many of their patches to keep.
        k_shot: How many of the references; all by default.

    Raises:
        ValueError: If an option or an image is not valid.
        FileNotFoundError: If the folder does not exist or holds no image.
        OSError: If the file cannot be written; it is then as it was before.
    """
    from anomalib_clipad.lightning_model import ClipAD
    from anomalib_clipad.predictor.products import save_product
    from anomalib_clipad.settings import Settings

    settings, decision = settings or {}, decision or {}
    if "references" not in decision:
        msg = "Pass --references, a folder of normal images."
        raise ValueError(msg)
    if settings.get("text_weight", Settings.text_weight) != 0 and class_name is None:
        msg = "Pass --class_name, what the images show, or --text_weight 0 to compare with the references alone."
        raise ValueError(msg)
    model = ClipAD(
        class_name,
        k_shot=k_shot,
        few_shot_source=decision["references"],
        memory_size=decision.get("memory_size"),
        **settings,
    )
    model.prepare()
    save_product(output, model.preparation.predictor)
    memory = model.model.detector.memory
    assert memory is not None
    print(f"{output}: {memory.tokens.shape[1]} patches a stage, {output.stat().st_size / 2**20:.1f} MiB")
