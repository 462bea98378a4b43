"""The page of results: what is written, and what it does in a real browser."""

from __future__ import annotations

import csv
import json
import re
import time
import tracemalloc
from base64 import b64decode, b64encode
from collections.abc import Iterator
from hashlib import sha256
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from PIL import Image

from anomalib_clipad.inspection.finding import Finding
from anomalib_clipad.inspection.page import About, PageRow, heat_map, thumbnail, write_page
from anomalib_clipad.inspection.results import Results
from anomalib_clipad.lab.bench.browser import Browser, Tab
from anomalib_clipad.lab.bench.page import figures_of_page
from anomalib_clipad.verdicts.regions import find_regions

JPEG = thumbnail(np.full((40, 60, 3), 90, np.uint8))
EVIL = (
    "<img src=x onerror=alert(1)>.png",
    "</script><script>alert(2)</script>.png",
    "<!--<script>.png",
    "'\"&amp;$title{{x}}.png",
    "javascript:alert(3)",
    '=HYPERLINK("http://x")',
    "+1,2",
    "@sum\n.png",
    "not \udcff utf-8.png",
    "\u202egnp.exe",
    "__proto__",
)


class Elements(HTMLParser):
    """Start tags with their attributes, and what scripts and styles hold."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.get_starttag_text() and self.cdata_elem:  # inside of a script or style
            self.texts[-1] += data

    def of(self, tag: str, **attributes: str) -> list[tuple[dict[str, str | None], str]]:
        found = zip(self.tags, self.texts, strict=True)
        return [(given, text) for (name, given), text in found if name == tag and attributes.items() <= given.items()]


def rows(names: tuple[str, ...]) -> list[PageRow]:
    return [PageRow(name, 0.1 + 0.05 * i, 0.02, 0.1 + 0.05 * i > 0.5, JPEG) for i, name in enumerate(names)]


def test_the_page_holds_what_it_was_given(tmp_path: Path) -> None:
    given = [
        PageRow(
            f"{i}.png",
            i / 100,
            None,
            i > 50,
            JPEG + bytes([i]),
            regions=1,
            boxes=((i, 2, 3, 4),),
            size=(60, 40),
            heat_map=JPEG + bytes([i, i]),
            remark="<seen>",
            text_score=0.1,
            truth=i > 60,
            part=f"{i // 2}: good",
        )
        for i in range(70)
    ]
    about = About(False, "not calibrated: sorted by suspicion", ("<b>",))
    page = Elements(write_page(tmp_path, iter(given), "Nuts", 0.5, about))
    read = [row for _, text in page.of("script", **{"class": "rows"}) for row in json.loads(text)]
    pictures = [line for _, text in page.of("script", **{"class": "thumbnails"}) for line in text.split("\n")]
    assert read == [
        [
            row.path,
            row.score,
            None,
            int(row.label),
            1,
            *[None] * 3,
            [[i, 2, 3, 4]],
            [60, 40],
            "<seen>",
            0.1,
            None,
            i > 60,
            row.part,
            row.verdict,
            row.digest,
        ]
        for i, row in enumerate(given)
    ]
    assert [b64decode(picture) for picture in pictures] == [row.thumbnail for row in given]
    heats = [line for _, text in page.of("script", **{"class": "heat-maps"}) for line in text.split("\n")]
    assert [b64decode(picture) for picture in heats] == [row.heat_map for row in given]
    settings = json.loads(page.of("script", id="settings")[0][1])
    assert settings == {"title": "Nuts", "threshold": 0.5, **about._asdict(), "notes": ["<b>"]}


def test_names_and_title_are_data_and_never_markup(tmp_path: Path) -> None:
    plain = Elements(write_page(tmp_path / "plain", rows(tuple(map(str, range(len(EVIL))))), "plain", 0.5))
    evil = Elements(write_page(tmp_path / "evil", rows(EVIL), "</title><script>alert(0)</script>$rows\n", 0.5))
    assert [tag for tag, _ in evil.tags] == [tag for tag, _ in plain.tags]
    assert [row[0] for row in json.loads(evil.of("script", **{"class": "rows"})[0][1])] == list(EVIL)
    assert "onerror=alert" not in re.sub(
        r"<script.*?</script>", "", (tmp_path / "evil/index.html").read_text(), flags=re.S
    )


def test_only_its_own_script_and_style_may_run_and_no_address_is_named(tmp_path: Path) -> None:
    page = write_page(tmp_path, rows(("a.png",)), "x", 0.5)
    elements = Elements(page)
    policy = elements.of("meta", **{"http-equiv": "Content-Security-Policy"})[0][0]["content"] or ""
    (script,) = [text for attributes, text in elements.of("script") if "type" not in attributes]
    ((_, style),) = elements.of("style")
    for kind, text in (("script", script), ("style", style)):
        assert f"{kind}-src 'sha256-{b64encode(sha256(text.encode()).digest()).decode()}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not [name for _, given in elements.tags for name in given if name.startswith("on") or name == "style"]
    assert "//" not in re.sub(
        r"^ *//.*|(?<=[;{]) *//.*", "", page.read_text(encoding="utf-8").replace(style, ""), flags=re.M
    )


@pytest.mark.parametrize("name", ["a b/\u00e4#?%.png", "javascript:alert(1)", "../x/y.png", "a\udcff.png"])
def test_links_are_percent_encoded_paths(tmp_path: Path, name: str) -> None:
    page = Elements(write_page(tmp_path, [PageRow("a", 0.1, None, False, JPEG, name, name, name)], "x", 0.5))
    ((_, _, _, _, _, image, overlay, mask, *_),) = json.loads(page.of("script", **{"class": "rows"})[0][1])
    assert image == overlay == mask
    assert re.fullmatch(r"[\w./%~-]+", image, flags=re.ASCII)
    assert unquote_to_bytes(image) == name.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    "row",
    [
        PageRow("a", float("nan"), None, False, JPEG),
        PageRow("a", 0.1, float("inf"), False, JPEG),
        PageRow("a", 0.1, None, False, JPEG, image="/etc/passwd"),
        PageRow("a", 0.1, None, False, JPEG, mask="//host/share.png"),
    ],
)
def test_what_cannot_be_shown_is_refused_and_the_page_before_stays(tmp_path: Path, row: PageRow) -> None:
    before = write_page(tmp_path, rows(("a.png",)), "x", 0.5).read_bytes()
    with pytest.raises(ValueError, match=r"has to be a finite number|relative"):
        write_page(tmp_path, [*rows(("b.png",) * 100), row], "x", 0.5)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("index.html", before)]


def test_an_interrupted_run_leaves_no_page(tmp_path: Path) -> None:
    def interrupted() -> Iterator[PageRow]:
        yield from rows(("a.png",) * 100)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_page(tmp_path, interrupted(), "x", 0.5)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="threshold"):
        write_page(tmp_path, [], "x", float("nan"))


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    many = (PageRow(f"{i}.png", 0.1, None, False, bytes(6000)) for i in range(3000))
    tracemalloc.start()
    page = write_page(tmp_path, many, "x", 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert page.stat().st_size > 20e6
    assert peak < 4e6


def test_thumbnails_keep_proportions_and_are_never_enlarged() -> None:
    pixels = np.zeros((900, 450, 3), np.uint8)
    pixels[:450] = (200, 30, 60)
    small = Image.open(BytesIO(thumbnail(pixels)))
    assert (small.format, small.size) == ("JPEG", (80, 160))
    assert np.abs(np.asarray(small)[20, 40].astype(int) - (200, 30, 60)).max() < 8
    assert Image.open(BytesIO(thumbnail(pixels[:50, :20]))).size == (20, 50)
    assert Image.open(BytesIO(thumbnail(np.zeros((1, 5000, 3), np.uint8)))).size == (160, 1)
    for wrong in (pixels[..., 0], pixels.astype(np.float32), pixels[:0]):
        with pytest.raises(ValueError, match=r"uint8 pixels \(H, W, 3\)"):
            thumbnail(wrong)


# In a browser.


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Twenty images with scores 0.00, 0.05 ... 0.95, of which the run calls those above 0.5 defective."""
    folder = tmp_path / "run of #5 100%"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (300, 200), "red").save(folder / "images/n 19.png")
    given = [
        PageRow(
            f"line {i % 2}/n {i:02}.png", i / 20, 1 - i / 20, i > 10, JPEG, f"images/n {i:02}.png", None, None, i % 3
        )
        for i in np.random.default_rng(0).permutation(20).tolist()
    ]
    return write_page(folder, given, "Nuts", 0.5)


