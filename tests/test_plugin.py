"""Registration: anomalib learns of ClipAD by itself, in every order of imports, and never at torch's expense."""

from pathlib import Path

import pytest
from conftest import Run

REGISTERED = """
import anomalib.models
assert "ClipAD" in vars(anomalib.models)
from anomalib.models import ClipAD, list_models
import anomalib_clipad.data
assert ClipAD is anomalib_clipad.ClipAD
assert "clip_a_d" in list_models()
from anomalib.data import CVCClinicDB, GeneratedParts
assert GeneratedParts is anomalib_clipad.data.GeneratedParts
assert [cls.__name__ for cls in anomalib.models.AnomalibModule.__subclasses__()].count("ClipAD") == 1
"""
FIRST = [
    "import torch",
    "import anomalib; import anomalib.models",
    "from anomalib.models.image import Padim; from anomalib.models import ClipAD",
    "from anomalib.data import GeneratedParts; import sys; assert 'anomalib.models' not in sys.modules",
    "import anomalib_clipad; anomalib_clipad.ClipAD",  # imports anomalib_clipad.lightning_model
    "from anomalib_clipad.data import GeneratedParts",
    "import anomalib_clipad.deploy.exporter",  # imports anomalib, whose end wants all of it
    "from anomalib_clipad.host.post_processor import ClipADPostProcessor",
]


@pytest.mark.slow
@pytest.mark.parametrize("statement", FIRST)
def test_any_import_may_come_first(run_python: Run, statement: str) -> None:
    result = run_python(f"{statement}\n{REGISTERED}")
    assert "could not" not in result.stderr


def test_get_model_knows_every_name(tiny: dict[str, str]) -> None:
    from anomalib.models import get_model

    init_args = {**tiny, "class_name": "cup", "rvs_options": {"eps": 0.6}}
    models = [
        get_model("clip_ad", **tiny),
        get_model("clip_a_d", **tiny),
        get_model("ClipAD", **tiny),
        get_model({"class_path": "ClipAD", "init_args": init_args}),
        get_model({"class_path": "anomalib.models.ClipAD"}, **tiny),
    ]
    assert {type(model).__name__ for model in models} == {"ClipAD"}
    assert models[3].class_name == "cup"
    assert models[3].model.settings.rvs_options == {"eps": 0.6}
    assert type(models[3].hparams["rvs_options"]) is dict


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


def test_broken_entry_points_are_logged_and_harm_nobody(fake: Run, tmp_path: Path) -> None:
    modules = {"broken.py": "raise OSError('half installed')", "invalid.py": "def (", "empty.py": ""}
    values = ["nowhere:Model", "broken:Model", "invalid:Model", "empty:Model"]
    names = "\n".join(f"Other{number} = {value}" for number, value in enumerate(values))
    path = _package(tmp_path, f"[anomalib.models]\n{names}\n", modules)
    result = fake("import torch, anomalib.models", PYTHONPATH=path)
    for number, value in enumerate(values):
        assert f"Other{number} ({value}) of 'anomalib.models' could not be loaded" in result.stderr


NESTED = {
    "nested/__init__.py": "",
    "nested/part.py": "import anomalib.models\nclass Part: pass\n",
    "nested/outer.py": "from .part import Part\nclass Outer: pass\n",
    "nested/broken.py": "from .part import Part\nraise OSError('no such file')\n",
    "nested/model.py": "from .outer import Outer\nclass Nested: pass\n",
}


@pytest.mark.parametrize(
    "first", ["import nested.part", "import nested.outer", "import nested.model", "import torch, nested.outer"]
)
def test_any_module_of_a_plugin_may_come_first(fake: Run, tmp_path: Path, first: str) -> None:
    """The end of anomalib's import finds the plugin half imported: the class is attached when that import ends too."""
    path = _package(tmp_path, "[anomalib.models]\nNested = nested.model:Nested\n", NESTED)
    check = "import sys; assert vars(sys.modules['anomalib.models'])['Nested'].__module__ == 'nested.model'"
    spec = "from importlib.machinery import ModuleSpec; assert type(sys.modules['nested.part'].__spec__) is ModuleSpec"
    assert fake(f"{first}\n{check}\n{spec}\n{ATTACHED}", PYTHONPATH=path).stderr == ""


def test_a_plugins_module_that_cannot_be_imported_hinders_nobody(fake: Run, tmp_path: Path) -> None:
    path = _package(tmp_path, "[anomalib.models]\nNested = nested.model:Nested\n", NESTED)
    result = fake(
        f"""
try:
    import nested.broken
except OSError as error:
    assert "no such file" in str(error)
else:
    raise AssertionError("the broken module was imported")
import anomalib.models
assert "Nested" in vars(anomalib.models)
{ATTACHED}""",
        PYTHONPATH=path,
    )
    assert result.stderr == ""


