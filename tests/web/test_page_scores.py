"""The page decides by the same numbers as Python: its script counts scores and takes the one at a rank."""

import numpy as np
import pytest

from anomalib_clipad.verdicts.conformal import TIE, allowed
from anomalib_clipad.verdicts.defect_scores import DefectScores
from anomalib_clipad.verdicts.normal_scores import NormalScores
from anomalib_clipad.web.page import InspectorPage, PageClass

RATE = 0.2


def test_scores_and_peaks_give_the_limits_and_p_values_of_python() -> None:
    """Written out as in inspector.js; scores on both sides of a tie included."""
    rng = np.random.default_rng(0)
    normal = NormalScores(rng.random(30), rng.random(30), RATE)
    page = InspectorPage("page", "", b"", 8, [PageClass(None, None, normal), PageClass("nut")])
    calibrated, other = page._settings()["classes"]
    assert (other["scores"], other["peaks"]) == (None, None)
    rank = allowed(RATE, 30)
    limits = [sorted(calibrated[name], reverse=True)[rank - 1] for name in ("scores", "peaks")]
    assert limits == list(normal.limits())
    steps = np.array([-2, -0.5, 0, 0.5, 0.99, 1.01, 2]) * TIE
    for score in (normal.image_scores[:, None] + steps).astype(np.float32).ravel().tolist():
        rare = (1 + sum(one >= score for one in calibrated["scores"])) / 31
        assert rare == pytest.approx(normal.p_value(score), abs=1e-12)
        assert (not score <= limits[0]) == (rare <= RATE)


def test_known_defects_give_the_verdicts_of_python() -> None:
    """Written out as in inspector.js."""
    rng = np.random.default_rng(1)
    bad = DefectScores(rng.random(20) + 0.3, rng.random(20), 0.15)
    normal = NormalScores(rng.random(30), rng.random(30), RATE, defects=bad)
    own, other = InspectorPage("page", "", b"", 8, [PageClass(None, None, normal), PageClass("nut")])._settings()[
        "classes"
    ]
    assert "defects" not in other
    limit, steps = normal.limits().score, np.array([-2, -0.5, 0, 0.5, 0.99, 1.01, 2]) * TIE
    near = (np.concatenate([bad.image_scores, normal.image_scores])[:, None] + steps).astype(np.float32).ravel()
    found = []
    for score in near.tolist():
        unlike = 1 + sum(not one > score for one in own["defects"]) <= own["good"]
        found.append(1 + (not score <= limit) - unlike)
    assert found == normal.judge(near).tolist()
    assert set(found) == {0, 1, 2}
