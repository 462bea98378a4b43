"""onnxruntime-web, which runs the model inside a page: its files in this package, and where they came from.

They are those of the npm package, the WASM compressed with xz: 2.3 MB instead of 14.2. `python -m
anomalib_clipad.web.runtime` fetches them anew.
"""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
import tarfile
import tempfile
from base64 import b64encode
from hashlib import sha256, sha512
from pathlib import Path
from typing import NamedTuple

from anomalib_clipad.storage import atomic_folder

FOLDER = Path(__file__).with_name("onnxruntime_web")
FETCH = "python -m anomalib_clipad.web.runtime"
_SCRIPT, _LOADER, _WASM = "ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"
_COMPRESSED = f"{_WASM}.xz"
_LICENCE = "LICENSE"
_ABOUT = "about.json"


class BrowserRuntime(NamedTuple):
    """What a page needs to run a model.

    Attributes:
        script: JavaScript, the interface.
        loader: JavaScript module that starts the WASM.
        wasm: The WASM itself, with SIMD.
        licence: MIT.
        version: Of onnxruntime-web.
    """

    script: str
    loader: bytes
    wasm: bytes
    licence: str
    version: str


def load_runtime(folder: Path = FOLDER) -> BrowserRuntime:
    """Read the runtime.

    Raises:
        ModuleNotFoundError: If a file of it is missing or is not the one that was fetched.
    """
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        contents = {name: (folder / name).read_bytes() for name in (_SCRIPT, _LOADER, _COMPRESSED, _LICENCE)}
        version, expected = about["version"], about["sha256"]
    except (OSError, ValueError, KeyError) as error:
        msg = f"The page needs onnxruntime-web, which is not whole in {folder} ({error}). With npm: {FETCH}"
        raise ModuleNotFoundError(msg) from error
    for name, content in contents.items():
        if sha256(content).hexdigest() != expected.get(name):
            msg = f"{folder / name} is not the file of onnxruntime-web {version}, or is damaged. With npm: {FETCH}"
            raise ModuleNotFoundError(msg)
    return BrowserRuntime(
        contents[_SCRIPT].decode(),
        contents[_LOADER],
        lzma.decompress(contents[_COMPRESSED]),
        contents[_LICENCE].decode(),
        version,
    )


def fetch_runtime(folder: Path = FOLDER) -> None:
    """Fetch the files of the version that ``about.json`` names, with npm; the licence beside them stays.

    Raises:
        FileNotFoundError: If npm is not installed.
        ValueError: If what comes is not what ``about.json`` expects.
        subprocess.CalledProcessError: If npm fails.
    """
    about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as place:
        command = ["npm", "pack", "--silent", f"onnxruntime-web@{about['version']}"]
        subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(place).glob("*.tgz")
        integrity = f"sha512-{b64encode(sha512(archive.read_bytes()).digest()).decode()}"
        if integrity != about["integrity"]:
            msg = f"npm gave a package with {integrity}; expected {about['integrity']}. Nothing was changed."
            raise ValueError(msg)
        contents = _unpacked(archive)
    contents[_COMPRESSED] = lzma.compress(contents.pop(_WASM), preset=9 | lzma.PRESET_EXTREME)
    contents[_LICENCE] = (folder / _LICENCE).read_bytes()
    about["sha256"] = {name: sha256(content).hexdigest() for name, content in sorted(contents.items())}
    contents[_ABOUT] = (json.dumps(about, indent=2) + "\n").encode()
    with atomic_folder(folder) as new:
        for name, content in contents.items():
            (new / name).write_bytes(content)


def _unpacked(archive: Path) -> dict[str, bytes]:
    contents = {}
    with tarfile.open(archive) as package:
        for name in (_SCRIPT, _LOADER, _WASM):
            file = package.extractfile(f"package/dist/{name}")
            assert file is not None
            contents[name] = file.read()
    return contents


if __name__ == "__main__":
    try:
        fetch_runtime()
    except (OSError, ValueError, subprocess.CalledProcessError) as problem:
        sys.exit(f"{FETCH}: {problem}")
