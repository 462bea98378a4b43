"""The measuring tools measure what they say."""

import time

import pytest

from anomalib_clipad.lab.bench.timing import interleaved, peak_memory, statement_seconds


def test_functions_run_in_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    seconds = interleaved({"a": lambda: calls.append("a"), "b": lambda: (calls.append("b"), time.sleep(0.02))}, 3)
    assert calls == ["a", "b"] * 4
    assert seconds["b"] >= 0.02 > seconds["a"]


def test_peak_memory_is_that_of_the_statement() -> None:
    grown = peak_memory("kept = bytes(50_000_000)", "lost = bytearray(b'1') * 30_000_000; del lost")
    assert grown == pytest.approx(30e6, rel=0.2)


def test_a_statement_is_timed_without_what_prepares_it() -> None:
    prepare = "import time; time.sleep(0.3)"
    assert 0.05 <= statement_seconds("time.sleep(0.05)", 1, prepare) < 0.25