@pytest.fixture
def tab(browser: Browser, page: Path) -> Tab:
    tab = browser.tab()
    tab.go(page.as_uri())
    return tab


def text(tab: Tab, selector: str) -> str:
    return str(tab.evaluate(f"document.querySelector({json.dumps(selector)}).textContent.trim()"))


def files(tab: Tab) -> list[str]:
    return list(tab.evaluate("[...document.querySelectorAll('.tile .file')].map(file => file.textContent)"))


def defective(tab: Tab) -> list[str]:
    return list(tab.evaluate("[...document.querySelectorAll('.tile.defective .file')].map(file => file.textContent)"))


def slide(tab: Tab, score: float) -> None:
    """Move the slider with the mouse to a score; its ends are 0 and 0.969."""
    left, top, width = tab.evaluate(
        "(() => { const box = document.getElementById('slider').getBoundingClientRect();"
        "return [box.x + 8, box.y + box.height / 2, box.width - 16]; })()"
    )
    place = {"x": left + width * score / (0.95 + 0.019), "y": top, "button": "left", "clickCount": 1}
    for kind in ("mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, **place)
    tab.settle()


def problems(tab: Tab) -> list[tuple[str, dict]]:
    """Errors, dialogs, and requests for anything but files and data."""
    return [
        (method, given)
        for method, given in tab.events
        if method in {"Runtime.exceptionThrown", "Page.javascriptDialogOpening"}
        or (method == "Log.entryAdded" and given["entry"]["source"] == "security")
        or (
            method == "Network.requestWillBeSent"
            and not given["request"]["url"].startswith(("file:", "data:", "blob:"))
        )
    ]


def test_images_are_sorted_by_score_and_labelled_as_the_run_did(tab: Tab) -> None:
    assert files(tab) == [f"line {i % 2}/n {i:02}.png" for i in range(19, -1, -1)]
    assert len(defective(tab)) == 9  # the score 0.5 itself is good
    assert text(tab, "#summary") == "9 defective of 20 images at 0.500"
    assert tab.evaluate("[...document.querySelectorAll('.tile img')].every(image => image.naturalWidth === 60)")
    assert text(tab, "h1") == tab.evaluate("document.title") == "Nuts"
    assert problems(tab) == []


def test_the_slider_labels_anew_and_reset_goes_back(tab: Tab) -> None:
    slide(tab, 0.82)
    assert defective(tab) == ["line 1/n 19.png", "line 0/n 18.png", "line 1/n 17.png"]
    assert text(tab, "#summary").startswith("3 defective of 20 images at 0.8")
    assert tab.evaluate("+document.querySelector('#above rect').getAttribute('x')") == pytest.approx(846, abs=8)
    assert "3 defective" in tab.evaluate("document.getElementById('slider').getAttribute('aria-valuetext')")
    tab.click("#reset")
    assert text(tab, "#summary") == "9 defective of 20 images at 0.500"


def test_a_threshold_can_be_typed(tab: Tab) -> None:
    tab.click("#threshold")
    tab.evaluate("document.getElementById('threshold').select()")
    tab.write("0.12")
    tab.press("Enter")
    assert text(tab, "#summary") == "17 defective of 20 images at 0.120"


def test_search_finds_all_words_of_a_name(tab: Tab) -> None:
    tab.press("/")
    tab.write("N LINE 1/")
    assert files(tab) == [f"line 1/n {i:02}.png" for i in range(19, 0, -2)]
    assert text(tab, "#found") == "10 shown"
    tab.write("zzz")
    assert files(tab) == []
    assert tab.evaluate("!document.getElementById('nothing').hidden")


def test_a_click_opens_and_keys_move_tick_and_close(tab: Tab) -> None:
    tab.click(".tile button")
    tab.evaluate("document.getElementById('image').decode()")
    assert text(tab, "#name") == "line 1/n 19.png"
    assert tab.evaluate("document.getElementById('image').naturalWidth") == 300
    assert "None was written" in text(tab, ".pictures figure:nth-child(2) p")
    assert text(tab, "#facts") == "defective \u00b7 score 0.950 \u00b7 p-value 0.0500 \u00b7 1 region \u00b7 #1"
    tab.press("ArrowRight")
    assert text(tab, "#position") == "2 of 20"
    tab.until("document.querySelector('.pictures p').textContent.includes('not where it was')")
    # this file is missing: its thumbnail is shown
    assert tab.evaluate("document.getElementById('image').naturalWidth") == 60
    tab.press("2")
    assert tab.evaluate("document.getElementById('wrong').getAttribute('aria-pressed')") == "true"
    tab.press("ArrowLeft")
    tab.press("ArrowLeft")
    assert text(tab, "#position") == "1 of 20"
    tab.press("Escape")
    assert not tab.evaluate("document.getElementById('viewer').open")
    assert tab.evaluate("document.activeElement.title") == "line 1/n 19.png"
    assert text(tab, "#ticked") == "1 ticked: 0 right, 1 wrong"


def test_keys_move_the_focus_over_the_grid(tab: Tab) -> None:
    tab.press("t")  # the last one above the threshold
    assert tab.evaluate("document.activeElement.title") == "line 1/n 11.png"
    across = tab.evaluate(
        "[...document.querySelectorAll('.tile')].filter(tile => tile.style.transform.endsWith(', 0px)')).length"
    )
    tab.press("ArrowDown")
    assert tab.evaluate("document.activeElement.title").endswith(f"n {11 - across:02}.png")
    tab.press("End")
    assert tab.evaluate("document.activeElement.title") == "line 0/n 00.png"
    assert tab.evaluate("document.querySelectorAll('.tile [tabindex=\"0\"]').length") == 1
    tab.press("1")
    assert "ticked right" in tab.evaluate("document.activeElement.getAttribute('aria-label')")
    tab.press("1")
    assert "ticked" not in tab.evaluate("document.activeElement.getAttribute('aria-label')")


def test_ticks_outlast_the_page_and_follow_the_threshold(browser: Browser, tab: Tab, page: Path) -> None:
    tab.press("t")
    tab.press("1")  # 0.55 is defective indeed
    other = browser.tab()  # Chromium stores in its own time: what another tab sees is stored
    other.go(page.as_uri())
    other.until("document.getElementById('ticked').textContent === '1 ticked: 1 right, 0 wrong'")
    tab.go(page.as_uri())
    assert text(tab, "#ticked") == "1 ticked: 1 right, 0 wrong"
    slide(tab, 0.82)
    assert text(tab, "#ticked") == "1 ticked: 0 right, 1 wrong"  # at 0.82 it would be missed
    tab.evaluate("document.getElementById('show').value = 'wrong'")
    tab.evaluate("document.getElementById('show').dispatchEvent(new Event('change'))")
    tab.settle()
    assert files(tab) == ["line 1/n 11.png"]


@pytest.mark.slow
def test_ticks_are_downloaded_as_csv_without_formulas(browser: Browser, tmp_path: Path) -> None:
    tab = browser.tab()
    tab.go(write_page(tmp_path, rows(EVIL), "evil", 0.5).as_uri())
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "downloads"))
    tab.evaluate("document.querySelector('.tile button').focus()")
    for _ in EVIL:
        tab.press("1")
        tab.press("ArrowRight")
    assert text(tab, "#ticked") == f"{len(EVIL)} ticked: {len(EVIL)} right, 0 wrong"
    tab.click("#download")
    file = tmp_path / "downloads/ticks.csv"
    deadline = time.monotonic() + 20
    while not file.exists() and time.monotonic() < deadline:
        tab.settle()
    table = list(csv.DictReader(StringIO(file.read_bytes().decode(), newline="")))
    safe = {name: f"'{name}" if name[0] in "=+-@" else name.replace("\udcff", "\ufffd") for name in EVIL}
    assert [row["path"] for row in table] == [safe[name] for name in reversed(EVIL)]
    assert [float(row["score"]) for row in table] == pytest.approx([row.score for row in reversed(rows(EVIL))])
    assert list(table[0].values())[2:] == ["0.02", "0.5", "defective", "right", "defective", "", ""]
    assert table[-1]["truth"] == "good"


