"""The playground: what an answer takes after each kind of change, and a picture of its page.

``python -m anomalib_clipad.lab playground-measure``, and ``playground-picture``, which needs Chromium.
"""

from __future__ import annotations

import tempfile
from io import BytesIO
from pathlib import Path
from statistics import median
from time import process_time

import torch
from PIL import Image

from anomalib_clipad.images.picture import Picture
from anomalib_clipad.parts.samples import named_sample
from anomalib_clipad.playground.app import served
from anomalib_clipad.playground.session import Question, Session
from anomalib_clipad.tools.tables import markdown_table

from .browser import Browser

_SET_RATE = """{
    const rate = document.querySelector("#rate input[type=number]");
    rate.value = 0.05;
    rate.dispatchEvent(new Event("input", {bubbles: true}));
    rate.dispatchEvent(new Event("change", {bubbles: true}));
}"""


def measure(repeats: int = 9) -> None:
    """Print the median of seconds of one CPU that answers of clipad-mini take, whatever else the machine does.

    Args:
        repeats: How often each is asked.
    """
    torch.set_num_threads(1)
    session = Session()
    images = [Picture(named_sample("gear", "playground", number, None, 0, 480).image) for number in range(repeats + 8)]
    image, normal = images[-9], images[-8:]
    session.answer(image, [], Question("gear"))
    wordings = [Question("gear", ("flawless {}",), (f"{{}} with {number} scratches",)) for number in range(repeats)]
    names = [Question(f"gear number {number}") for number in range(repeats)]
    memories = [normal[: 8 - number % 2] for number in range(repeats)]
    thresholds = [Question("gear", threshold=0.3 + number / 100) for number in range(repeats)]
    kinds: dict[str, list[tuple[Picture, list[Picture], Question]]] = {
        "the image": [(one, [], Question("gear")) for one in images[:repeats]],
        "the name, with the built-in prompts": [(image, [], question) for question in names],
        "the prompts (two states)": [(image, [], question) for question in wordings],
        "the threshold": [(image, [], question) for question in thresholds],
        "the normal images, eight of them": [(image, some, Question("gear")) for some in memories],
    }
    rows = [(kind, median(_seconds(session, *asked) for asked in questions)) for kind, questions in kinds.items()]
    print(markdown_table([("after a change of", ""), ("seconds", ".2f")], rows))


def _seconds(session: Session, image: Picture, normal: list[Picture], question: Question) -> float:
    begin = process_time()
    session.answer(image, normal, question)
    return process_time() - begin


def picture(output: Path) -> None:
    """Save a picture of the page that has answered, at a false-alarm rate of 5 %, by twenty normal images.

    Args:
        output: PNG.
    """
    with tempfile.TemporaryDirectory() as name, served(Session()) as address, Browser() as browser:
        files = [str(Path(name, f"{number:02d}.png")) for number in range(20)]
        for number, file in enumerate(files):
            Image.fromarray(named_sample("bracket", "normal", number, None, 0, 480).image).save(file)
        tab = browser.tab(1280, 860)
        tab.go(address)
        tab.until("!!document.querySelector('#look')")
        tab.click("#way input", 1)
        tab.evaluate(_SET_RATE)
        tab.click(".label-wrap", 1)
        tab.until("!!document.querySelector('#normal')")
        tab.drop("#normal button", *files)
        tab.until("document.querySelector('#answer').innerText.includes('p-value')")
        tab.click(".label-wrap", 1)
        tab.evaluate("scrollTo(0, 0)")
        tab.settle()
        shot = tab.screenshot()
    image = Image.open(BytesIO(shot)).convert("RGB")
    image.quantize(255, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(output, optimize=True)
