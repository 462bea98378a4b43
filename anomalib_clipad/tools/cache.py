"""`anomalib-clipad cache`: what is kept between runs to save time, and how to get rid of it."""

from __future__ import annotations

from anomalib_clipad.cache import KINDS, SIZE_VARIABLE, files, limit, trim
from anomalib_clipad.storage import DIRECTORY_VARIABLE, UntrustedError, cache_directory, check_trusted

from .tables import markdown_table


def cache(clear: bool = False, debug: bool = False) -> None:  # noqa: ARG001  # read by the command line
    """Show what is kept between runs: prompt embeddings (`text`) and notes for a quick start (`start`).

    Downloaded layers and generated pictures, which lie beside them, are neither counted nor removed.

    Args:
        clear: Remove all of it; files that are not of the cache stay.
        debug: Show where an error comes from.

    Raises:
        ValueError: If it is to be cleared, and others can write to it.
    """
    most = limit()
    print(f"{cache_directory()} ({DIRECTORY_VARIABLE} moves it)")
    if clear:
        for folder in (cache_directory(), *(cache_directory() / kind for kind in KINDS)):
            check_trusted(folder)
        print(f"Removed: {_size(sum(one.size for kind in KINDS for one in files(kind)))}.")
        trim(0)
    sizes = {kind: [one.size for one in files(kind)] for kind in KINDS}
    rows = [(kind, float(len(of)), _size(sum(of))) for kind, of in sizes.items()]
    total = sum(map(sum, sizes.values()))
    rows.append(("all", float(sum(map(len, sizes.values()))), _size(total)))
    print(markdown_table([("kind", ""), ("entries", ".0f"), ("size", "")], rows))
    bound = f"At most {_size(most)} are kept" if most else "Nothing is kept or read"
    print(f"{bound} ({SIZE_VARIABLE} sets the limit); what was not used for longest goes first.")
    try:
        for folder in (cache_directory(), *(cache_directory() / kind for kind in KINDS)):
            check_trusted(folder)
    except UntrustedError as error:
        print(error)


def _size(count: float) -> str:
    """Bytes in the largest unit of which there is one.

    >>> _size(999), _size(1_000_000_000), _size(2_340_000)
    ('999 B', '1 GB', '2.34 MB')
    """
    unit, *larger = "B", "kB", "MB", "GB"
    while count >= 1000 and larger:
        count, (unit, *larger) = count / 1000, larger
    return f"{count:.3g} {unit}"