@pytest.mark.slow
def test_names_of_files_run_nothing_in_the_browser(browser: Browser, tmp_path: Path) -> None:
    tab = browser.tab()
    given = [row._replace(image=row.path, overlay=row.path, mask=row.path) for row in rows(EVIL)]
    tab.go(write_page(tmp_path, given, "</h1><script>alert(0)</script>", 0.5).as_uri())
    tab.click(".tile button")
    for _ in EVIL:
        tab.press("ArrowRight")
    time.sleep(0.3)
    tab.settle()
    assert problems(tab) == []
    assert tab.evaluate("document.querySelectorAll('script:not([type])').length") == 1
    assert tab.evaluate("document.querySelectorAll('[onerror]').length") == 0
    assert text(tab, "#name") == EVIL[0]
    assert text(tab, "h1") == "</h1><script>alert(0)</script>"


def test_it_is_usable_without_a_mouse_in_the_dark_and_on_a_phone(tab: Tab) -> None:
    nameless = """[...document.querySelectorAll('button, input, select')].filter(element => !element.textContent.trim()
        && !element.getAttribute('aria-label') && !element.labels?.length).length"""
    assert tab.evaluate(nameless) == 0
    light = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != light
    for width in (320, 380, 3840):
        tab.resize(width, 700)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.click(".tile button")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.press("Escape")


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("decided", [True, False])
def test_a_page_of_few_images_is_whole(browser: Browser, tmp_path: Path, number: int, decided: bool) -> None:
    tab = browser.tab()
    tab.go(write_page(tmp_path, rows(EVIL[:number]), "few", 0.5, About(decided)).as_uri())
    tab.press("t")
    tab.press("h")
    tab.settle()
    assert len(files(tab)) == number
    assert text(tab, "#summary").startswith(f"0 defective of {number} image" if decided else f"{number} image")
    assert problems(tab) == []


