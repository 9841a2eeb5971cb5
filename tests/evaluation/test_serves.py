"""The table of what engines serve: consistent in itself and with the schemes that exist; what it says of lanes."""

import pytest

from compressors.quantize import Quantize
from compressors.schemes import SCHEMES
from compressors.shape import check_recipe
from compressors.step import Infeasible
from evaluation.serves import FEATURES, TABLE, installed, row
from search.serving import served_by
from tests.shapes import EXAONE


@pytest.mark.parametrize("key", TABLE)
def test_every_scheme_and_feature_is_served_or_missed_for_a_reason(key):
    serves = TABLE[key]
    known = set(SCHEMES) | FEATURES
    assert serves.seen | serves.read | set(serves.lacking) == known
    assert not (serves.seen | serves.read) & set(serves.lacking)
    assert not serves.seen & serves.read
    assert serves.schemes <= set(SCHEMES) and serves.features <= FEATURES


def test_the_projects_own_engine_is_in_it():
    assert row(installed(), "cpu").schemes >= {"W8A8", "W4A16"}
    assert row(installed(), "cuda").schemes >= {"W8A8", "W4A16"}


def test_an_engine_nobody_looked_at_is_named():
    with pytest.raises(LookupError, match=r"vLLM 9\.1\.0 on tpu; known are 0\.32 on cpu"):
        row("9.1.0", "tpu")


@pytest.mark.parametrize(
    ("fields", "device", "version", "reason"),
    [
        ({"scheme": "W8A16", "method": "gptq"}, "cpu", "0.32.0", "CPUWNA16LinearKernel"),
        ({"scheme": "FP8_STATIC"}, "cpu", "0.32.0", "static_scaled_fp8_quant"),
        ({"scheme": "W8A8", "head": "int8"}, "cuda", "0.14.1", "lm_head.weight_scale"),
        ({"scheme": "W4A16"}, "cpu", "0.14.1", "packed 4-bit weights"),
    ],
)
def test_a_lane_that_cannot_be_served_names_the_kernel(fields, device, version, reason):
    with pytest.raises(Infeasible, match=reason) as raised:
        check_recipe([Quantize(**fields)], EXAONE, served_by(version, device))
    assert f"vLLM {version} on {device}" in str(raised.value)
    assert "\n" not in str(raised.value)
