"""Where there is no network, a run ends in seconds and says how to go on without one."""

import traceback
import urllib.request
from pathlib import Path
from ssl import SSLError
from threading import Event
from typing import Any
from urllib.error import HTTPError, URLError

import open_clip
import pytest
from huggingface_hub import constants

from anomalib_clipad import load_backbone
from anomalib_clipad.backbones import downloads
from anomalib_clipad.backbones.downloads import WeightsUnavailableError, download_folder, download_tag

URL_ONLY = {"url": "https://example.org/files/tiny.pt"}


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path


def answer_by(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[str]:
    """Every server answers with an error; what was asked is returned."""
    asked: list[str] = []

    def open_(request: Any, *_: object, **__: object) -> None:
        asked.append(getattr(request, "full_url", request))
        raise error

    monkeypatch.setattr(downloads, "urlopen", open_)
    monkeypatch.setattr(urllib.request, "urlopen", open_)
    return asked


NO_NETWORK = URLError("Name or service not known")


@pytest.mark.parametrize(
    "load",
    [
        lambda: load_backbone(),
        lambda: load_backbone("hf-hub:someone/a-model"),
        lambda: load_backbone("ViT-B-32", "openai"),
        lambda: load_backbone("ViT-B-16-quickgelu", "metaclip_400m"),
        lambda: download_tag("tiny", "tag", URL_ONLY),
    ],
)
def test_the_error_is_short_soon_there_and_says_how_to_go_on(
    no_cache: Path, monkeypatch: pytest.MonkeyPatch, load: Any
) -> None:
    asked = answer_by(monkeypatch, NO_NETWORK)
    with pytest.raises(
        WeightsUnavailableError, match=r"could not be downloaded from https://.*\(https://\S* does not"
    ) as error:
        load()
    assert len(asked) == 1
    assert "clipad-mini" in str(error.value)
    assert ":/path/of/it" in str(error.value) or "local-dir:" in str(error.value)
    assert len("".join(traceback.format_exception(error.value)).splitlines()) < 40  # no chain of the hub's errors


def test_a_server_that_never_answers_is_not_waited_for(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name look-up that hangs is limited by no timeout of sockets."""
    never, ended = Event(), Event()

    def hang(*_: object, **__: object) -> None:
        never.wait(60)
        ended.set()
        raise NO_NETWORK

    monkeypatch.setattr(downloads, "urlopen", hang)
    assert not downloads._reachable("https://example.org", patience=0.05)
    assert not ended.is_set()
    never.set()


@pytest.mark.parametrize(
    ("error", "reachable"),
    [
        (HTTPError("https://example.org", 404, "no", None, None), True),  # type: ignore[arg-type]
        (URLError(SSLError("certificate verify failed")), True),
        (URLError("Connection refused"), False),
        (TimeoutError("timed out"), False),
    ],
)
def test_any_answer_is_an_answer(monkeypatch: pytest.MonkeyPatch, error: Exception, reachable: bool) -> None:
    answer_by(monkeypatch, error)
    assert downloads._reachable("https://example.org") is reachable


def test_the_cache_answers_without_a_network(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_by(monkeypatch, NO_NETWORK)
    file = no_cache / ".cache/clip/tiny.pt"
    file.parent.mkdir(parents=True)
    file.touch()
    assert download_tag("tiny", "tag", URL_ONLY) == file

    snapshot = no_cache / "models--someone--a-model/snapshots/0123"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("0123")
    for name in ("open_clip_config.json", "open_clip_pytorch_model.bin"):
        (snapshot / name).touch()
    assert download_folder("someone/a-model") == (
        snapshot / "open_clip_config.json",
        snapshot / "open_clip_pytorch_model.bin",
    )
    assert constants.HF_HUB_OFFLINE is False  # as it was


def test_the_hubs_own_switch_is_heeded_and_named(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer_by(monkeypatch, NO_NETWORK)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailableError, match="HF_HUB_OFFLINE is set"):
        download_folder("someone/a-model")
    assert asked == []
    assert constants.HF_HUB_OFFLINE is True


def test_another_failure_keeps_its_reason(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_reachable", lambda server: True)

    def fail(known: dict[str, Any]) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    with pytest.raises(WeightsUnavailableError, match=r"\(OSError: \[Errno 28\] No space left on device\)") as error:
        download_tag("tiny", "tag", URL_ONLY)
    assert isinstance(error.value.__cause__, OSError)