def test_the_page_of_a_run_has_what_the_run_wrote(browser: Browser, tmp_path: Path) -> None:
    hot = np.zeros((9, 12), np.float32)
    hot[2:5, 3:7] = 0.9
    about = {"decided": True, "decision": "so it is", "notes": ["a note"]}
    with Results(tmp_path / "out", overlays="none", masks=True, page="x", about=about) as results:
        for name, score in (("a.png", 0.25), ("b.png", float("nan"))):
            pixels = np.full((90, 120, 3), 60, np.uint8)
            results.add(Finding(pixels, score, True, 0.2, hot, path=Path(name)), Path(name))
        results.finish()
    tab = opened(browser, tmp_path / "out/index.html")
    assert list(zip(files(tab), shown_as(tab, ".score"), strict=True)) == [("b.png", "no number"), ("a.png", "0.2500")]
    assert text(tab, "#summary") == "2 defective of 2 images at 0.2000"
    assert (text(tab, "#decision"), text(tab, "#notes")) == ("so it is", "a note")
    assert not tab.evaluate("document.getElementById('heat').hidden")
    tab.click(".tile button")
    tab.until("document.getElementById('mask').naturalWidth === 120")
    assert tab.evaluate("document.getElementById('marks').getAttribute('viewBox')") == "0 0 120 90"


