"""onnxruntime-web, which runs the model inside a page: its files in this package, and where they came from.

They are those of the npm package, the WASM compressed with xz: 2.3 MB instead of 14.2. In a clone, `make
browser-runtime` fetches them anew.
"""

from __future__ import annotations

import json
import lzma
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).with_name("onnxruntime_web")
FETCH = "make browser-runtime"
SCRIPT, LOADER, WASM = "ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"
COMPRESSED, LICENCE, ABOUT = f"{WASM}.xz", "LICENSE", "about.json"
_ADVICE = f"Install anomalib-clipad anew; in a clone, where npm is: {FETCH}"


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
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        contents = {name: (folder / name).read_bytes() for name in (SCRIPT, LOADER, COMPRESSED, LICENCE)}
        version, expected = about["version"], about["sha256"]
    except (OSError, ValueError, KeyError) as error:
        msg = f"The page needs onnxruntime-web, which is not whole in {folder} ({error}). {_ADVICE}"
        raise ModuleNotFoundError(msg) from error
    for name, content in contents.items():
        if sha256(content).hexdigest() != expected.get(name):
            msg = f"{folder / name} is not the file of onnxruntime-web {version}, or is damaged. {_ADVICE}"
            raise ModuleNotFoundError(msg)
    return BrowserRuntime(
        contents[SCRIPT].decode(),
        contents[LOADER],
        lzma.decompress(contents[COMPRESSED]),
        contents[LICENCE].decode(),
        version,
    )
