"""Options that commands share: who offers them, what arrives of them, how they may be written."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Run

from anomalib_clipad.host.calibration import check_guarantee
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.settings import Option
from anomalib_clipad.tools import page, playground, product
from anomalib_clipad.tools.arguments import MODEL, decision
from anomalib_clipad.tools.cli import command_of

BUILDERS = ["inspect", "page", "playground", "product", "text-features"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command `product` is called with, in place of a product."""
    given: dict[str, Any] = {}

    def noted(output: Path = Path(), settings: dict | None = None, decision: dict | None = None) -> None:
        given.update(output=output, settings=settings, decision=decision)

    monkeypatch.setattr(product, "product", noted)
    return given


@pytest.mark.parametrize("option", MODEL, ids=lambda option: option.name)
@pytest.mark.parametrize("command", BUILDERS)
def test_every_command_that_builds_a_model_offers_every_option_of_it(command: str, option: Option) -> None:
    (action,) = (action for action in command_of(command).parser._actions if action.dest == option.name)
    assert f"--{option.name}" in action.option_strings
    assert str(action.help).startswith(option.text)


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (
            "page",
            {
                "references",
                "memory_size",
                "calibration",
                "false_alarm_rate",
                "miss_rate",
                "defects",
                "threshold",
                "max_pixels",
            },
        ),
        ("product", {"references", "memory_size"}),
        ("text-features", set()),
    ],
)
def test_a_command_offers_of_the_decision_what_it_takes(command: str, names: set[str]) -> None:
    assert {option.name for option in decision(command)} == names
    assert names <= {action.dest for action in command_of(command).parser._actions}


def test_what_is_given_arrives_and_nothing_else(run: Callable[..., None], asked: dict[str, Any]) -> None:
    run("product", "-o", "x", "--text-weight", "0", "--tiles", "[2, 3]", "--pretrained", "null", "--references", "good",
        "--rvs_options.eps", "1.5", "--rvs_options.min_samples", "25")  # fmt: skip
    assert asked["output"] == Path("x")
    options = {"eps": 1.5, "min_samples": 25}
    assert asked["settings"] == {"text_weight": 0, "tiles": [2, 3], "pretrained": None, "rvs_options": options}
    assert asked["decision"] == {"references": Path("good")}


def test_the_old_name_of_references_works_with_one_sentence(run: Callable[..., None], asked: dict[str, Any]) -> None:
    with pytest.warns(DeprecationWarning, match="--normal is called --references now") as said:
        run("product", "--output", "x", "--normal=good")
    assert asked["decision"] == {"references": Path("good")}
    (one,) = said
    assert warnings.formatwarning(one.message, one.category, one.filename, one.lineno) == (
        "anomalib-clipad: --normal is called --references now; the old name ends with the next release.\n"
    )


