"""Which files are images, and what it takes to open them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from anomalib_clipad import extras
from anomalib_clipad.images.formats import SUFFIXES, kind_of
from anomalib_clipad.images.picture import UnreadableError, read
from anomalib_clipad.images.size import read_size

DOCUMENTS_AND_STUBS = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
"""What Pillow has plugins of, but does not read by itself, or is no image."""
PIXELS = np.random.default_rng(0).integers(256, size=(48, 64, 3), dtype=np.uint8)


def test_all_that_pillow_reads_is_listed() -> None:
    Image.init()
    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    others = {suffix for suffix, kind in Image.registered_extensions().items() if kind in DOCUMENTS_AND_STUBS}
    assert readable - others - {".iim"} <= SUFFIXES
    assert not others & SUFFIXES


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0heicmif1", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "AVIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0avifmif1", "AVIF"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41heic", None),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  \0\0\0\x08wideheic", None),
        (b"", None),
    ],
)
def test_films_and_photographs_of_one_container_are_told_apart(head: bytes, kind: str | None) -> None:
    assert kind_of(head) == kind


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).resize((256, 192)).save(path, quality=95, exif=exif)
    assert read(path).pixels.shape == (256, 192, 3)
    assert read_size(path) == (256, 192)


@pytest.mark.parametrize(
    ("brand", "message"),
    [(b"heic", r"needs pillow-heif: pip install 'pillow-heif>="), (b"avif", "pip install 'pillow>=11.3'")],
)
def test_what_cannot_be_read_names_the_package(
    tmp_path: Path, brand: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    Image.init()
    monkeypatch.setattr(Image, "ID", [plugin for plugin in Image.ID if plugin not in {"AVIF", "HEIF"}])
    path = tmp_path / f"a.{brand.decode()}"
    path.write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + brand + bytes(100))
    with pytest.raises(UnreadableError, match=message):
        read(path)


def test_heic_is_read_where_its_package_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra `heic` is not installed")
    path = tmp_path / "photo"
    large = Image.fromarray(PIXELS).resize((256, 192))
    pillow_heif.from_pillow(large).save(path, format="HEIF", quality=95)
    monkeypatch.setattr(Image, "ID", [plugin for plugin in Image.ID if plugin != "HEIF"])
    shown = read(path).shown.astype(int)
    assert shown.shape == (192, 256, 3)
    assert np.abs(shown - np.asarray(large)).mean() < 20
    assert read_size(path) == (192, 256)
