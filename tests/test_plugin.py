"""Registration: anomalib learns of ClipAD by itself, in every order of imports, and never at torch's expense."""

from pathlib import Path

import pytest
from conftest import Run

REGISTERED = """
import anomalib.models
from anomalib.models import ClipAD, list_models
import anomalib_clipad.data
assert ClipAD is anomalib_clipad.ClipAD
assert "clip_a_d" in list_models()
from anomalib.data import CVCClinicDB, GeneratedParts
assert GeneratedParts is anomalib_clipad.data.GeneratedParts
assert [cls.__name__ for cls in anomalib.models.AnomalibModule.__subclasses__()].count("ClipAD") == 1
"""
IMPORTS = [
    "torch",
    "anomalib",
    "anomalib.models",
    "anomalib_clipad",
    "anomalib_clipad.lightning_model",
    "anomalib.data",
]


@pytest.mark.parametrize("first", IMPORTS)
def test_any_import_may_come_first(run_python: Run, first: str) -> None:
    touch = "anomalib_clipad.ClipAD" if first == "anomalib_clipad" else ""
    result = run_python(f"import {first}\n{touch}\n{REGISTERED}")
    assert "could not" not in result.stderr


@pytest.mark.parametrize(
    "statement",
    [
        "from anomalib.models import ClipAD",
        "from anomalib_clipad.data import GeneratedParts",
        "from anomalib.models.image import Padim; from anomalib.models import ClipAD",
        "from anomalib_clipad import ClipAD, ClipADModel",
        "from anomalib.engine import Engine; import torch; import anomalib_clipad.torch_model",
    ],
)
def test_any_statement_may_come_first(run_python: Run, statement: str) -> None:
    run_python(f"{statement}\n{REGISTERED}")


def test_get_model_knows_every_name(run_python: Run, tiny: dict[str, str]) -> None:
    run_python(f"""
from anomalib.models import get_model
arguments = {tiny!r}
init_args = {{**arguments, "class_name": "cup", "rvs_options": {{"eps": 0.6}}}}
models = [
    get_model("clip_ad", **arguments),
    get_model("clip_a_d", **arguments),
    get_model("ClipAD", **arguments),
    get_model({{"class_path": "ClipAD", "init_args": init_args}}),
    get_model({{"class_path": "anomalib.models.ClipAD"}}, **arguments),
]
assert {{type(model).__name__ for model in models}} == {{"ClipAD"}}
assert models[3].class_name == "cup"
assert models[3].model.settings.rvs_options == {{"eps": 0.6}}
assert type(models[3].hparams["rvs_options"]) is dict
""")


def _package(folder: Path, entry_points: str, modules: dict[str, str]) -> str:
    """A distribution on a path of its own: what PYTHONPATH needs to see it installed."""
    site = folder / "site"
    info = site / "other_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    for name, content in modules.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(content)
    return str(site)


@pytest.mark.parametrize(
    ("value", "modules"),
    [
        ("nowhere:Model", {}),
        ("broken_plugin:Model", {"broken_plugin.py": "raise OSError('half installed')"}),
        ("broken_plugin:Model", {"broken_plugin.py": "def ("}),
        ("empty_plugin:Model", {"empty_plugin.py": ""}),
    ],
)
def test_a_broken_entry_point_is_logged_and_harms_nobody(
    run_python: Run, tmp_path: Path, value: str, modules: dict[str, str]
) -> None:
    path = _package(tmp_path, f"[anomalib.models]\nOther = {value}\n", modules)
    result = run_python(f"import torch\n{REGISTERED}", PYTHONPATH=path)
    assert f"Other ({value}) of 'anomalib.models' could not be loaded" in result.stderr


def test_torch_imports_without_anomalib(run_python: Run) -> None:
    run_python("""
import sys
sys.modules["anomalib"] = None
import torch
assert torch.ones(1).item() == 1
try:
    import anomalib.models
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("anomalib was importable")
""")


def test_a_failing_hook_does_not_break_torch(run_python: Run) -> None:
    result = run_python("""
import sys
class Hostile(list):
    def insert(self, *_):
        raise RuntimeError("hostile")
sys.meta_path = Hostile(sys.meta_path)
import torch
""")
    assert "could not prepare its registration" in result.stderr


def test_an_error_in_anomalibs_own_import_stays_visible_and_can_be_retried(run_python: Run, tmp_path: Path) -> None:
    run_python("""
import sys, torch
import anomalib
sys.modules["anomalib.models.image"] = None
try:
    import anomalib.models
except ImportError:
    del sys.modules["anomalib.models.image"]
else:
    raise AssertionError("the broken import went through")
from anomalib.models import ClipAD
""")


def test_anomalibs_own_clipad_would_take_precedence(run_python: Run) -> None:
    run_python("""
import sys, types
from anomalib_clipad.plugin import attach_plugins
host = types.ModuleType("anomalib.models")
host.ClipAD = "anomalib's own"
sys.modules["anomalib.models"] = host
attach_plugins()
assert host.ClipAD == "anomalib's own"
assert "anomalib_clipad.lightning_model" not in sys.modules
""")


def test_torchs_switch_turns_it_off(run_python: Run) -> None:
    run_python(
        "import anomalib.models; assert not hasattr(anomalib.models, 'ClipAD')",
        TORCH_DEVICE_BACKEND_AUTOLOAD="0",
    )


def test_the_hook_is_gone_once_it_acted_and_heavy_modules_wait(run_python: Run) -> None:
    run_python("""
import sys
import anomalib_clipad
import anomalib_clipad.plugin
heavy = {"torch", "anomalib", "open_clip", "lightning", "sklearn", "numpy"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
import torch
hooks = [finder for finder in sys.meta_path if type(finder).__name__ == "_PostImportFinder"]
assert len(hooks) == 1
assert not {"anomalib", "open_clip", "lightning"} & set(sys.modules)
import anomalib.models
assert hooks[0] not in sys.meta_path
loader = anomalib.models.__spec__.loader
assert "exec_module" not in vars(loader)
""")


def test_public_names_are_listed_and_wrong_ones_refused(run_python: Run) -> None:
    run_python("""
import anomalib_clipad
assert {"ClipAD", "ClipADModel", "load_backbone"} <= set(dir(anomalib_clipad))
try:
    anomalib_clipad.ClipAd
except AttributeError as error:
    assert "ClipAd" in str(error)
else:
    raise AssertionError("a wrong name was found")
""")
