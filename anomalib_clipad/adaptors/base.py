"""An adaptor: trained layers that read a frozen CLIP in their own way."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from anomalib_clipad.text.class_encoder import ClassEncoder
from anomalib_clipad.text.encoder import is_causal, text_tower
from anomalib_clipad.vision.reader import Reader, View

from .releases import Release
from .stages import Stage

if TYPE_CHECKING:
    from open_clip import CLIP


def check_causal(clip: CLIP, title: str) -> None:
    """Check that layers can stand in the text tower of a CLIP.

    Raises:
        ValueError: If it is not one of open_clip's causal ones, without a cache of another make.
    """
    if not is_causal(text_tower(clip)):
        msg = (
            f"{title} needs a text tower that is read at its last token, as OpenAI's CLIP has it; this one is another."
        )
        raise ValueError(msg)


class Shape(NamedTuple):
    """What an adaptor's layers are made for.

    Attributes:
        width: Width of the image tower.
        text_width: Width of the text tower; 0 where there is none.
        dim: Dimension of the text features.
        grid: Patches along an axis.
        image_size: Height and width of the maps in pixels.
    """

    width: int
    text_width: int
    dim: int
    grid: int
    image_size: int


class Lesson(NamedTuple):
    """A batch to learn from.

    Attributes:
        features: Of ``Adaptor.lesson``, of these images.
        text: Vectors of each image's class, normal and abnormal (B, D, 2).
        masks: 1 where there is a defect, else 0 (B, H, W).
        labels: 1 for a defective image, else 0 (B,).
        stage: Number of the stage of training.
    """

    features: list[Tensor]
    text: Tensor
    masks: Tensor
    labels: Tensor
    stage: int = 0


class Adaptor(Reader):
    """A ``Reader`` with layers of its own, which are trained on other data than they are used on.

    A subclass is all there is to know of a variant; it is entered in ``ADAPTORS`` by its name.

    Attributes:
        title: What it is called in a sentence.
        released: Files of its authors, by the name a user gives.
        parts: Names of their files where several belong together, as patterns.
        backbone: The settings of a backbone that released layers belong to, where they differ from the defaults.
        form: What its authors' files look like, in words.
        trains_text: Whether training changes the vectors of text too.
        course: The stages of its training, as the authors have them.
        betas: Of Adam, as the authors have it.
        as_coded: Learn as the authors' program does, also where their paper says otherwise.
        reads: Settings that trained layers depend on, besides the backbone.
        trained: Whether the layers have learnt anything yet: a boolean scalar, part of the state.
    """

    title: ClassVar[str]
    form: ClassVar[str]
    released: ClassVar[Mapping[str, Sequence[Release]]] = {}
    parts: ClassVar[tuple[str, ...]] = ()
    backbone: ClassVar[Mapping[str, Any]] = {}
    reads: ClassVar[tuple[str, ...]] = ()
    trains_text: ClassVar[bool] = False
    course: ClassVar[tuple[Stage, ...]] = (Stage(epochs=5, batch_size=8, learning_rate=1e-4),)
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)

    as_coded: bool = False
    trained: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("trained", torch.tensor(False))

    @classmethod
    @abstractmethod
    def of(cls, shape: Shape) -> Adaptor:
        """New layers, not trained yet."""

    @classmethod
    def prepare(cls, clip: CLIP, positions: Tensor | None) -> None:
        """Change a copy of CLIP into what the layers belong to, where that differs from open_clip's.

        Args:
            clip: The copy.
            positions: The image tower's own position embeddings, before they were resized, if they were.
        """

    def encode(self, encoder: ClassEncoder, class_name: str, rvs_options: Mapping[str, float] | None = None) -> Tensor:
        """The vectors of a class, normal and abnormal: (D, 2).

        Args:
            encoder: Text tower, tokenizer and prompts.
            class_name: What the images show.
            rvs_options: As of ``ClassEncoder.encode``.
        """
        return encoder.encode(class_name, rvs_options)

    def groups(self) -> list[list[nn.Parameter]]:
        """The parameters that each stage trains."""
        return [list(self.parameters())]

    @abstractmethod
    def lesson(self, view: View, images: Tensor, stage: int) -> list[Tensor]:
        """What is read of images (B, 3, S, S) for a stage of training: equally shaped tensors (B, ...)."""

    def keeps(self, stage: int) -> bool:
        """Whether an image's part of ``lesson`` never changes in a stage, so that it can be kept."""
        del stage
        return True

    @abstractmethod
    def losses(self, view: View, lesson: Lesson) -> dict[str, Tensor]:
        """Its losses by name; their sum is what it is trained on."""

    @abstractmethod
    def foreign_state(self, files: Sequence[Path]) -> dict[str, Tensor]:
        """Its state, of its authors' files, but for ``trained``.

        Args:
            files: One file, or those of ``parts``, in this order.

        Raises:
            Exception: Any, if they hold something else.
        """

    def adapt(self, state: Mapping[str, Tensor]) -> None:
        """Take the form that a state needs, where there is more than one."""
