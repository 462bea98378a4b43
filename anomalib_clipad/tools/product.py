"""`anomalib-clipad product`: what an exported graph needs to know of one product."""

from __future__ import annotations

from pathlib import Path

from anomalib_clipad.vision.detector import Precision
from anomalib_clipad.vision.dual_path import Tap


def product(
    normal: Path,
    output: Path = Path("product.safetensors"),
    class_name: str | None = None,
    backbone: str = "ViT-B-16-plus-240",
    pretrained: str | None = "laion400m_e31",
    image_size: int | None = None,
    k_shot: int | None = None,
    memory_size: int | None = None,
    text_weight: float = 0.5,
    prompts: str = "industrial",
    smoothing: float = 8.0,
    tap: Tap = "reference",
    adapter: str | None = None,
    precision: Precision = "float32",
) -> None:
    """Write text features, memory and scale of one product, the inputs of a graph exported with ``memory_input``.

    Args:
        normal: Folder of normal images.
        output: File to write.
        class_name: What the images show; not needed with ``text_weight`` 0.
        backbone: CLIP model, as for ``ClipAD``.
        pretrained: Its weights.
        image_size: Height and width of the model's input in pixels.
        k_shot: How many of the images; all by default.
        memory_size: Patches a stage to keep.
        text_weight: Share of the text.
        prompts: Prompt set.
        smoothing: Standard deviation of the map's Gaussian in pixels.
        tap: Where the ordinary path is read.
        adapter: Trained layers of SDP+.
        precision: Number format of the image tower.

    Raises:
        ValueError: If an option or an image is not valid.
        FileNotFoundError: If the folder does not exist or holds no image.
        OSError: If the file cannot be written; it is then as it was before.
    """
    from anomalib_clipad.lightning_model import ClipAD
    from anomalib_clipad.predictor.products import save_product

    if text_weight and class_name is None:
        msg = "Pass --class-name, what the images show, or --text_weight 0 to compare with the normal images alone."
        raise ValueError(msg)
    model = ClipAD(
        class_name,
        backbone,
        pretrained,
        image_size,
        k_shot=k_shot,
        few_shot_source=normal,
        memory_size=memory_size,
        text_weight=text_weight,
        prompts=prompts,
        smoothing=smoothing,
        tap=tap,
        adapter=adapter,
        precision=precision,
    )
    model.prepare()
    save_product(output, model.preparation.predictor)
    memory = model.model.detector.memory
    assert memory is not None
    print(f"{output}: {memory.tokens.shape[1]} patches a stage, {output.stat().st_size / 2**20:.1f} MiB")
