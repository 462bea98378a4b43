"""On the `anomalib` command line an error of ours is its message; everywhere else it is an error as any other."""

import sys
from types import TracebackType

import pytest

from anomalib_clipad.host.command_line import message_alone

MESSAGE = "No weights 'laion5b': expected a tag.\nTo go on, name one."
QUOTED = "Does not validate against any of the Union subtypes\nErrors:\n  - No weights 'laion5b': expected a tag.\n    To go on, name one.\nGiven value: ..."  # noqa: E501


@pytest.fixture
def shown_otherwise(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the hook that was there before shows."""
    shown: list[str] = []

    def hook(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        shown.append(str(value))

    monkeypatch.setattr(sys, "excepthook", hook)
    return shown


def fail(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [command])
    with pytest.raises(ValueError, match="laion5b"), message_alone():
        raise ValueError(MESSAGE)


def end_with(error: Exception) -> None:
    sys.excepthook(type(error), error, None)


@pytest.mark.parametrize("command", ["/env/bin/anomalib", "anomalib.exe"])
@pytest.mark.parametrize("text", [MESSAGE, QUOTED])
def test_the_command_prints_the_message_alone(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    shown_otherwise: list[str],
    command: str,
    text: str,
) -> None:
    fail(command, monkeypatch)
    end_with(ValueError(text))
    assert capsys.readouterr().err == f"Error: {MESSAGE}\n"
    assert shown_otherwise == []


def test_another_error_after_it_is_shown_as_ever(monkeypatch: pytest.MonkeyPatch, shown_otherwise: list[str]) -> None:
    fail("anomalib", monkeypatch)
    end_with(RuntimeError("out of memory"))
    assert shown_otherwise == ["out of memory"]


@pytest.mark.parametrize("command", ["/work/train.py", "", "-c", "pytest"])
def test_a_program_sees_the_error_itself(
    monkeypatch: pytest.MonkeyPatch, shown_otherwise: list[str], command: str
) -> None:
    fail(command, monkeypatch)
    end_with(ValueError(MESSAGE))
    assert shown_otherwise == [MESSAGE]


def test_without_an_error_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["anomalib"])
    before = sys.excepthook
    with message_alone():
        pass
    assert sys.excepthook is before
