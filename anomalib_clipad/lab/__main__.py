"""`python -m anomalib_clipad.lab NAME`: measurements, and clipad-mini's recipe; from a clone."""

from __future__ import annotations

from pathlib import Path

from anomalib_clipad.tools.cli import Program, Written

_COMMANDS = {
    "adaptors": ("bench.adaptors:main", "train the variants with layers on generated parts and compare them"),
    "bench": ("bench.bench:bench", "measure speed and memory against peers"),
    "browser-runtime": ("browser_runtime:fetch", "fetch the files of onnxruntime-web anew, with npm"),
    "demo-picture": ("bench.demo:picture", "save the picture that opens README"),
    "deployment": ("bench.deployment:deployment", "compare export formats: size, speed, metrics"),
    "endurance": ("bench.endurance:main", "inspect thousands of images, whole and damaged"),
    "figures": ("figures.figures:figures", "run the commands of measured tables and rewrite these, or check them"),
    "fuzz-runs": ("fuzz.fuzz_runs:main", "let things happen to runs at random, and check their tables"),
    "large-images": ("bench.large_images:large_images", "compare ways to find small defects in large pictures"),
    "mini-card": ("mini.card:card", "measure every metric of clipad-mini's model card"),
    "mini-hub": ("mini.hub:main", "write clipad-mini as a repository for a model hub"),
    "mini-train": ("mini.train:train_mini", "train clipad-mini from nothing"),
    "option-tables": ("option_tables:option_tables", "write or check the tables of options in docs"),
    "page-measure": ("bench.page:measure", "measure the page of results in a browser"),
    "page-picture": ("bench.page:picture", "save a picture of the page of results"),
    "paper": ("paper:paper", "set benchmark results beside the paper's"),
    "playground-measure": ("bench.playground:measure", "measure the playground's answers"),
    "playground-picture": ("bench.playground:picture", "save a picture of the playground"),
    "references": ("bench.shots:main", "compare normal and unlabelled images with the text, by metrics"),
    "scale": ("bench.scale:scale", "measure how throughput grows with workers"),
    "solar-cells": ("bench.solar_cells:main", "compare references with text on real photographs"),
    "teach": ("bench.teaching:main", "measure what images ticked as good that join the references change"),
    "textiles": ("bench.textiles:main", "compare references with text on textiles"),
    "three-verdicts": ("bench.three_verdicts:main", "measure false alarms, misses and what is left to look at"),
    "thresholds": ("bench.thresholds:thresholds", "measure false alarms in every format, and drift"),
    "variants": ("bench.variants:main", "measure what each variant costs beside the image tower"),
    "web-page-demo": ("bench.web_page:demo", "write a page that inspects, with generated parts to try"),
    "web-page-measure": ("bench.web_page:measure", "measure a page that inspects in a browser"),
    "web-page-picture": ("bench.web_page:picture", "save a picture of a page that inspects"),
}
"""Function in this package and purpose of each command."""

_ARGUMENTS: Written = {
    "paper": {"results": (["results"], {"nargs": "+", "type": Path, "help": "results.csv of `anomalib benchmark`"})},
}
"""Arguments that are written otherwise than jsonargparse would have them."""


def main() -> None:
    """Run the measurement or recipe named on the command line."""
    Program("python -m anomalib_clipad.lab", "anomalib_clipad.lab", _COMMANDS, _ARGUMENTS).run(main.__doc__)


if __name__ == "__main__":
    main()