def refused(run: Callable[..., None], capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """The one line with which a command is refused."""
    with pytest.raises(SystemExit) as ended:
        run(*words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_misspelt_option_names_the_near_one(run: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("product", "--text-weigth", "0.2")
    assert ended.value.code == 2
    said = "anomalib-clipad product: There is no option --text_weigth; did you mean --text_weight?\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inspect", "x", "--overlays", "defectiv"], "Got value: defectiv; did you mean defective?"),
        (["inspect", "x", "--engine=rai"], "Expected one of process, ray. Got value: rai; did you mean ray?"),
        (["product", "--tap", "blok"], "Expected one of reference, block. Got value: blok; did you mean block?"),
        (["text-features", "--variant", "sdp-plus"], "Got value: sdp-plus; did you mean sdp_plus?"),
    ],
)
def test_a_misspelt_choice_names_the_near_one(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    line = refused(run, capsys, words)
    assert line.startswith(f"anomalib-clipad {words[0]}: --")
    assert line.endswith(said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Name a command. Commands are cache, demo, report, inspect,"),
        (["inspcet", "page"], "There is no command inspcet; did you mean inspect?"),
        (["brew"], "There is no command brew. Commands are cache, demo, report, inspect,"),
        (["inspect", "x", "--batch_size", "a"], "--batch_size: Expected int. Got value: a."),
        (["inspect", "x", "--threads", "a"], "--threads: Expected int. Got value: a."),
        (["inspect", "x", "--maps", "tga"], "--maps: Expected one of 'none', 'png', 'npy'. Got value: tga."),
        (["product", "--references"], "argument --references: expected one argument."),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    line = refused(run, capsys, words)
    assert line.startswith("anomalib-clipad")
    assert said in line


SWITCHES = [
    (command, action.option_strings[-1])
    for command in [*BUILDERS, "cache"]
    for action in command_of(command).parser._actions
    if getattr(action, "_typehint", None) in {bool, bool | None}
]


def test_the_switches_of_the_commands_are_known() -> None:
    assert {("inspect", f"--{name}") for name in ("resume", "mutual", "overwrite", "masks", "coco", "page")} < {
        *SWITCHES
    }
    assert {("cache", "--clear"), ("playground", "--open_browser")} < {*SWITCHES}


@pytest.mark.parametrize(("name", "flag"), SWITCHES)
def test_a_switch_is_on_by_itself_and_takes_true_and_false_as_ever(name: str, flag: str) -> None:
    command = command_of(name)
    first = ["parts"] if name == "inspect" else []
    rest = ["--class_name", "nut"] if name in {"page", "text-features"} else []
    for words, value in {(): True, ("true",): True, ("True",): True, ("false",): False, ("no",): False}.items():
        for flags in ([flag, *words], [flag.replace("_", "-"), *words]):
            for line in ([*flags, *first, *rest], [*first, *rest, *flags]):
                parsed = command.parser.parse_args(command.spelled(line))
                assert parsed[flag[2:]] is value, line
                if first:
                    assert parsed["images"] == first
        if words:
            assert command.parser.parse_args(command.spelled([f"{flag}={words[0]}", *rest]))[flag[2:]] is value


def test_what_stands_behind_two_dashes_is_left_alone() -> None:
    command = command_of("inspect")
    assert command.spelled(["--mutual", "--", "--masks", "--overlays"]) == [
        "--mutual=true",
        "--",
        "--masks",
        "--overlays",
    ]


@pytest.mark.parametrize("command", ["demo", "report", "inspect", "page", "product", "text-features"])
def test_the_short_name_of_an_output_is_o(command: str) -> None:
    (action,) = (action for action in command_of(command).parser._actions if action.dest == "output")
    assert action.option_strings == ["-o", "--output"]


def test_a_page_and_the_playground_take_the_default_backbone(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Any] = []

    def build(names: list[str], settings: dict[str, Any], **_: Any) -> None:
        built.append(settings)
        raise ValueError

    def session(**settings: Any) -> None:
        built.append(settings)
        raise ValueError

    monkeypatch.setattr("anomalib_clipad.web.build.build", build)
    monkeypatch.setattr(playground, "Session", session)
    monkeypatch.setattr(playground, "require_gradio", lambda: None)
    for command in ("page", "playground"):
        with pytest.raises(SystemExit):
            run(command, "--smoothing", "4")
    assert built == [{"smoothing": 4.0}, {"backbone": "ViT-B-16-plus-240", "smoothing": 4.0}]


def test_a_product_asks_for_references() -> None:
    with pytest.raises(ValueError, match="Pass --references"):
        product.product(settings={"text_weight": 0})


def test_references_make_a_large_page_large(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Built:
        def write(self, output: Path, _: Any) -> None:
            output.write_bytes(bytes(16_000_000))

    taken: dict[str, Any] = {}
    monkeypatch.setattr("anomalib_clipad.web.build.build", lambda _, **given: taken.update(given) or Built())
    page.page(["nut"], tmp_path / "x.html", decision={"references": Path("good"), "threshold": 0.7})
    assert (taken["references"], taken["threshold"]) == (Path("good"), 0.7)
    assert "Fewer references" in capsys.readouterr().out


def test_calibration_images_that_decide_nothing_are_refused_as_by_the_model() -> None:
    with pytest.raises(ValueError, match="pass false_alarm_rate too") as of_model:
        check_guarantee(None, "folder", mutual=False)
    with pytest.raises(ValueError, match="pass false_alarm_rate too") as of_inspector:
        Inspector("nut", calibration="folder")
    first, _, _ = str(of_inspector.value).partition(", or a threshold")
    assert first in str(of_model.value).replace("calibration_source", "calibration")


def test_the_arguments_of_inspect_are_known_without_torch(run_python: Run) -> None:
    """An exported file is inspected in a second, of which torch alone would take two."""
    run_python(
        "import sys\nfrom anomalib_clipad.tools.cli import command_of\ncommand_of('inspect')\n"
        "assert not {'torch', 'anomalib', 'open_clip'} & {*sys.modules}"
    )
