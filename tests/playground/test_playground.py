"""The playground: answers, what they cost, what is refused, and the page in a real browser."""

from __future__ import annotations

import os
import re
import shlex
import socket
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import save, shallow
from PIL import Image

from anomalib_clipad import Inspector
from anomalib_clipad.images.picture import Picture
from anomalib_clipad.lab.bench.browser import Browser, Tab
from anomalib_clipad.playground import app
from anomalib_clipad.playground.app import Limits, build, require_gradio, served
from anomalib_clipad.playground.session import Question, Session, as_pixels
from anomalib_clipad.tools import cli
from anomalib_clipad.tools.cli import command_of

OWN = {"normal": ("flawless {}",), "abnormal": ("broken {}",)}


def picture(seed: int) -> Picture:
    return Picture(np.random.default_rng(seed).integers(256, size=(50, 60, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(**shallow(), rvs="mean")


@pytest.fixture
def gradio() -> Any:
    return pytest.importorskip("gradio", reason="the extra `playground` is not installed")


NORMAL = [picture(100 + index) for index in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize("references", [[], NORMAL])
@pytest.mark.parametrize(
    "question",
    [
        Question("bolt"),
        Question("nut", threshold=0.1),
        Question("bolt", text_weight=0.2),
        Question("bolt", **OWN),
        Question("nut", text_weight=0.0),
    ],
)
def test_an_answer_is_that_of_an_inspector_made_for_it(
    session: Session, question: Question, references: list[Picture]
) -> None:
    if not references and not question.text_weight:
        pytest.skip("nothing to compare with")
    settings = {**shallow(), "rvs": "mean", "prompts": question.prompts, "text_weight": question.text_weight}
    expected = Inspector(question.class_name, references=references or None, threshold=question.threshold, **settings)
    finding = session.answer(picture(1), references, question)
    wanted = expected.inspect(picture(1))
    assert finding.score == pytest.approx(wanted.score, abs=1e-6)
    assert (finding.label, len(finding.regions)) == (wanted.label, len(wanted.regions))
    np.testing.assert_allclose(finding.anomaly_map, wanted.anomaly_map, atol=1e-6)


def test_a_rate_is_that_of_normal_images_left_out_in_turn(session: Session) -> None:
    question = Question("bolt", threshold=None, false_alarm_rate=0.25)
    finding = session.answer(picture(1), NORMAL, question)
    wanted = Inspector("bolt", references=NORMAL, false_alarm_rate=0.25, **shallow(), rvs="mean").inspect(picture(1))
    assert (finding.p_value, finding.label) == (wanted.p_value, wanted.label)
    assert finding.threshold == pytest.approx(wanted.threshold, abs=1e-6)
    with pytest.raises(ValueError, match=r"takes 9 normal images or more"):
        session.answer(picture(1), NORMAL, Question("bolt", threshold=None, false_alarm_rate=0.1))
    with pytest.raises(ValueError, match="several normal images to compare with; there are 0"):
        session.answer(picture(1), [], question)


def test_another_question_of_the_same_image_is_answered_anew(session: Session) -> None:
    """Each question after another one, on the same image and the same normal images."""
    options = {"references": NORMAL, **shallow(), "rvs": "mean"}
    for question in (
        Question("bolt", text_weight=0.2),
        Question("bolt", threshold=None, false_alarm_rate=0.25),
        Question("nut", threshold=None, false_alarm_rate=0.25),
        Question("nut", threshold=None, false_alarm_rate=0.5),
        Question("nut", threshold=0.1),
    ):
        finding = session.answer(picture(1), NORMAL, question)
        decision = {"threshold": question.threshold, "false_alarm_rate": question.false_alarm_rate}
        inspector = Inspector(question.class_name, text_weight=question.text_weight, **decision, **options)
        wanted = inspector.inspect(picture(1))
        assert finding.score == pytest.approx(wanted.score, abs=1e-6)
        assert finding.threshold == pytest.approx(wanted.threshold, abs=1e-6)
        assert (finding.p_value, finding.label) == (wanted.p_value, wanted.label)


def test_another_image_is_looked_at_after_the_last(session: Session) -> None:
    first, second = (session.answer(picture(seed), [], Question("bolt")) for seed in (1, 2))
    assert not np.array_equal(first.image, second.image)
    assert second.score == pytest.approx(Inspector("bolt", **shallow(), rvs="mean").inspect(picture(2)).score, abs=1e-6)


def test_normal_images_are_let_go_of(session: Session) -> None:
    compared = session.answer(picture(1), NORMAL, Question("bolt"))
    alone = session.answer(picture(1), [], Question("bolt"))
    assert alone.score == pytest.approx(Inspector("bolt", **shallow(), rvs="mean").inspect(picture(1)).score, abs=1e-6)
    assert compared.score != pytest.approx(alone.score, abs=1e-3)


def test_one_normal_image_gives_no_rate(session: Session) -> None:
    with pytest.raises(ValueError, match="several normal images to compare with; there are 1"):
        session.answer(picture(1), NORMAL[:1], Question("bolt", threshold=None, false_alarm_rate=0.5))


def test_a_threshold_takes_no_pass_through_the_tower(session: Session) -> None:
    session.answer(picture(1), NORMAL, Question("bolt"))
    before = session.passes
    for threshold in (0.1, 0.9):
        finding = session.answer(picture(1), NORMAL, Question("bolt", threshold=threshold))
        assert finding.threshold == threshold
    assert session.passes == before
    session.answer(picture(2), NORMAL, Question("bolt"))
    assert session.passes == before + 1


def test_states_of_one_kind_only_are_refused(session: Session) -> None:
    with pytest.raises(ValueError, match="states of both kinds"):
        session.answer(picture(1), [], Question("bolt", normal=("flawless {}",)))


def test_prompts_of_the_command_line_count_until_others_are_typed() -> None:
    session = Session(**shallow(), prompts="medical")
    for question, prompts in (
        (Question("skin"), "medical"),
        (Question("skin", **OWN), Question("skin", **OWN).prompts),
    ):
        wanted = Inspector("skin", **shallow(), prompts=prompts).inspect(picture(1))
        assert session.answer(picture(1), [], question).score == pytest.approx(wanted.score, abs=1e-6)


def test_the_command_is_what_does_the_same(session: Session) -> None:
    question = Question("metal nut", **OWN, text_weight=0.2, threshold=0.6)
    line, _, file = session.command(question, "part.png", references=True).partition("\n\n# prompts.yaml\n")
    assert "--class-name 'metal nut'" in line
    assert "--references path/to/normal --text_weight 0.2 --threshold 0.6 --prompts prompts.yaml" in line
    assert "abnormal:\n- broken {}" in file
    by_rate = session.command(Question("nut", threshold=None, false_alarm_rate=0.05), "part.png", references=True)
    assert by_rate.endswith("--text_weight 0.25 --false_alarm_rate 0.05")


def test_the_command_writes_values_as_a_command_line_takes_them(session: Session) -> None:
    given = {"pretrained": None, "tiles": [2, 3], "aligned": True, "rvs_options": {"eps": 1.5}, "smoothing": 4.0}
    session.settings = given
    line = session.command(Question("nut"), "part.png", references=False)
    command = command_of("inspect")
    parsed = command.parser.parse_args(command.spelled(shlex.split(line)[2:])).as_dict()
    assert {name: parsed[name] for name in given} == given


def test_opacity_goes_from_the_image_to_its_map(session: Session) -> None:
    finding = session.answer(picture(1), [], Question("bolt", threshold=0.0))
    np.testing.assert_array_equal(as_pixels(finding, 0)["map"], finding.image)
    np.testing.assert_array_equal(as_pixels(finding, 1)["map"], np.asarray(finding.overlay()))
    np.testing.assert_array_equal(as_pixels(finding, 1)["mask"][..., 0] > 0, finding.mask)


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomalib_clipad.extras.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'gradio>="):
        require_gradio()
    monkeypatch.setattr("sys.argv", ["anomalib-clipad", "playground"])
    with pytest.raises(SystemExit, match="needs gradio"):
        cli.main()


@pytest.mark.slow
def test_the_page_says_that_it_works_offline(gradio: Any, session: Session) -> None:
    mini = Session()
    said = [block.value for block in build(mini, Limits()).blocks.values() if isinstance(block, gradio.Markdown)]
    assert "Works offline" in said[0]
    said = [block.value for block in build(session, Limits()).blocks.values() if isinstance(block, gradio.Markdown)]
    assert "Works offline" not in said[0]


# In a browser.


@pytest.fixture(scope="module")
def address(session: Session) -> Iterator[str]:
    pytest.importorskip("gradio", reason="the extra `playground` is not installed")
    with served(session, limits=Limits(megabytes=0.5, pixels=10_000, references=2)) as address:
        yield address


@pytest.fixture(scope="module")
def tab(browser: Browser, address: str) -> Tab:
    tab = browser.tab(1280, 1000)
    tab.go(address)
    tab.until("!!document.querySelector('#look')")
    return tab


SCORE = "document.querySelector('#score')?.dataset.value"


def answered(tab: Tab, before: object = None) -> float:
    """The score, once it is another than before."""
    tab.until(f"({SCORE} ?? null) !== null && {SCORE} !== {str(before)!r}")
    return float(tab.evaluate(SCORE))


def click_until_answered(tab: Tab) -> float:
    """The score after a click, or after another one: a busy machine shows the button long before it listens."""
    for _ in range(6):
        tab.click("#look")
        with suppress(TimeoutError):
            tab.until(f"({SCORE} ?? null) !== null", seconds=15)
            break
    return answered(tab)


def upload(tab: Tab, field: str, *files: Path) -> None:
    tab.call("DOM.enable")
    root = tab.call("DOM.getDocument")["root"]["nodeId"]
    node = tab.call("DOM.querySelector", nodeId=root, selector=f"#{field} input[type=file]")["nodeId"]
    tab.call("DOM.setFileInputFiles", files=[str(file) for file in files], nodeId=node)


@pytest.mark.slow
def test_a_click_answers(tab: Tab, session: Session) -> None:
    expected = session.answer(app._example("bracket, crack"), [], Question("bracket"))
    assert click_until_answered(tab) == pytest.approx(expected.score, abs=1e-6)
    names = tab.evaluate("[...document.querySelectorAll('.answer figcaption')].map(one => one.textContent)")
    assert names == ["image", "map", "mask"]
    link = tab.evaluate("document.querySelector('#download').href")
    downloaded = np.asarray(Image.open(BytesIO(b64decode(link.split(",")[1]))))
    np.testing.assert_array_equal(downloaded, np.asarray(expected.overlay()))
    assert "anomalib-clipad inspect image.png --class-name bracket" in tab.evaluate("document.body.innerText")


def test_an_upload_is_answered_and_removed(tab: Tab, session: Session, tmp_path: Path) -> None:
    before = tab.evaluate("document.querySelector('#score').dataset.value")
    file = save(tmp_path / "mine.png", picture(3).pixels)
    upload(tab, "upload", file)
    score = answered(tab, before)
    assert score == pytest.approx(session.answer(picture(3), [], Question("bracket")).score, abs=1e-6)
    held = [path for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file()]
    assert held == []
    assert file.exists()


@pytest.mark.parametrize(
    ("pixels", "said"), [(None, "cannot be read"), ((101, 100), "10,100 pixels, and 10,000 are allowed")]
)
def test_what_is_no_image_or_too_large_is_said(
    tab: Tab, tmp_path: Path, pixels: tuple[int, int] | None, said: str
) -> None:
    file = tmp_path / "odd.png"
    file.write_text("hello") if pixels is None else Image.new("RGB", pixels).save(file)
    upload(tab, "upload", file)
    tab.until(f"document.body.innerText.includes({said!r})")
    assert str(tmp_path) not in tab.evaluate("document.body.innerText")
    held = [path for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file()]
    assert held == []


def test_a_file_too_large_is_not_taken(tab: Tab, tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    file.write_bytes(bytes(700_000))
    upload(tab, "upload", file)
    tab.until("/exceed|too large|size/i.test(document.body.innerText)")
    time.sleep(0.2)
    assert not [path for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file()]


@pytest.mark.slow
def test_only_this_machine_is_asked_and_asks(tab: Tab, address: str) -> None:
    asked = [given["request"]["url"] for method, given in tab.events if method == "Network.requestWillBeSent"]
    assert {re.sub(r"^(\w+:(//[^/]*)?).*", r"\1", url) for url in asked} <= {address.rstrip("/"), "data:", "blob:"}
    port = int(address.rstrip("/").rsplit(":", 1)[1])
    outside = socket.gethostbyname(socket.gethostname())
    if not outside.startswith("127."):
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((outside, port), timeout=2)