def test_an_image_without_thumbnail_or_files_is_listed(browser: Browser, tmp_path: Path) -> None:
    tab = browser.tab()
    tab.go(write_page(tmp_path, [PageRow("C:\\parts\\a.png", 3.5, None, True, b"")], "bare", 2.0).as_uri())
    tab.settle()
    assert files(tab) == ["parts\\a.png"]
    tab.click(".tile button")
    assert (
        tab.evaluate("[...document.querySelectorAll('figure:not([hidden]) p')].map(note => note.textContent)")
        == ["None was written."] * 2  # of masks nothing is said where there are none
    )
    assert text(tab, "#facts") == "defective \u00b7 score 3.500 \u00b7 0 regions \u00b7 #1"
    assert problems(tab) == []


@pytest.mark.slow
def test_of_5000_images_only_those_in_sight_are_drawn(browser: Browser, tmp_path: Path) -> None:
    """So it stays quick; how quick is measured in the laboratory."""
    figures_of_page(tmp_path, 5000)
    tab = browser.tab()
    tab.go((tmp_path / "index.html").as_uri())
    assert tab.evaluate("document.querySelectorAll('.tile').length") < 100


def shown_as(tab: Tab, what: str) -> list[str]:
    return list(tab.evaluate(f"[...document.querySelectorAll('.tile {what}')].map(one => one.textContent)"))


def opened(browser: Browser, page: Path) -> Tab:
    tab = browser.tab()
    tab.go(page.as_uri())
    return tab


@pytest.mark.slow
def test_pictures_of_a_part_can_be_seen_together(browser: Browser, page: Path, tmp_path: Path) -> None:
    given = {"a/left": 0.9, "b/left": 0.8, "c": 0.7, "b/right": 0.2, "a/right": 0.1}
    rows = [
        PageRow(f"{path}.png", score, None, score > 0.5, JPEG, part=f"{path[0]}: good" if "/" in path else None)
        for path, score in given.items()
    ]
    tab = opened(browser, write_page(tmp_path, rows, "Parts", 0.5))
    scores = shown_as(tab, ".score")
    assert sorted(scores, reverse=True) == scores
    tab.evaluate("get('order').value = 'part', get('order').dispatchEvent(new Event('change'))")
    tab.until("document.querySelectorAll('.tile .score')[1].textContent === '0.100'")
    assert shown_as(tab, ".score") == ["0.900", "0.100", "0.800", "0.200", "0.700"]
    assert shown_as(tab, ".part") == ["a: good", "a: good", "b: good", "b: good", ""]
    assert opened(browser, page).evaluate("get('ordering').hidden")
    assert problems(tab) == []


@pytest.mark.slow
def test_three_verdicts_can_be_seen_apart(browser: Browser, tmp_path: Path) -> None:
    """They are the run's: another threshold has two. Ticks say what an image is, not whether "look" is right."""
    given = {
        "bad": (0.9, True, "defective"),
        "odd": (0.8, True, "look"),
        "dim": (0.6, False, "look"),
        "ok": (0.1, False, "good"),
    }
    rows = [PageRow(name, score, 0.1, label, JPEG, verdict=said) for name, (score, label, said) in given.items()]
    tab = opened(browser, write_page(tmp_path, rows, "Parts", 0.7))
    assert text(tab, "#summary") == "1 defective, 2 to look at, 1 good of 4 images at 0.700"
    assert shown_as(tab, ".verdict") == ["defective", "look", "look", "good"]
    for choice, names in (("look", ["0.800", "0.600"]), ("defective", ["0.900"]), ("good", ["0.100"])):
        tab.evaluate(f"get('show').value = '{choice}', get('show').dispatchEvent(new Event('change'))")
        tab.until(
            f"[...document.querySelectorAll('.tile .score')].map(one => one.textContent).join() === '{','.join(names)}'"
        )
    tab.evaluate("get('show').value = 'all', get('show').dispatchEvent(new Event('change'))")
    tab.until("document.querySelectorAll('.tile').length === 4")
    tab.evaluate("document.querySelectorAll('.tile button')[1].focus()")
    tab.press("2")
    tab.settle()
    assert text(tab, "#ticked") == "1 ticked: 0 defect, 1 no defect"
    (row,) = downloaded(browser, tab, tmp_path / "downloads")
    assert (row["label"], row["tick"], row["truth"]) == ("look", "", "good")
    tab.evaluate("moveTo(0.5)")
    tab.settle()
    assert shown_as(tab, ".verdict") == ["defective", "defective", "defective", "good"]
    assert text(tab, "#summary") == "3 defective of 4 images at 0.500"
    assert problems(tab) == []


