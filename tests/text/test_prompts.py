"""Prompts: the paper's sets, and files of one's own."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml

from anomalib_clipad.backbones import Backbone
from anomalib_clipad.text.class_encoder import ClassEncoder
from anomalib_clipad.text.prompts import INDUSTRIAL, MEDICAL, PromptSet, load_prompts

OWN = "normal: ['good {}']\nabnormal: ['bad {}', '{} with dents']\ntemplates: ['a photo of a {}.', 'one {}.']\n"


def test_the_papers_prompts_are_198_normal_and_220_abnormal() -> None:
    normal, abnormal = INDUSTRIAL.texts("metal_nut")
    assert (len(set(normal)), len(set(abnormal))) == (198, 220)
    assert "a jpeg corrupted photo of the metal_nut without contamination." in normal
    assert "a photo of a broken metal_nut for anomaly detection." in abnormal


def test_the_medical_prompts_say_healthy_and_diseased() -> None:
    normal, abnormal = load_prompts("medical").texts("skin")
    assert (len(set(normal)), len(set(abnormal))) == (9 * 13, 9 * 13)
    assert not set(normal) & set(abnormal)
    assert "a medical image of a healthy skin." in normal
    assert "a photo of the skin without lesion." in normal
    assert "a medical image of a diseased skin." in abnormal
    assert "an image of the skin with polyp for screening." in abnormal


@pytest.mark.parametrize(("name", "digest"), [("industrial", "dbe8f4a184b16e60"), ("medical", "968faa9fb312e4d0")])
def test_a_wording_is_that_of_the_published_results(name: str, digest: str) -> None:
    normal, abnormal = load_prompts(name).texts("cup")
    assert hashlib.sha256("\n".join([*normal, *abnormal]).encode()).hexdigest()[:16] == digest


def test_the_built_in_sets_are_found_by_name() -> None:
    assert load_prompts("industrial") is INDUSTRIAL
    assert load_prompts("medical") is load_prompts(Path("medical")) is MEDICAL


@pytest.mark.filterwarnings("error")
def test_the_pages_example_draws_no_warning(backbone: Backbone) -> None:
    page = (Path(__file__).parents[2] / "docs/prompts.md").read_text()
    (example,) = re.findall(r"```yaml\n(# prompts\.yaml.*?)```", page, re.DOTALL)
    options = dict(re.findall(r"--model\.(\w+) (\S+)", example))
    assert options.pop("prompts") == "prompts.yaml"
    prompts = load_prompts(yaml.safe_load(example))
    encoder = ClassEncoder(backbone.clip, backbone.tokenizer, prompts, options.get("rvs", "dbscan"))
    assert encoder.encode("cup").isfinite().all()


def test_a_file_gives_states_in_order_each_with_all_templates(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(OWN)
    _, abnormal = load_prompts(str(file)).texts("cup")
    assert abnormal == ["a photo of a bad cup.", "one bad cup.", "a photo of a cup with dents.", "one cup with dents."]


def test_a_file_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.yaml").write_text(OWN)
    assert load_prompts("~/own.yaml").normal == ("good {}",)


def test_plain_data_restores_a_prompt_set() -> None:
    assert load_prompts(INDUSTRIAL.as_dict()) == INDUSTRIAL
    assert json.loads(json.dumps(INDUSTRIAL.as_dict())) == INDUSTRIAL.as_dict()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("normal: ['good {}']\nabnormal: ['bad {}']\n", "exactly the lists normal, abnormal, templates"),
        (OWN + "extra: []\n", "exactly the lists"),
        (OWN.replace("['good {}']", "[]"), "'normal' is empty"),
        (OWN.replace("one {}.", "one."), "'templates' needs exactly one '{}'; got 'one.'"),
        (OWN.replace("good {}", "good {} {}"), "'normal' needs exactly one '{}'"),
        (OWN.replace("'good {}'", "3"), "'normal' needs exactly one '{}'; got 3"),
        (OWN.replace("['good {}']", "good {}"), "'normal' has to be a list"),
        (OWN.replace("['good {}']", "3"), "'normal' has to be a list of texts; got 3"),
        ("- just\n- a list\n", "got list"),
        ("", "got NoneType"),
        ("normal: [", "is not YAML"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"own\.yaml") as error:
        load_prompts(str(file))
    assert message in str(error.value)


def test_a_file_that_is_no_text_is_not_yaml(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=r"The prompt file .*own\.yaml is not YAML"):
        load_prompts(file)


def test_an_unknown_set_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'medcal'.*industrial.*YAML file"):
        load_prompts("medcal")


def test_lists_are_checked_without_a_file_too() -> None:
    with pytest.raises(ValueError, match="'abnormal' is empty"):
        PromptSet(normal=("a {}",), abnormal=(), templates=("{}",))