@pytest.fixture
def fake(run_python: Run, tmp_path: Path) -> Run:
    """Programs that see an anomalib and a torch of a few lines: the real ones take ten seconds to import."""
    site = tmp_path / "fake"
    files = {
        "torch/__init__.py": "from anomalib_clipad.plugin import install\ninstall()\n",
        "anomalib/__init__.py": "",
        "anomalib/data.py": "import torch\n",
        "anomalib/models/__init__.py": "import torch\nfrom . import video\n",
        "anomalib/models/video.py": "",
        "toy_plugin.py": "class Toy: pass\nclass ToyData: pass\n",
        "toy-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n",
        "toy-1.0.dist-info/entry_points.txt": (
            "[anomalib.models]\nToy = toy_plugin:Toy\n[anomalib.data]\nToyData = toy_plugin:ToyData\n"
        ),
    }
    for name, content in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(content)
    ours = Path(__file__).parents[1]
    start = (
        "import importlib.metadata, sys\n"
        "found = importlib.metadata.entry_points\n"  # without those of the package itself, which need the real anomalib
        "importlib.metadata.entry_points = lambda **which: "
        "[entry for entry in found(**which) if 'anomalib_clipad' not in entry.value]\n"
    )

    def run(program: str, PYTHONPATH: str = "", **environment: str) -> object:  # noqa: N803
        path = f"{site}:{PYTHONPATH}:{ours}"
        return run_python(start + program, PYTHONPATH=path, TORCH_DEVICE_BACKEND_AUTOLOAD="0", **environment)

    return run


ATTACHED = """
import anomalib.models, anomalib.data
from types import ModuleType
assert anomalib.models.Toy.__name__ == "Toy" and anomalib.data.ToyData.__name__ == "ToyData"
assert type(anomalib.models) is ModuleType and type(anomalib.data) is ModuleType
assert type(anomalib.models.__spec__.loader).__name__ == type(anomalib.models.__loader__).__name__ == "SourceFileLoader"
"""


@pytest.mark.parametrize(
    "program",
    [
        "import torch",
        "import anomalib.models",
        "from anomalib.data import ToyData",
        "import anomalib.data; anomalib.data.ToyData",
        "from anomalib.models import Toy",
        "from anomalib_clipad.plugin import install; install(); install(); import torch",
        # a finder and a loader of the old kind before ours and behind it
        "class Legacy:\n    def find_module(self, *_): return None\n"
        "sys.meta_path.insert(0, Legacy()); import torch; sys.meta_path.insert(0, Legacy())",
        # everything imported once, purged, and imported again
        "import torch, anomalib.models, anomalib.data\n"
        "for name in [n for n in sys.modules if n.split('.')[0] in ('torch', 'anomalib', 'anomalib_clipad')]:\n"
        "    del sys.modules[name]",
        # loaders whose exec_module cannot be set
        "from importlib.machinery import SourceFileLoader as Loader\n"
        "def set_attribute(self, name, value): vars(self).update({name: value if name != 'exec_module' else 1 / 0})\n"
        "Loader.__setattr__ = set_attribute\n"
        "import torch",
    ],
)
def test_every_way_to_import_attaches(fake: Run, program: str) -> None:
    result = fake(f"{program}\n{ATTACHED}")
    assert result.stderr == ""


@pytest.mark.slow
def test_lazy_models_get_their_names_when_they_are_asked_for(fake: Run, tmp_path: Path) -> None:
    """An anomalib that no longer imports its last child."""
    (tmp_path / "fake/anomalib/models/__init__.py").write_text("import torch\n")
    fake("import anomalib.models\nassert anomalib.models.Toy.__name__ == 'Toy'")
    fake("from anomalib.models import Toy")
    fake("import anomalib.models\nassert not hasattr(anomalib.models, 'Other')")


LAZY = """
import torch
from importlib import import_module
_CLASSES = {"Padim": "anomalib.models.image"}

def __getattr__(name):
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_CLASSES[name]), name)
"""


@pytest.mark.parametrize("first", ["import torch", ""])
def test_lazy_models_of_a_class_map_have_the_names_too(fake: Run, tmp_path: Path, first: str) -> None:
    """A pending change of anomalib: classes come from a module's __getattr__, and nothing imports the last child."""
    (tmp_path / "fake/anomalib/models/__init__.py").write_text(LAZY)
    (tmp_path / "fake/anomalib/models/image.py").write_text("class Padim: pass\n")
    result = fake(f"""
{first}
import sys, anomalib.models
assert "Toy" in vars(anomalib.models) or not {bool(first)}, "where torch came first, the end of the import is known"
assert anomalib.models.Toy.__name__ == "Toy" and "anomalib.models.image" not in sys.modules
assert anomalib.models.Padim.__name__ == "Padim"
assert not hasattr(anomalib.models, "Other")
{ATTACHED}""")
    assert result.stderr == ""


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_torchs_switch_turns_it_off(run_python: Run) -> None:
    program = "import sys, torch; found = [type(finder).__name__ for finder in sys.meta_path]; assert {} found, found"
    run_python(program.format("'_PostImportFinder' in"))
    run_python(program.format("'_PostImportFinder' not in"), TORCH_DEVICE_BACKEND_AUTOLOAD="0")


@pytest.mark.slow
def test_the_hook_imports_nothing_heavy(run_python: Run) -> None:
    run_python("""
import sys
import anomalib_clipad
import anomalib_clipad.plugin
heavy = {"torch", "anomalib", "open_clip", "lightning", "sklearn", "numpy"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
import torch
assert len([finder for finder in sys.meta_path if type(finder).__name__ == "_PostImportFinder"]) == 1
assert not {"anomalib", "open_clip", "lightning"} & set(sys.modules)
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
