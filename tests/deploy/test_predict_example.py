"""docs/examples/onnx_predict.py where a rate is asked for that the file cannot give."""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "docs/examples/onnx_predict.py"


@pytest.fixture
def predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """The example at a rate, with a runtime that calls everything good, of a file that says this of itself."""
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "image.png")

    def predict(rate: str, **metadata: str) -> None:
        class Session:
            def __init__(self, *args: object, **options: object) -> None: ...

            def get_modelmeta(self) -> SimpleNamespace:
                return SimpleNamespace(custom_metadata_map=metadata)

            def get_outputs(self) -> list[SimpleNamespace]:
                return [SimpleNamespace(name=name) for name in ("pred_score", "pred_label", "pred_mask")]

            def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
                assert inputs["false_alarm_rate"] == np.float32(rate)
                return [np.zeros(1)] * len(names)

        runtime = SimpleNamespace(InferenceSession=Session, SessionOptions=SimpleNamespace)
        monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
        monkeypatch.setattr(sys, "argv", ["onnx_predict.py", "model.onnx", str(tmp_path / "image.png"), rate])
        runpy.run_path(str(EXAMPLE), run_name="__main__")

    return predict


TWENTY = json.dumps({"image_scores": [0.1] * 20})


def test_a_rate_that_the_images_allow_is_answered(predict: object, capsys: pytest.CaptureFixture[str]) -> None:
    predict("0.05", calibration=TWENTY)
    predict(str(1 / 21), calibration=TWENTY)
    assert capsys.readouterr().out.count("good") == 2


@pytest.mark.parametrize("rate", ["0.01", "0.047", "1", "0", "nan"])
def test_another_rate_is_refused(predict: object, rate: str) -> None:
    with pytest.raises(SystemExit, match=r"20 calibration images allow: with so many it is 0\.0476 or more"):
        predict(rate, calibration=TWENTY)


def test_a_file_without_verdicts_is_refused(predict: object) -> None:
    with pytest.raises(SystemExit, match="no verdicts at a false-alarm rate"):
        predict("0.05")
