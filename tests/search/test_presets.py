"""Every lane of every preset, on the reference model: to a checkpoint that vLLM serves, or refused by name."""

import json

import pytest

from cluster.resources import find_device
from compressors.build import build
from compressors.data import read_conversations
from compressors.shape import check_recipe, read_shape
from compressors.step import Infeasible
from compressors.store import Store
from evaluation.benchmarks.base import Decoding
from evaluation.reference import CALIBRATION, MODEL
from search.recipe import Recipe
from search.serving import traits
from search.space_file import PRESETS, load_space

TOKENS = 2_000  # of training
BRIEF = {"generations": 3, "calibration_tokens": 4_096}  # of an evolution, which takes two minutes as it comes
CHAT = [{"role": "user", "content": "1 2 3"}]
NAMES = {  # a recipe that several presets hold is tried once, by the last of its names
    recipe: f"{path.stem}-{number}"
    for path in sorted(PRESETS.glob("*.yaml"))
    for number, recipe in enumerate(load_space(path.stem).seed_recipes())
}
LANES = {name: recipe for recipe, name in NAMES.items()}
# What the engine at hand cannot serve, or what makes no sense anywhere, and the words that must say so.
REFUSED = {"factorial-1": "nothing to win back"} | (
    {"lanes-2": "W8A16", "lanes-11": "static_scaled_fp8_quant", "nf4-0": "bitsandbytes"}
    if find_device() == "cpu"
    else {"nf4-0": "bitsandbytes", "outlook-2": "W4A8"}
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("presets"))


def evolves(step):
    return getattr(step, "by", None) == "evolutionary_kl"


@pytest.mark.parametrize("lane", LANES)
def test_a_lane_is_served_or_refused(engine, store, lane):
    recipe = LANES[lane]
    most = max((getattr(step, "tokens", 0) for step in recipe.steps), default=0)
    recipe = recipe.at(min(1.0, TOKENS / most)) if most else recipe
    recipe = Recipe([step.model_copy(update=BRIEF) if evolves(step) else step for step in recipe.steps])
    if lane in REFUSED:
        with pytest.raises(Infeasible, match=REFUSED[lane]):
            check_recipe(recipe.steps, read_shape(MODEL), traits(find_device()))
        return
    check_recipe(recipe.steps, read_shape(MODEL), traits(engine.settings.device))
    artifact = build(recipe.steps, MODEL, store, read_conversations(CALIBRATION, limit=24)).artifact
    engine.load(artifact.folder)
    slow = {"FP8_DYNAMIC", "W4A8"} & {getattr(step, "scheme", "") for step in recipe.steps}  # on a CPU
    answer = engine.generate([CHAT], [Decoding(max_tokens=1 if slow else 8)]).answers[0]
    assert answer.tokens >= 1
    layers = json.loads((artifact.folder / "config.json").read_text())["num_hidden_layers"]
    assert layers == 10 - sum(getattr(step, "count", 0) or 0 for step in recipe.steps)
