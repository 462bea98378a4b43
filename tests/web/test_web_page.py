"""The page that is the inspector: what it holds, and what it does in a real browser, opened from a file."""

from __future__ import annotations

import json
import re
import shutil
import sys
from base64 import b64decode
from dataclasses import replace
from gzip import decompress
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import save, shallow
from pictures import noise
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from anomalib_clipad import Inspector
from anomalib_clipad.lab.bench.browser import Browser, Tab
from anomalib_clipad.lab.bench.web_page import dropped, figures_of_page
from anomalib_clipad.tools.page import page as write_page
from anomalib_clipad.vision.resize import PillowResize
from anomalib_clipad.web import runtime as module
from anomalib_clipad.web.build import build
from anomalib_clipad.web.page import InspectorPage
from anomalib_clipad.web.runtime import FETCH, FOLDER, load_runtime

NAMES = ["bottle", "metal_nut"]
RATE = 0.3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Normal images, images to calibrate on, images to try."""
    root = tmp_path_factory.mktemp("web")
    counts = {"normal": 2, "calibration": 7, "examples": 2}
    for index, (name, count) in enumerate(counts.items()):
        for number in range(count):
            save(root / name / f"{number}.png", noise(100 * index + number, 60, 70) // 2 + 64)
    return {name: root / name for name in counts}


@pytest.fixture(scope="module")
def settings(folders: dict[str, Path]) -> dict[str, Path | float]:
    return {"references": folders["normal"], "calibration": folders["calibration"], "false_alarm_rate": RATE}


@pytest.fixture(scope="module")
def built(folders: dict[str, Path], settings: dict) -> InspectorPage:
    """For two classes, with normal images and a calibration; images of more than a million pixels are refused."""
    examples = {path.name: path.read_bytes() for path in sorted(folders["examples"].iterdir())}
    return build(NAMES, **settings, settings=shallow(), examples=examples, title="<b>&", max_pixels=10**6)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, built: InspectorPage) -> Path:
    path = tmp_path_factory.mktemp("page with spaces") / "in#1.html"
    built.write(path, load_runtime())
    return path


def part(page: Path, name: str) -> bytes:
    found = re.search(rf'id="{name}">([^<]*)<', page.read_text(encoding="utf-8"))
    assert found is not None
    return decompress(b64decode(found[1]))


def inspector(name: str, settings: dict) -> Inspector:
    return Inspector(name, **settings, **shallow())


def test_the_graph_of_a_page_gives_what_python_gives(page: Path, settings: dict) -> None:
    session = onnxruntime.InferenceSession(part(page, "model"))
    image = noise(1, 90, 130)
    side = json.loads(part(page, "settings"))["size"]
    resize = PillowResize((side, side))

    levels = (
        (255 * resize(torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255)))).round().numpy().astype(np.uint8)
    )
    for entry in json.loads(part(page, "settings"))["classes"]:
        text = np.frombuffer(b64decode(entry["text"]), np.float32).reshape(-1, 2)
        others = {name: np.array(value, np.float32) for name, value in entry["inputs"].items()}
        score, anomaly_map = session.run(None, {"image": levels[None], "text_features": text, **others})
        expected = inspector(entry["name"], settings).inspect(image)
        assert score[0] == pytest.approx(expected.score, abs=1e-5)
        np.testing.assert_allclose(anomaly_map[0], expected.anomaly_map, atol=2e-5)


def test_a_page_is_one_file_that_names_no_address_and_carries_its_licence(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "Permission is hereby granted, free of charge" in text
    assert "<title>&lt;b&gt;&amp;</title>" in text
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none';")
    assert "unsafe-inline" not in policy[1]
    assert not re.search(r'(src|href)="(?!data:,)', text)


@pytest.mark.slow
def test_wrong_arguments_are_explained(tmp_path: Path, folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="Each class is named once; got nut, nut"):
        build(["nut", "nut"], settings=shallow())
    with pytest.raises(ValueError, match="Say what the images show"):
        build([], settings=shallow())
    with pytest.raises(ValueError, match="threshold has to be a score"):
        build(["nut"], settings=shallow(), threshold=2)
    with pytest.raises(ValueError, match="leave out tiles"):
        build(["nut"], settings={**shallow(), "tiles": [2, 2]})
    with pytest.raises(ValueError, match="leave out precision"):
        build(["nut"], settings={**shallow(), "precision": "bfloat16"})
    with pytest.raises(ValueError, match="none cannot be read"):
        write_page(["nut"], tmp_path / "x.html", shallow(), {"calibration": tmp_path / "none", "false_alarm_rate": 0.5})
    assert list(tmp_path.iterdir()) == []


def test_a_runtime_that_is_missing_or_damaged_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModuleNotFoundError, match=re.escape(FETCH)):
        load_runtime(tmp_path)
    copy = shutil.copytree(FOLDER, tmp_path / "copy")
    (copy / "ort.wasm.min.js").write_text("alert(1)")
    with pytest.raises(ModuleNotFoundError, match=r"ort\.wasm\.min\.js is not the file of onnxruntime-web 1\."):
        load_runtime(copy)
    monkeypatch.setattr(module, "FOLDER", copy)
    monkeypatch.setattr(module.load_runtime, "__defaults__", (copy,))
    with pytest.raises(ModuleNotFoundError, match=re.escape(FETCH)):
        write_page(["nut"], tmp_path / "x.html", shallow())


# In a browser.


def opened(browser: Browser, page: Path, before: str = "") -> Tab:
    """The page, from its file, when it is ready or says why it is not; a script may run before it."""
    tab = browser.tab()
    if before:
        tab.call("Page.addScriptToEvaluateOnNewDocument", source=before)
    tab.go(page.as_uri())
    tab.until("document.body.dataset.state !== 'loading'")
    return tab


@pytest.fixture(scope="module")
def tab(browser: Browser, page: Path) -> Tab:
    tab = opened(browser, page)
    assert status(tab) == "Ready."
    return tab


def status(tab: Tab) -> str:
    return str(tab.evaluate("document.getElementById('status').textContent"))


def value(tab: Tab, name: str) -> float:
    return float(tab.evaluate(f"document.getElementById('{name}').dataset.value"))


def verdict(tab: Tab) -> str:
    return str(tab.evaluate("document.getElementById('verdict').textContent"))


def move(tab: Tab, control: str, to: object, event: str = "input") -> None:
    """Do to a slider or a choice what a user does."""
    tab.evaluate(
        f"Object.assign(document.getElementById('{control}'), {{ value: {json.dumps(to)} }})"
        f".dispatchEvent(new Event('{event}'))"
    )


@pytest.mark.parametrize(
    ("name", "size"),
    [("small.png", (11, 300)), ("same.png", (32, 32)), ("large.png", (900, 1001)), ("photo.jpg", (301, 200))],
)
def test_a_dropped_image_gets_pythons_score_p_value_and_regions(
    tab: Tab, settings: dict, tmp_path: Path, name: str, size: tuple[int, int]
) -> None:
    file = save(tmp_path / name, noise(5, *size))
    score = dropped(tab, file)
    finding = inspector("bottle", settings).inspect(file)
    assert score == pytest.approx(finding.score, abs=1e-4 if name.endswith("jpg") else 1e-5)
    assert value(tab, "p-value") == pytest.approx(finding.p_value)
    assert verdict(tab) == ("defective" if finding.label else "good")
    assert value(tab, "regions") == len(finding.regions)
    width, height = tab.evaluate(
        "[document.getElementById('picture').width, document.getElementById('picture').height]"
    )
    assert (height, width) == size


@pytest.mark.slow
def test_a_dropped_image_gets_pythons_verdict_of_three(
    browser: Browser, folders: dict[str, Path], settings: dict, tmp_path: Path
) -> None:
    """And the page says what it promises."""
    for number in range(9):
        save(tmp_path / f"bad/{number}.png", noise(300 + number, 60, 70))
    known = {**settings, "miss_rate": 0.3, "defects": tmp_path / "bad"}
    own = build(["bottle"], **known, settings=shallow())
    own.write(tmp_path / "page.html", load_runtime())
    assert "30 % of defects called good, from 9 known ones" in (tmp_path / "page.html").read_text()
    tab, python, found = opened(browser, tmp_path / "page.html"), inspector("bottle", known), set()
    images = [noise(400 + number, 60, 70) // (1 + number % 3) + 20 * (number % 3) for number in range(9)]
    for number, pixels in enumerate(images):
        file = save(tmp_path / f"{number}.png", pixels)
        dropped(tab, file)
        assert verdict(tab) == python.inspect(file).verdict
        found.add(verdict(tab))
    assert len(found) > 1


PIXELS = noise(6, 60, 90)
RGBA = np.dstack([PIXELS, noise(7, 60, 90)[..., 0]])
FRAMES = {"save_all": True, "append_images": [Image.fromarray(255 - PIXELS)]}


def oriented(orientation: int) -> dict[str, Image.Exif]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


def with_xmp() -> PngInfo:
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    return text


READ_AS_PYTHON: dict[str, tuple[Image.Image, dict]] = {
    **{f"turned{number}.png": (Image.fromarray(PIXELS), oriented(number)) for number in range(2, 9)},
    **{f"turned{number}.jpg": (Image.fromarray(PIXELS), oriented(number)) for number in range(2, 9)},
    "turned_by_xmp.png": (Image.fromarray(PIXELS), {"pnginfo": with_xmp()}),
    "rgba.png": (Image.fromarray(RGBA), {}),
    "grey_alpha.png": (Image.fromarray(RGBA).convert("LA"), {}),
    "palette.png": (Image.fromarray(PIXELS).quantize(16), {}),
    "palette_alpha.png": (Image.fromarray(PIXELS).quantize(16), {"transparency": bytes(range(0, 256, 16))}),
    "key.png": (Image.fromarray(PIXELS // 64 * 64), {"transparency": (64, 128, 64)}),
    "one_bit.png": (Image.fromarray(PIXELS[..., 0] > 99), {}),
    "transparent.gif": (Image.fromarray(PIXELS).quantize(16), {"transparency": 3}),
    "plain.webp": (Image.fromarray(PIXELS), {"lossless": True, **oriented(1)}),
    "grey.jpg": (Image.fromarray(PIXELS[..., 0]), {}),
    "plain.bmp": (Image.fromarray(PIXELS), {}),
}
REFUSED: dict[str, tuple[Image.Image, dict, str]] = {
    "deep.png": (Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 200), {}, "a PNG of 16 bits"),
    "moving.png": (Image.fromarray(PIXELS), FRAMES, "an animated PNG"),
    "moving.webp": (Image.fromarray(PIXELS), FRAMES, "an animated WebP"),
    "cmyk.jpg": (Image.fromarray(PIXELS).convert("CMYK"), {}, "a JPEG of CMYK colours"),
    "progressive.jpg": (Image.fromarray(PIXELS).convert("CMYK"), {"progressive": True}, "a JPEG of CMYK colours"),
    **{
        f"turned{number}.webp": (Image.fromarray(PIXELS), oriented(number), "a WebP that EXIF says to turn")
        for number in (2, 6)
    },
    "lossy_alpha.webp": (Image.fromarray(RGBA), {}, "a WebP with transparency"),
    "alpha.webp": (Image.fromarray(RGBA), {"lossless": True}, "a WebP with transparency"),
    "plain.tif": (Image.fromarray(PIXELS), {}, "a TIFF"),
    "plain.jp2": (Image.fromarray(PIXELS), {}, "a JPEG 2000"),
    "plain.ppm": (Image.fromarray(PIXELS), {}, "a file of PBM, PGM or PPM"),
    "plain.ico": (Image.fromarray(PIXELS), {}, "an icon"),
}


@pytest.mark.parametrize("name", READ_AS_PYTHON)
def test_a_file_is_read_as_python_reads_it(tab: Tab, settings: dict, tmp_path: Path, name: str) -> None:
    image, options = READ_AS_PYTHON[name]
    image.save(tmp_path / name, **options)
    finding = inspector("bottle", settings).inspect(tmp_path / name)
    assert dropped(tab, tmp_path / name) == pytest.approx(finding.score, abs=1e-4 if name.endswith("jpg") else 1e-5)
    size = tab.evaluate("[document.getElementById('picture').height, document.getElementById('picture').width]")
    assert tuple(size) == finding.image.shape[:2]


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_a_browser_reads_otherwise_is_refused_by_name(tab: Tab, tmp_path: Path, name: str) -> None:
    image, options, kind = REFUSED[name]
    image.save(tmp_path / name, **options)
    with pytest.raises(RuntimeError, match=rf"{name} is {kind}, which .* Save it as a PNG of 8 bits"):
        dropped(tab, tmp_path / name)


def test_a_gif_whose_first_frame_does_not_fill_it_is_refused(tab: Tab, tmp_path: Path) -> None:
    Image.fromarray(PIXELS).quantize(16).save(tmp_path / "whole.gif")
    content = bytearray((tmp_path / "whole.gif").read_bytes())
    content[6:8] = (100).to_bytes(2, "little")  # the width of the screen
    (tmp_path / "part.gif").write_bytes(content)
    with pytest.raises(RuntimeError, match=r"part\.gif is a GIF whose first frame does not fill it"):
        dropped(tab, tmp_path / "part.gif")
    assert 0 < dropped(tab, tmp_path / "whole.gif") < 1


def test_another_class_is_looked_for_at_once(tab: Tab, settings: dict, tmp_path: Path) -> None:
    file = save(tmp_path / "a.png", noise(7, 80, 80))
    first = dropped(tab, file)
    move(tab, "class", "metal_nut", "change")
    tab.until(f"document.getElementById('score').dataset.value != {first!r}")
    assert value(tab, "score") == pytest.approx(inspector("metal_nut", settings).inspect(file).score, abs=1e-5)
    move(tab, "class", "bottle", "change")
    tab.until(f"document.getElementById('score').dataset.value == {first!r}")


def test_the_slider_moves_the_false_alarm_rate(tab: Tab, settings: dict, tmp_path: Path) -> None:
    file = save(tmp_path / "a.png", noise(100, 60, 70) // 2 + 64)
    dropped(tab, file)
    python = inspector("bottle", settings)
    for rank in (1, 3, 7):
        move(tab, "rate", rank)
        python.decide_by(false_alarm_rate=rank / 8)
        finding = python.inspect(file)
        assert verdict(tab) == ("defective" if finding.label else "good"), rank
        assert value(tab, "regions") == len(finding.regions), rank
        assert f"{rank / 8:.1%}".replace("%", " %") in tab.evaluate("document.getElementById('rate-value').textContent")


def test_what_is_no_image_or_too_large_is_said_and_the_page_goes_on(tab: Tab, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("hello")
    with pytest.raises(RuntimeError, match=r"no\.png is no image that this browser can read"):
        dropped(tab, tmp_path / "no.png")
    Image.new("1", (2000, 501)).save(tmp_path / "huge.png")
    with pytest.raises(RuntimeError, match=r"huge\.png has 1,002,000 pixels, and 1,000,000 are allowed"):
        dropped(tab, tmp_path / "huge.png")
    assert 0 < dropped(tab, save(tmp_path / "fine.png", noise(2, 50, 50))) < 1


def test_examples_are_offered(tab: Tab, settings: dict, folders: dict[str, Path]) -> None:
    tab.evaluate("document.body.dataset.state = 'waiting'")
    tab.evaluate("document.getElementById('example-1').click()")
    tab.until("document.body.dataset.state === 'done'")
    assert value(tab, "score") == pytest.approx(
        inspector("bottle", settings).inspect(folders["examples"] / "1.png").score, abs=1e-5
    )


def test_nothing_is_asked_of_any_network(tab: Tab) -> None:
    addresses = [given["request"]["url"] for method, given in tab.events if method == "Network.requestWillBeSent"]
    assert addresses
    assert {address.split(":")[0] for address in addresses} <= {"file", "blob", "data"}
    assert not [given for method, given in tab.events if method == "Runtime.exceptionThrown"]


def test_a_page_without_a_calibration_has_a_threshold(
    browser: Browser, built: InspectorPage, folders: dict[str, Path], tmp_path: Path
) -> None:
    classes = [replace(one, normal=None) for one in built.classes]
    replace(built, classes=classes, threshold=0.25).write(tmp_path / "x.html", load_runtime())
    tab = opened(browser, tmp_path / "x.html")
    file = save(tmp_path / "a.png", noise(8, 64, 64))
    score = dropped(tab, file)
    assert score == pytest.approx(inspector("bottle", {"references": folders["normal"]}).inspect(file).score, abs=1e-5)
    assert tab.evaluate("document.getElementById('threshold').value") == "0.25"
    for threshold in (0.0, 0.25, 1.0):
        move(tab, "threshold", threshold)
        assert verdict(tab) == ("defective" if score > threshold else "good")
    assert tab.evaluate("document.getElementById('rarity').hidden")


@pytest.mark.parametrize("damage", ["changed", "cut"])
def test_a_damaged_page_says_so(browser: Browser, page: Path, tmp_path: Path, damage: str) -> None:
    text = page.read_text(encoding="utf-8")
    place = text.index('id="model">') + 5000
    changed = text[:place] + text[place : place + 40][::-1] + text[place + 40 :]
    broken = tmp_path / "x.html"
    broken.write_text(changed if damage == "changed" else text[:place], encoding="utf-8")
    assert status(opened(browser, broken)).startswith("This page is damaged")


def test_a_browser_without_simd_is_told(browser: Browser, page: Path) -> None:
    tab = opened(browser, page, "WebAssembly.validate = () => false;")
    assert status(tab).startswith("This browser is too old for this page: it needs WebAssembly with SIMD")


@pytest.mark.slow
def test_a_page_of_clipad_mini_is_small_and_exact(tmp_path: Path, chromium: str) -> None:
    figures = figures_of_page(tmp_path, normal=2)
    assert figures.megabytes < 15
    assert figures.difference < 1e-4


def test_without_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomalib_clipad.extras.find_spec", lambda name: None if name == "onnx" else object())
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs onnx: pip install .*'onnx>="):
        build(["nut"], settings=shallow())
