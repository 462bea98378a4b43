"""Which files are images: by the end of their names, by their first bytes, and what it takes to open them."""

from __future__ import annotations

from typing import IO, Any

from anomalib_clipad.extras import require

SUFFIXES = frozenset(
    (  # noqa: SIM905  # as a list it has a line for each
        ".apng .avif .avifs .blp .bmp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr .gif .heic .heics "
        ".heif .heifs .hif .icb .icns .ico .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .msp .pbm .pcd "
        ".pcx .pfm .pgm .png .pnm .ppm .psd .pxr .qoi .ras .rgb .rgba .sgi .tga .tif .tiff .vda .vst .webp .xbm .xpm"
    ).split()
)
"""What image files end with: all that Pillow reads by itself, and HEIC. Documents (.pdf, .eps) are none."""
HEAD = 64
"""How many bytes at the beginning of a file tell what it is."""
_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_AVIF = frozenset({b"avif", b"avis"})
_STARTS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # of more than 4 GB
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
}
_BITMAP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})


def kind_of(head: bytes) -> str | None:
    """The format of an image by the first ``HEAD`` bytes of its file; ``None`` if it looks like no image."""
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"BM") and head[6:10] == bytes(4) and int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS:
        return "BMP"
    if head[4:8] != b"ftyp":
        return None
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[place : place + 4] for place in range(16, length, 4))}
    if brands & _AVIF:
        return "AVIF"
    return "HEIC" if brands & _HEIC else None


def open_image(file: IO[bytes]) -> Any:
    """An image as Pillow opens it by the content of its file, whatever it is called.

    Raises:
        ModuleNotFoundError: If it is HEIC, and the package that reads it is not installed; the message names it.
        Exception: What Pillow's plugins raise, each its own.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(file)
    except UnidentifiedImageError as error:
        file.seek(0)
        kind = kind_of(file.read(HEAD))
        if kind == "AVIF":
            msg = "an AVIF image takes a newer Pillow: pip install 'pillow>=11.3'"
            raise ValueError(msg) from error
        if kind != "HEIC":
            raise
    require("a HEIC image", "heic", "pillow_heif")
    import pillow_heif

    pillow_heif.register_heif_opener()
    file.seek(0)
    return Image.open(file)
