"""Teaching: images ticked as good join the references of an inspector, and what that changes, image by image."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from anomalib_clipad.data.corrections import Corrections
from anomalib_clipad.images.alike import digest_of_pixels
from anomalib_clipad.verdicts.recall import RECALL, auroc, false_alarms_at

from .fitting import Fitting
from .page import thumbnail

if TYPE_CHECKING:
    from anomalib_clipad.predictor.base import Shown
    from anomalib_clipad.predictor.taught import Taught

    from .inspector import Inspector


class Judged(NamedTuple):
    """What a model says of an image.

    Attributes:
        score: Its score; ``None`` where it cannot be told, see ``LivePredictor.taught_left_out``.
        verdict: ``good``, ``look`` or ``defective``; ``None`` where nothing decides, or there is no score.
    """

    score: float | None
    verdict: str | None

    def __str__(self) -> str:
        return "not known" if self.score is None else " ".join(filter(None, (self.verdict, f"{self.score:.3f}")))


class Told(NamedTuple):
    """An image before and after.

    Attributes:
        path: Its file.
        defective: Whether it shows a defect, where that was ticked.
        taught: Whether it has joined the references; then it is judged by the others afterwards.
        before: What the model said of it.
        after: What it says now.
        thumbnail: JPEG.
    """

    path: str
    defective: bool | None
    taught: bool
    before: Judged
    after: Judged
    thumbnail: bytes

    @property
    def truth(self) -> str:
        """What was ticked, and whether it teaches, in words."""
        if self.defective is None:
            return ""
        return "defective" if self.defective else "good, taught" if self.taught else "good"

    @property
    def changed(self) -> bool:
        """Whether there is another verdict on it now."""
        verdicts = {self.before.verdict, self.after.verdict}
        return len(verdicts) == 2 and None not in verdicts


class Measured(NamedTuple):
    """How well scores tell defects from good images.

    Attributes:
        false_alarms: Share of good images that are called defective where ``RECALL`` of the defects are.
        auroc: Chance that a defect scores higher than a good image.
    """

    false_alarms: float
    auroc: float


class Lesson(NamedTuple):
    """What teaching has changed.

    Attributes:
        told: The ticked images, and of the others those with another verdict.
        taught: What the model was taught, altogether.
        unsaid: How many rows of the ticks say neither good nor defective.
        others: How many images were not ticked.
        unread: What of these cannot be looked at, and why.
        decisions: By what images were called defective before, and are now, in words.
        copies: How many of those ticked as good are copies, or were references before.
        alarms: How many of those ticked as good were called defective, or to look at.
    """

    told: tuple[Told, ...]
    taught: Taught
    unsaid: int
    others: int
    unread: tuple[str, ...]
    decisions: tuple[str, str]
    copies: int
    alarms: int

    @property
    def changed(self) -> tuple[Told, ...]:
        """The images on which there is another verdict."""
        return tuple(one for one in self.told if one.changed)

    @property
    def compared(self) -> tuple[Measured, Measured] | None:
        """How well scores tell ticked defects from good ticked images, before and now; ``None`` where they cannot."""
        ticked = [one for one in self.told if one.defective is not None]
        goods, defects = ([one for one in ticked if one.defective is kind] for kind in (False, True))
        if not defects or not goods or any(one.after.score is None for one in ticked):
            return None
        scores = ([[judged(one).score for one in kind] for kind in (goods, defects)] for judged in _TIMES)
        then, now = (Measured(false_alarms_at(good, bad), auroc(good, bad)) for good, bad in scores)
        return then, now

    @property
    def helps(self) -> bool | None:
        """Whether there are fewer false alarms, or as many and a higher AUROC; ``None`` where that cannot be told."""
        if self.compared is None:
            return None
        then, now = self.compared
        return now.false_alarms < then.false_alarms or (
            now.false_alarms == then.false_alarms and now.auroc > then.auroc
        )

    def sentences(self) -> list[str]:
        """What there is to say of it."""
        defects = sum(one.defective is True for one in self.told)
        goods = sum(one.defective is False for one in self.told)
        taught = sum(one.taught for one in self.told)
        said = [
            f"{self.taught.sentence()} Of {goods + defects} ticked images {taught} teach; {self.alarms} of the good "
            "ones were false alarms."
        ]
        if self.copies:
            said.append(f"Copies, of each other or of references: {self.copies}, which teach nothing more.")
        if defects:
            said.append(
                f"{_count(defects, 'defect')} ticked: defects do not teach, they measure what the others change."
            )
        if self.unsaid:
            said.append(f"{_count(self.unsaid, 'row')} of the ticks say neither good nor defective, and do not count.")
        if self.compared is not None:
            then, now = self.compared
            said.append(
                f"Among the ticked images, {then.false_alarms:.0%} of the good ones were called defective where "
                f"{RECALL:.0%} of the defective ones are found; now it is {now.false_alarms:.0%}, each taught image "
                f"judged by the others. AUROC: {then.auroc:.3f} before, {now.auroc:.3f} now."
            )
        decided = self.decisions[0] != self.decisions[1]
        said += [f"Before: {self.decisions[0]}.", f"Now: {self.decisions[1]}."] if decided else []
        if self.helps is False:
            said.append(
                "This teaches nothing: good and defective ticked images are told apart no better than before. Stay "
                "with the model of before."
            )
        elif self.helps is None:
            said.append("Whether this teaches anything cannot be told from these ticks: tick some defects, too.")
        if self.unread:
            said.append(f"{_count(len(self.unread), 'image')} could not be looked at, such as: {self.unread[0]}")
        return said


_TIMES: tuple[Callable[[Told], Any], ...] = (attrgetter("before"), attrgetter("after"))


class _Seen(NamedTuple):
    """An image that was looked at."""

    path: str
    digest: str
    judged: Judged
    thumbnail: bytes


def teach(
    inspector: Inspector,
    corrections: Corrections,
    others: Sequence[Any] = (),
    references: Sequence[Any] = (),
    calibration: Sequence[Any] = (),
    rate: float | None = None,
) -> Lesson:
    """Let images ticked as good join the references of an inspector; see ``Inspector.teach``.

    Args:
        inspector: Whose model it is.
        corrections: What was ticked.
        others: The images of the list that were not ticked; ticked ones among them count as ticked.
        references: Images of the references, where they are not at hand.
        calibration: Images to calibrate the taught model on.
        rate: Its false-alarm rate; by default that of now.
    """
    live, decision = inspector.live("teaching"), inspector.decision
    rate = decision.rate if rate is None else rate
    if calibration and rate is None:
        msg = "calibration calibrates a false-alarm rate; pass false_alarm_rate too, such as 0.05."
        raise ValueError(msg)
    good = _shown(inspector, corrections.good)
    again = _shown(inspector, references)
    live.lesson(good, again)  # before many images are looked at for nothing
    unread: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that an image is a reference is known here
        ticked = _look(inspector, corrections.files)
        rest = _look(inspector, others, unread)
        known = {one.digest for one in ticked}
        rest = [one for one in rest if one.digest not in known]
    defective = {one.digest for one in ticked[len(ticked) - len(corrections.defects) :]}
    clash = [one.identity.name for one in good if one.identity.digest in defective]
    if clash:
        msg = f"{clash[0]} is ticked as good, and a copy of it as defective. Correct one of the ticks."
        raise ValueError(msg)
    before = {one.digest for one in live.references}
    live.teach(good, again, [one.digest for one in (*ticked, *rest)])
    assert live.taught is not None
    new = {one.identity.digest for one in good} - before
    if calibration:
        if not others:
            warnings.warn(_UNKNOWN, stacklevel=3)
        Fitting().calibration(inspector, calibration, rate)
        inspector.decide_by(None, rate)
    else:
        inspector.decide_by(decision.threshold)
    after = {one: _left_out(inspector, *found) for one, found in live.taught_left_out(inspector.look).items()}
    taught = set(live.taught.digests)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        paths = [one.path for one in (*ticked, *rest) if one.digest not in taught]
        after |= {one.digest: one.judged for one in _look(inspector, paths, [])}
    told = {
        one.digest: Told(
            one.path,
            one.digest in defective if one.digest in known else None,
            one.digest in new,
            one.judged,
            after.get(one.digest, Judged(None, None)),
            one.thumbnail,
        )
        for one in (*ticked, *rest)
    }
    return Lesson(
        tuple(one for one in told.values() if one.defective is not None or one.changed),
        live.taught,
        corrections.unsaid,
        len(rest),
        tuple(unread),
        (decision.text, inspector.decision.text),
        len(good) - len(new),
        corrections.alarms,
    )


_UNKNOWN = (
    "Calibration images must not be of the list that was ticked, and that list is not known: pass the images that were "
    "not ticked, too (--unticked)."
)


def _shown(inspector: Inspector, images: Sequence[Any]) -> list[Shown]:
    return inspector.shown(images, reference=True) if images else []


def _look(inspector: Inspector, images: Iterable[Any], unread: list[str] | None = None) -> list[_Seen]:
    """What the model says of images now.

    Args:
        inspector: Whose model it is.
        images: Files.
        unread: Where to write down what cannot be looked at; by default the error ends it all.
    """
    on_error = None if unread is None else lambda _, error: unread.append(str(error))
    return [
        _Seen(
            str(finding.path or "an image"),
            digest_of_pixels(finding.image),
            Judged(finding.score, _word(finding.label, finding.verdict) if finding.decided else None),
            thumbnail(finding.image),
        )
        for finding in inspector.stream(images, on_error)
    ]


def _word(label: bool, verdict: str | None = None) -> str:
    return verdict or ("defective" if label else "good")


def _left_out(inspector: Inspector, score: float, peak: float) -> Judged:
    """What is said of a taught image that the other references judge."""
    decision, ignores = inspector.decision, inspector.look is not None
    value, limit = (peak, decision.limits.region) if ignores else (score, decision.limits.score)
    return Judged(value, _word(not value <= limit) if decision.decided else None)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
