"""The files of onnxruntime-web in this package, fetched from npm."""

from __future__ import annotations

import json
import lzma
import subprocess
import tarfile
import tempfile
from base64 import b64encode
from hashlib import sha256, sha512
from pathlib import Path

from anomalib_clipad.storage import atomic_folder
from anomalib_clipad.web.runtime import ABOUT, COMPRESSED, FOLDER, LICENCE, LOADER, SCRIPT, WASM


def fetch(folder: Path = FOLDER) -> None:
    """Fetch the files of the version that ``about.json`` names, with npm; the licence beside them stays.

    Args:
        folder: Where they are.

    Raises:
        FileNotFoundError: If npm is not installed.
        ValueError: If what comes is not what ``about.json`` expects.
        subprocess.CalledProcessError: If npm fails.
    """
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as place:
        command = ["npm", "pack", "--silent", f"onnxruntime-web@{about['version']}"]
        subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(place).glob("*.tgz")
        integrity = f"sha512-{b64encode(sha512(archive.read_bytes()).digest()).decode()}"
        if integrity != about["integrity"]:
            msg = f"npm gave a package with {integrity}; expected {about['integrity']}. Nothing was changed."
            raise ValueError(msg)
        contents = _unpacked(archive)
    contents[COMPRESSED] = lzma.compress(contents.pop(WASM), preset=9 | lzma.PRESET_EXTREME)
    contents[LICENCE] = (folder / LICENCE).read_bytes()
    about["sha256"] = {name: sha256(content).hexdigest() for name, content in sorted(contents.items())}
    contents[ABOUT] = (json.dumps(about, indent=2) + "\n").encode()
    with atomic_folder(folder) as new:
        for name, content in contents.items():
            (new / name).write_bytes(content)


def _unpacked(archive: Path) -> dict[str, bytes]:
    contents = {}
    with tarfile.open(archive) as package:
        for name in (SCRIPT, LOADER, WASM):
            file = package.extractfile(f"package/dist/{name}")
            assert file is not None
            contents[name] = file.read()
    return contents
