"""`three-verdicts` of the laboratory: its columns are what they say, on scores whose answer is known."""

import numpy as np
import pytest

from anomalib_clipad.lab.bench import three_verdicts
from anomalib_clipad.lab.bench.three_verdicts import Measured, main, shares


def scores_of(separation: float, odd: float = 0.0) -> Measured:
    """Normal scores, and defects higher by that; those of the last of four kinds higher by so much less."""
    rng = np.random.default_rng(0)
    kinds = np.arange(400) % 4
    defects = rng.normal(separation, 1, 400) - odd * (kinds == 3)
    return Measured(rng.normal(0, 1, 1000).astype(np.float32), defects.astype(np.float32), kinds)


def test_both_rates_hold_and_a_sorted_list_voids_the_second() -> None:
    alarms, misses, look_normal, look_defects, from_top, another, worst = shares(scores_of(1.5), 200)
    assert alarms == pytest.approx(0.05, abs=0.01)
    assert misses == pytest.approx(2 / 21, abs=0.015)  # the largest rank that 20 defects allow at 10 %
    assert from_top > 0.3
    assert look_normal > 0.3
    assert 0 < look_defects < 0.6
    assert another == pytest.approx(misses, abs=0.03)
    assert worst < 0.2


def test_a_kind_that_was_not_among_the_known_is_not_covered() -> None:
    *_, another, worst = shares(scores_of(2.0, odd=1.5), 100)
    assert worst > 0.35
    assert worst > another


def test_what_looks_alike_is_all_to_look_at() -> None:
    alarms, misses, look_normal, look_defects, *_ = shares(scores_of(0.0), 200)
    assert alarms == pytest.approx(0.05, abs=0.01)
    assert misses == pytest.approx(2 / 21, abs=0.015)
    assert look_normal == pytest.approx(1 - 0.05 - 2 / 21, abs=0.03)
    assert look_defects == pytest.approx(look_normal, abs=0.03)


def test_the_table_has_a_row_for_each_category_and_their_mean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"gear": scores_of(1.5), "wood": scores_of(3.0)}
    monkeypatch.setattr(three_verdicts, "measured", lambda name, *_: found[name])
    main(["gear", "wood"], splits=20)
    _, _, gear, wood, mean = [line.split("|")[1:-1] for line in capsys.readouterr().out.strip().splitlines()]
    assert [cells[0].strip() for cells in (gear, wood, mean)] == ["gear", "wood", "mean"]
    for first, second, both in zip(gear[1:], wood[1:], mean[1:], strict=True):
        assert float(both) == pytest.approx((float(first) + float(second)) / 2, abs=0.0011)


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="normal has to be an integer, 100 or more"):
        main(normal=99)
    with pytest.raises(ValueError, match="defects has to be an integer, 40 or more"):
        main(defects=39)
    with pytest.raises(ValueError, match=r"Expected a category of gear, .*; got nut"):
        main(["nut"])