def drag(tab: Tab, begin: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag on the opened image, from and to a place in its pixels."""
    places = [
        tab.evaluate(
            f"(({{a, d, e, f}}) => [e + a * {x}, f + d * {y}])(document.getElementById('marks').getScreenCTM())"
        )
        for x, y in (begin, end)
    ]
    for kind, (x, y) in zip(("mousePressed", "mouseMoved", "mouseReleased"), [*places, places[-1]], strict=True):
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    tab.settle()


def downloaded(browser: Browser, tab: Tab, folder: Path) -> list[dict[str, str]]:
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    tab.click("#download")
    deadline = time.monotonic() + 20
    while not (folder / "ticks.csv").exists() and time.monotonic() < deadline:
        tab.settle()
    return list(csv.DictReader(StringIO((folder / "ticks.csv").read_bytes().decode(), newline="")))


def test_equal_scores_stay_as_in_the_table_and_a_score_reads_otherwise_than_the_threshold(
    browser: Browser, tmp_path: Path
) -> None:
    scores = {"z/b.png": 0.5, "a/B.png": 0.5, "\u00e4.png": 0.5, "m.png": 0.50001, "x.png": 0.9, "w.png": None}
    given = [PageRow(name, score, None, score is None or score > 0.5, JPEG) for name, score in scores.items()]
    tab = opened(browser, write_page(tmp_path, given, "x", 0.5))
    assert files(tab) == ["w.png", "x.png", "m.png", "z/b.png", "a/B.png", "\u00e4.png"]
    assert shown_as(tab, ".score") == ["no number", "0.900", "0.50001", "0.500", "0.500", "0.500"]
    assert shown_as(tab, ".rank") == ["#1", "#2", "#3", "#4", "#5", "#6"]
    assert text(tab, "#summary") == "3 defective of 6 images at 0.50000"
    tab.press("t")
    assert tab.evaluate("document.activeElement.title") == "m.png"


def test_a_name_has_as_many_folders_as_tell_it_apart(browser: Browser, tmp_path: Path) -> None:
    names = ("a/left/0.png", "b/left/0.png", "b/right/0.png", "0.png", "0/0.png", "x/0/0.png")
    tab = opened(browser, write_page(tmp_path, rows(names), "x", 0.5))
    assert files(tab)[::-1] == ["a/left/0.png", "b/left/0.png", "right/0.png", "0.png", "0/0.png", "x/0/0.png"]


@pytest.fixture
def undecided(browser: Browser, tmp_path: Path) -> Tab:
    """Four images of a run without threshold, of which 0.2 and 0.9 are shown with a region."""
    given = [
        PageRow(f"{i}.png", i / 10, None, False, JPEG, regions=i % 2, boxes=((4, 5, 20, 10),) * (i % 2), size=(60, 40))
        for i in (2, 4, 6, 9)
    ]
    about = About(False, "not calibrated: sorted by suspicion\nanomalib-clipad inspect x --calibration good")
    return opened(browser, write_page(tmp_path, given, "x", 0.5, about))


def test_an_undecided_run_has_no_verdicts_until_a_threshold_is_set(undecided: Tab) -> None:
    tab = undecided
    assert text(tab, "#decision").endswith("--calibration good")
    assert shown_as(tab, ".verdict") == [""] * 4
    for place in ("main", ".about"):
        assert "defective" not in tab.evaluate(f"document.querySelector('{place}').innerText")
    choices = "[...document.getElementById('show').options].filter(one => !one.hidden).map(one => one.value)"
    assert tab.evaluate(choices) == ["all", "open"]
    assert tab.evaluate("document.querySelector('#above rect').getAttribute('width')") == "0"
    assert tab.evaluate("document.getElementById('threshold').value") == ""
    tab.click("#threshold")
    tab.write("0.5")
    tab.press("Enter")
    assert text(tab, "#summary") == "2 defective of 4 images at 0.500, your threshold"
    assert shown_as(tab, ".verdict") == ["defective", "defective", "good", "good"]
    tab.click("#reset")
    assert shown_as(tab, ".verdict") == [""] * 4
    assert text(tab, "#summary") == "4 images, the most suspicious first"


def test_images_with_thresholds_of_their_own_keep_their_verdicts(browser: Browser, tmp_path: Path) -> None:
    given = [
        PageRow("gear/0.png", 0.6, 0.5, False, JPEG, truth=True),
        PageRow("wood/0.png", 0.3, 0.02, True, JPEG, truth=True),
        PageRow("wood/1.png", 0.1, 0.5, False, JPEG, truth=False),
    ]
    tab = opened(browser, write_page(tmp_path, given, "x", None, About(decision="by the calibration of each")))
    verdicts = ["good", "defective", "good"]
    assert shown_as(tab, ".verdict") == verdicts
    own = "1 defective of 3 images, by the threshold of each; by the truth 1 missed, 0 false alarms"
    assert text(tab, "#summary") == own
    assert shown_as(tab, ".flag") == ["missed", "", ""]
    assert tab.evaluate("document.getElementById('threshold').value") == ""
    choices = "[...document.getElementById('show').options].filter(one => !one.hidden).map(one => one.value)"
    assert tab.evaluate(choices) == ["all", "defective", "good", "open", "wrong", "mistaken"]
    tab.click("#threshold")
    tab.write("0.5")
    tab.press("Enter")
    assert shown_as(tab, ".verdict") == ["defective", "good", "good"]
    assert text(tab, "#summary").startswith("1 defective of 3 images at 0.500, your threshold;")
    tab.click("#reset")
    assert shown_as(tab, ".verdict") == verdicts
    assert text(tab, "#summary") == own
    assert problems(tab) == []


def test_ticks_of_an_undecided_run_say_what_an_image_shows(browser: Browser, undecided: Tab, tmp_path: Path) -> None:
    tab = undecided
    tab.click(".tile button")
    assert text(tab, "#question") == "Does this image show a defect?"
    assert text(tab, "#facts") == "#1 \u00b7 score 0.900 \u00b7 1 region"
    tab.press("1")
    tab.press("ArrowRight")
    tab.press("2")
    tab.press("Escape")
    assert text(tab, "#ticked") == "2 ticked: 1 defect, 1 no defect"
    assert shown_as(tab, ".tick")[:3] == ["defect", "no defect", ""]
    first, second = downloaded(browser, tab, tmp_path / "downloads")
    assert (first["truth"], first["label"], first["threshold"], first["tick"]) == ("defective", "", "", "")
    assert second["truth"] == "good"
    slide = "slider.value = 1000 * 0.7; slider.dispatchEvent(new Event('input'))"
    tab.evaluate(f"{{ const slider = document.getElementById('slider'); {slide} }}")
    tab.settle()
    assert text(tab, "#ticked") == "2 ticked: 2 right, 0 wrong"


def test_where_the_threshold_comes_from_and_what_looks_wrong_is_said(browser: Browser, tmp_path: Path) -> None:
    about = About(True, "5 % false alarms, from 20 images", ("a <b>note</b>",))
    given = [
        PageRow("a.png", 0.9, 0.0476, True, JPEG, remark="it is calibration image 3", text_score=0.25),
        PageRow("b.png", 0.1, 0.5, False, JPEG, regions=1, reference_score=0.75, text_score=0.5),
    ]
    tab = opened(browser, write_page(tmp_path, given, "x", 0.5, about))
    assert text(tab, "#decision") == "5 % false alarms, from 20 images"
    assert text(tab, "#notes") == "a <b>note</b>"
    assert "share" in text(tab, ".meaning") or "rare" in text(tab, ".meaning")
    assert shown_as(tab, ".p-value") == ["p 0.0476", "p 0.500"]
    assert shown_as(tab, ".eyes") == ["text 0.250", "text 0.500 \u00b7 ref. 0.750"]
    assert shown_as(tab, ".flag") == ["remark", ""]
    tab.click(".tile button")
    assert text(tab, "#remark") == "it is calibration image 3"
    assert text(tab, "#explained").startswith("Defective without a region")
    tab.press("ArrowRight")
    assert text(tab, "#remark") == ""
    assert text(tab, "#explained").startswith("Good with regions")
    assert "text 0.500 \u00b7 references 0.750" in text(tab, "#facts")
    assert tab.evaluate("document.getElementById('mask').closest('figure').hidden")


def test_a_key_shows_heat_maps_in_the_grid(browser: Browser, tmp_path: Path) -> None:
    pixels = np.full((90, 120, 3), 60, np.uint8)
    found = np.zeros((9, 12), np.float32)
    found[2:5, 3:7] = 0.9
    large = np.asarray(Image.fromarray(found).resize((120, 90)))
    finding = Finding(pixels, 0.9, True, 0.5, found, find_regions(large, 0.5))
    calm = Finding(pixels, 0.1, False, 0.5, np.zeros((9, 12), np.float32))
    assert np.ptp(np.asarray(Image.open(BytesIO(heat_map(calm))))) < 4
    given = [PageRow("a.png", 0.9, None, True, JPEG, heat_map=heat_map(finding))]
    tab = opened(browser, write_page(tmp_path / "with", given, "x", 0.5))
    shown = "document.querySelector('.tile img').naturalWidth"
    assert tab.evaluate(shown) == 60
    tab.press("h")
    tab.until(f"{shown} === 120")
    assert tab.evaluate("document.getElementById('heat').getAttribute('aria-pressed')") == "true"
    tab.click("#heat")
    tab.until(f"{shown} === 60")
    tab.go(write_page(tmp_path / "without", rows(("a.png",)), "x", 0.5).as_uri())
    assert tab.evaluate("document.getElementById('heat').hidden")


def test_wrong_verdicts_are_marked_where_the_truth_is_known(browser: Browser, tmp_path: Path) -> None:
    truths = {"a.png": (0.9, True), "b.png": (0.8, False), "c.png": (0.2, True), "d.png": (0.1, False)}
    given = [
        PageRow(name, score, None, score > 0.5, JPEG, truth=truth) for name, (score, truth) in reversed(truths.items())
    ]
    tab = opened(browser, write_page(tmp_path, given, "x", 0.5))
    assert shown_as(tab, ".flag") == ["", "false alarm", "missed", ""]
    assert text(tab, "#summary").endswith("; by the truth 1 missed, 1 false alarm")
    tab.evaluate("document.getElementById('show').value = 'mistaken'")
    tab.evaluate("document.getElementById('show').dispatchEvent(new Event('change'))")
    tab.settle()
    assert files(tab) == ["b.png", "c.png"]


def test_ticks_carry_boxes_around_misses_and_regions_that_are_none(
    browser: Browser, undecided: Tab, tmp_path: Path
) -> None:
    tab = undecided
    tab.click(".tile button")
    drag(tab, (30.2, 20.2), (49.8, 35.7))
    drag(tab, (6.0, 7.0), (6.0, 7.0))  # a click on the region
    assert tab.evaluate("[...document.getElementById('listed').children].map(one => one.textContent)") == [
        "Region 1 is a false alarm",
        "Remove missed 30 20 20 16",
    ]
    assert tab.evaluate("document.querySelectorAll('#marks .alarm').length") == 1
    tab.press("Escape")
    ((first),) = downloaded(browser, tab, tmp_path / "downloads")
    assert (first["path"], first["truth"]) == ("9.png", "defective")
    assert (first["missed"], first["false_regions"]) == ("30 20 20 16", "4 5 20 10")
    tab.go(tab.evaluate("location.href"))
    tab.evaluate("document.querySelector('.tile button').focus()")
    tab.press("Enter")
    for _ in range(2):  # by keys alone
        tab.evaluate("document.getElementById('listed').lastElementChild.focus()")
        tab.press("Enter")
    assert tab.evaluate("document.querySelectorAll('#marks .alarm, #marks .missed').length") == 0


def test_ticks_of_earlier_pages_are_read(tab: Tab, page: Path) -> None:
    tab.evaluate(
        "localStorage.setItem('anomalib-clipad ticks: ' + location.pathname,"
        " JSON.stringify([['line 1/n 19.png', 'good'], ['line 0/n 00.png', 'good']]));"
        "dispatchEvent(new StorageEvent('storage', {key: 'anomalib-clipad ticks: ' + location.pathname}))"
    )
    tab.settle()
    assert text(tab, "#ticked") == "2 ticked: 1 right, 1 wrong"


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 3840])
def test_200000_images_can_all_be_reached(browser: Browser, tmp_path: Path, width: int) -> None:
    many = (PageRow(f"{i:06}.png", i / 200_000, None, i > 100_000, b"") for i in range(200_000))
    page = write_page(tmp_path, many, "x", 0.5)
    tab = browser.tab(width, 800)
    tab.go(page.as_uri())
    assert text(tab, "#summary") == "99,999 defective of 200,000 images at 0.500000"
    seen = (
        "[...document.querySelectorAll('.tile')].filter(tile => { const box = tile.getBoundingClientRect();"
        " return box.top >= 0 && box.bottom <= innerHeight; }).map(tile => tile.querySelector('.file').textContent)"
    )
    tab.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    tab.settle()
    assert "000000.png" in tab.evaluate(seen)
    tab.press("t")
    tab.settle()
    assert tab.evaluate("document.activeElement.title") == "100001.png"
    assert "100001.png" in tab.evaluate(seen)
    tab.press("ArrowRight")
    tab.settle()
    assert tab.evaluate("document.activeElement.title") == "100000.png"
    assert "100000.png" in tab.evaluate(seen)
    tab.press("Home")
    tab.settle()
    assert "199999.png" in tab.evaluate(seen)
    assert problems(tab) == []


def test_a_page_too_large_to_open_leaves_pictures_out_and_says_so(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomalib_clipad.inspection.page._MOST_PICTURES", 100)
    Image.new("RGB", (30, 20)).save(tmp_path / "file.png")
    given = [PageRow(f"{i}.png", 1 - i / 50, None, False, JPEG, "file.png") for i in range(40)]
    tab = opened(browser, write_page(tmp_path, given, "x", 1.0))
    assert "too large" in text(tab, "#limits")
    tab.evaluate("document.querySelector('.tile button').focus()")
    tab.press("End")
    tab.until("[...document.querySelectorAll('.tile img')].at(-1).naturalWidth === 30")
    tab.press("Home")
    tab.until("document.querySelector('.tile img').naturalWidth === 60")
