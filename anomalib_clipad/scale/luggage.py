"""What travels to workers: an inspector with its weights, so that no worker needs a file of its own."""

from __future__ import annotations

import tempfile
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.predictor.base import ExportedModel

if TYPE_CHECKING:
    from anomalib_clipad.predictor.live import TorchModel


@dataclass(frozen=True)
class Luggage:
    """An inspector that can be pickled.

    Attributes:
        inspector: Without its model, where that is an exported file.
        file: Name of that file.
        product: Name of its product file.
        precision: OpenVINO's, of that file.
        contents: These files, and what lies beside them.
        normal: Its calibration.
    """

    inspector: Inspector
    file: str | None = None
    product: str | None = None
    precision: str | None = None
    contents: dict[str, bytes] = field(default_factory=dict)
    normal: Any = None

    @classmethod
    def of(
        cls,
        inspector: Inspector,
        model: str | Path | None = None,
        product: str | Path | None = None,
        precision: str | None = None,
    ) -> Luggage:
        """Pack an inspector.

        Args:
            inspector: As it is to work elsewhere.
            model: The file it was made of, if it was.
            product: The product file, likewise.
            precision: As it was given.
        """
        if not isinstance(inspector.model, ExportedModel):
            return cls(inspector)
        assert model is not None, "an exported model has a file"
        path = Path(model).expanduser()
        files = [path, *([path.with_suffix(".bin")] if path.suffix == ".xml" else [])]
        files += [] if product is None else [Path(product)]
        bare = copy(inspector)
        del bare.model  # a session cannot travel
        contents = {file.name: file.read_bytes() for file in files}
        name = None if product is None else Path(product).name
        return cls(bare, path.name, name, precision, contents, inspector.model.normal)

    def unpack(self, gpu: bool = False) -> Inspector:
        """The inspector, ready to work.

        Args:
            gpu: Compute on a GPU, where the model is in torch.
        """
        if self.file is None:
            if gpu:
                model: TorchModel = self.inspector.model  # type: ignore[assignment]
                model.to("cuda")
            return self.inspector
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self.contents.items():
                (Path(folder) / name).write_bytes(content)
            product = None if self.product is None else Path(folder) / self.product
            inspector = copy(self.inspector)
            inspector.model = ExportedModel(Path(folder) / self.file, product, self.precision)
        inspector.model.normal = self.normal
        return inspector
