"""COCO files are what pycocotools and supervision say they are, to the pixel."""

from __future__ import annotations

import json
from pathlib import Path, PurePath

import cv2
import numpy as np
import pytest
import supervision
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO

from anomalib_clipad.inspection.coco import segmentation
from anomalib_clipad.inspection.finding import Finding
from anomalib_clipad.inspection.results import Results
from anomalib_clipad.verdicts.regions import Region, find_regions


def made_of(heat: NDArray[np.float32], path: str) -> Finding:
    image = np.full((*heat.shape, 3), 90, np.uint8)
    return Finding(image, float(heat.max()), True, 0.5, heat, find_regions(heat, 0.5), path=Path(path))


def blobs(seed: int, size: tuple[int, int] = (50, 70), width: float = 2.0) -> NDArray[np.float32]:
    """Noise, smoothed, in [0, 1]; regions of all shapes, some with holes, some that touch by a corner."""
    noise = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), width) if width else noise
    return np.asarray((smooth - smooth.min()) / (smooth.max() - smooth.min()), np.float32)


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, list[Finding]]:
    findings = [made_of(blobs(seed), f"{tmp_path}/in/{'ab'[seed % 2]}/{seed}.png") for seed in range(6)]
    findings.append(made_of(np.zeros((20, 30), np.float32), f"{tmp_path}/in/good.png"))
    with Results(tmp_path / "out", coco=True, overlays="none") as results:
        for finding in findings:
            assert finding.path is not None
            finding.path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(finding.image).save(finding.path)
            results.add(finding, finding.path.relative_to(tmp_path / "in"))
    return tmp_path, findings


def test_pycocotools_reads_images_boxes_and_masks(written: tuple[Path, list[Finding]]) -> None:
    folder, findings = written
    coco = COCO(str(folder / "out/coco.json"))
    images = coco.loadImgs(coco.getImgIds())
    assert [(folder / "in" / image["file_name"], image["width"], image["height"]) for image in images] == [
        (finding.path, finding.image.shape[1], finding.image.shape[0]) for finding in findings
    ]
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["defect"]
    for image, finding in zip(images, findings, strict=True):
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert [tuple(found["bbox"]) for found in annotations] == [region.box for region in finding.regions]
        assert [found["score"] for found in annotations] == [region.peak for region in finding.regions]
        together = np.zeros_like(finding.mask)
        for found, region in zip(annotations, finding.regions, strict=True):
            pixels = coco.annToMask(found)
            assert found["area"] == region.area == pixels.sum()
            assert mask_tools.toBbox(coco.annToRLE(found)).tolist() == list(region.box)
            together |= pixels.astype(bool)
        np.testing.assert_array_equal(together, finding.mask)
    assert [*coco.anns] == list(range(1, len(coco.anns) + 1))  # for tools to whom 0 is none
    kinds = {type(found["segmentation"]) for found in coco.anns.values()}
    assert kinds == {list, dict}  # polygons, and run lengths where there are holes


def test_supervision_reads_the_same_boxes(written: tuple[Path, list[Finding]]) -> None:
    folder, findings = written
    data = supervision.DetectionDataset.from_coco(str(folder / "in"), str(folder / "out/coco.json"), force_masks=True)
    assert data.classes == ["defect"]
    assert len(data) == len(findings)
    for finding in findings:
        assert finding.path is not None
        detections = data.annotations[str(finding.path.resolve())]
        boxes = [
            (left, top, left + width, top + height) for left, top, width, height in (r.box for r in finding.regions)
        ]
        assert [tuple(box) for box in detections.xyxy.tolist()] == boxes
        if len(detections):
            assert detections.mask is not None
            # its polygons reach one pixel further to the right and down
            grown = cv2.dilate(finding.mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            assert finding.mask[detections.mask.any(axis=0)].sum() == finding.mask.sum()
            assert grown[detections.mask.any(axis=0)].all()


@pytest.mark.parametrize("width", [0.0, 0.7, 1.5, 4.0])
def test_segmentations_are_exact_for_regions_of_any_shape(width: float) -> None:
    polygons = 0
    for seed in range(30):
        finding = made_of(blobs(seed, (40, 33), width), "x.png")
        count, numbers = cv2.connectedComponents(finding.mask.astype(np.uint8), connectivity=8)
        assert count - 1 == len(finding.regions)
        for region in finding.regions:
            shape = segmentation(finding.mask, region)
            polygons += isinstance(shape, list)
            encoded = mask_tools.frPyObjects(shape, 40, 33)
            pixels = mask_tools.decode(mask_tools.merge(encoded) if isinstance(encoded, list) else encoded)
            assert len(np.unique(numbers[pixels > 0])) == 1
            assert pixels.sum() == region.area
            assert finding.mask[pixels > 0].all()
    assert polygons > 30


def test_a_rectangle_is_four_corners() -> None:
    mask = np.zeros((20, 30), bool)
    mask[3:9, 5:7] = True
    [polygon] = segmentation(mask, Region((5, 3, 2, 6), 12, 1, 1, None))
    assert sorted(np.reshape(polygon, (-1, 2)).tolist()) == [[5, 3], [5, 9], [7, 3], [7, 9]]


def test_of_a_file_that_is_rewritten_the_last_look_counts(tmp_path: Path) -> None:
    looks = [made_of(blobs(seed), name) for seed, name in enumerate(("a.png", "b.png", "a.png"))]
    with Results(tmp_path / "out", coco=True, overlays="none", grows=True) as results:
        for look in looks:
            results.add(look, PurePath(look.path or ""))
    coco = COCO(str(tmp_path / "out/coco.json"))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["b.png", "a.png"]
    for number, look in enumerate(looks[1:], 1):
        boxes = [tuple(one["bbox"]) for one in coco.loadAnns(coco.getAnnIds(number))]
        assert boxes == [region.box for region in look.regions]


def test_peaks_that_are_no_numbers_are_valid_json(tmp_path: Path) -> None:
    heat = np.zeros((20, 30), np.float32)
    finding = Finding(
        np.zeros((20, 30, 3), np.uint8), 0.9, True, 0.5, heat, (Region((1, 2, 3, 4), 12, np.nan, np.inf, None),)
    )
    with Results(tmp_path / "out", coco=True) as results:
        results.add(finding, PurePath('odd "\udcff\n.png'))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    [found] = json.loads((tmp_path / "out/coco.json").read_text(), parse_constant=refuse)["annotations"]
    assert found["score"] is None
    assert found["bbox"] == [1, 2, 3, 4]
    assert COCO(str(tmp_path / "out/coco.json")).getImgIds() == [1]
