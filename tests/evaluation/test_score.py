"""The score against the contest's formula, and its interval against what repeated sampling gives."""

import numpy as np
import pytest

from evaluation.measurement import BenchmarkFigures, Measurement, Timing
from evaluation.protocol import EngineFault
from evaluation.roofline import Prediction
from evaluation.score import ONE_PASS, combine, near, score
from evaluation.speed import sec_per_token, seconds_per_token, speed


def measurement(grades, seconds, tokens=1000, **more):
    """One benchmark with the given grades; `seconds` are the passes of its one slice."""
    figures = BenchmarkFigures(
        grades={f"i{number}": grade for number, grade in enumerate(grades)},
        passes=[[Timing(seconds=one, tokens=tokens) for one in seconds]],
    )
    given = {"benchmarks": {"b": figures}, "engine": "vllm", "device": "d", "clock": "wall", "kernels": []}
    return Measurement.model_validate(given | more)


@pytest.mark.parametrize(
    ("perf_norm", "speed_norm", "expected"),
    [(1.0, 0.0, 0.5), (0.9, 0.4, 0.65), (1.2, -0.5, 0.35), (0.1, -2.0, 0.0)],
)
def test_the_contests_formula(perf_norm, speed_norm, expected):
    assert combine(perf_norm, speed_norm) == pytest.approx(expected)


def test_parts_by_hand():
    base = measurement([1, 1, 0, 0], [2.0, 2.0, 2.0])
    model = measurement([1, 0, 0, 0], [1.5, 1.0, 1.2], tokens=800)
    result = score(model, base)
    assert result.perf_norm == pytest.approx(0.25 / 0.5)
    assert result.speed_norm == pytest.approx(1 - (1.2 / 800) / (2.0 / 1000))
    assert result.score == pytest.approx(0.5 * result.perf_norm + 0.5 * result.speed_norm)
    assert result.length_ratio == pytest.approx(0.8)


def test_the_baseline_scores_one_half_with_no_uncertainty_in_perf():
    base = measurement([1, 0, 1, 1], [2.0, 2.0])
    result = score(base, base)
    assert (result.score, result.score_low, result.score_high) == (0.5, 0.5, 0.5)


def test_perf_is_the_unweighted_mean_of_benchmarks():
    small = BenchmarkFigures(grades={"a": 1.0}, passes=[[Timing(seconds=1, tokens=10)]])
    large = BenchmarkFigures(grades={str(n): 0.0 for n in range(99)}, passes=[[Timing(seconds=1, tokens=10)]])
    both = measurement([0], [1.0]).model_copy(update={"benchmarks": {"small": small, "large": large}})
    assert both.perf == 0.5
    assert sec_per_token(both.passes) == pytest.approx(2 / 20)


def test_a_model_without_a_token_has_no_time_for_one():
    silent, base = measurement([0], [1.0], tokens=0), measurement([1], [1.0])
    with pytest.raises(EngineFault, match="generated no token"):
        speed(silent.passes, base.passes, True, np.random.default_rng(0))
    with pytest.raises(EngineFault, match="generated no token"):
        score(silent, base)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    true_base, true_kept, covered, rounds = 0.8, 0.9, 0, 120
    for _ in range(rounds):
        right = random.random(150) < true_base
        kept = right & (random.random(150) < true_kept)
        result = score(measurement(kept.astype(float), [1.0]), measurement(right.astype(float), [1.0]))
        covered += result.score_low <= combine(true_kept, 0.0) <= result.score_high
    assert 0.89 <= covered / rounds <= 1.0


def test_pairing_narrows_the_interval():
    random = np.random.default_rng(1)
    right = (random.random(200) < 0.6).astype(float)
    almost = right.copy()
    almost[np.flatnonzero(right)[:4]] = 0.0
    unrelated = random.permutation(almost)
    base = measurement(right, [1.0])
    paired, shuffled = score(measurement(almost, [1.0]), base), score(measurement(unrelated, [1.0]), base)
    assert paired.score_high - paired.score_low < 0.5 * (shuffled.score_high - shuffled.score_low)


def test_noisy_timings_widen_the_interval():
    base = measurement([1, 1], [2.0, 2.0, 2.0])
    calm = score(measurement([1, 1], [1.5, 1.5, 1.5]), base)
    rough = score(measurement([1, 1], [1.2, 1.5, 2.0]), base)
    assert calm.speed_low == calm.speed_high == pytest.approx(0.25)
    assert rough.speed_low < 0.1 < 0.25 < rough.speed_high


def test_the_time_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered, rounds, slices, passes = 0, 150, 8, 3

    def timed(seconds):
        figures = BenchmarkFigures(
            grades={"a": 1.0},
            passes=[
                [Timing(seconds=seconds * noise, tokens=100) for noise in random.normal(1, 0.04, passes)]
                for _ in range(slices)
            ],
        )
        return measurement([1], [1.0]).model_copy(update={"benchmarks": {"b": figures}})

    for _ in range(rounds):
        result = score(timed(0.8), timed(1.0))
        covered += result.speed_low <= 0.2 <= result.speed_high
    assert 0.9 <= covered / rounds <= 1.0


def test_moods_that_turns_share_and_noise_that_they_do_not():
    """Pass k of a slice meets one mood in both models, which drifts on; each has noise of its own."""
    random = np.random.default_rng(1)
    covered, rounds, slices, passes = 0, 150, 8, 3
    for _ in range(rounds):
        moods = np.exp(np.cumsum(random.normal(0, 0.05, slices * passes))).reshape(slices, passes)

        def timed(seconds, moods=moods):
            noise = random.normal(1, 0.02, (slices, passes))
            took = [[Timing(seconds=float(one), tokens=100) for one in row] for row in seconds * moods * noise]
            figures = BenchmarkFigures(grades={"a": 1.0}, passes=took)
            return measurement([1], [1.0]).model_copy(update={"benchmarks": {"b": figures}, "turns": True})

        result = score(timed(0.8), timed(1.0))
        covered += result.speed_low <= 0.2 <= result.speed_high
    assert 0.9 <= covered / rounds <= 1.0


def test_what_met_both_alike_widens_nothing():
    """A machine that slows down for both, pass by pass, says nothing against either when they took turns."""
    moods = [1.0, 1.5, 1.2]
    base, model = measurement([1], [2 * m for m in moods]), measurement([1], [1.6 * m for m in moods])
    apart = score(model, base)
    together = score(model.model_copy(update={"turns": True}), base.model_copy(update={"turns": True}))
    assert together.speed_low == pytest.approx(0.2) == together.speed_high
    assert apart.speed_high - apart.speed_low > 0.2


def test_pairs_repeat_better_than_medians_where_moods_last():
    """A machine that takes half as long again for some time: pairs, beside each other, hardly see it."""
    random = np.random.default_rng(2)
    told: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(60):
        moods = np.repeat(random.choice([1.0, 1.5], 60), 2)  # it lasts two turns of the two, so two passes of either
        moods = np.roll(moods, random.integers(4))
        own, theirs = moods[0:80:2].reshape(8, 5), moods[1:81:2].reshape(8, 5)

        def timed(seconds, slow):
            took = seconds * slow * random.normal(1, 0.01, slow.shape)
            return [[Timing(seconds=float(one), tokens=100) for one in row] for row in took]

        mine, base = timed(0.8, own), timed(1.0, theirs)
        for in_turns in told:
            seconds, other = seconds_per_token(mine, base, in_turns)
            told[in_turns].append(1 - seconds / other)
    assert np.std(told[True]) < 0.7 * np.std(told[False])


@pytest.mark.parametrize("changed", [{"engine": "vllm 0.14.1"}, {"device": "L4"}, {"clock": "cpu"}])
def test_different_engines_devices_and_clocks_are_not_compared(changed):
    with pytest.raises(ValueError, match="measure the baseline again"):
        score(measurement([1], [1.0], **changed), measurement([1], [1.0]))


def test_different_items_are_not_compared():
    with pytest.raises(ValueError, match="different items of b"):
        score(measurement([1, 1], [1.0]), measurement([1], [1.0]))


def test_a_baseline_that_knows_nothing_is_refused():
    with pytest.raises(ValueError, match="baseline's perf is 0"):
        score(measurement([1], [1.0]), measurement([0], [1.0]))


def test_by_likelihood_speed_is_predicted_or_timed_once():
    base, model = measurement([1, 1], [1.0]), measurement([0.9, 0.7], [0.8])
    timed = near(model, base, None, 0.0)
    assert (timed.perf_by, timed.speed_by) == ("likelihood", "timing")
    assert timed.speed_norm == pytest.approx(0.2)
    assert timed.speed_high - timed.speed_low == pytest.approx(2 * ONE_PASS)  # one pass knows no more
    told = Prediction(device="L4", seconds=1, tokens=1, sec_per_token=0.7, sec_per_token_base=1.0, speed_norm=0.3)
    predicted = near(model, base, told, 0.05)
    assert (predicted.speed_norm, predicted.speed_by) == (0.3, "roofline")
    assert (predicted.speed_low, predicted.speed_high) == pytest.approx((0.25, 0.35))
    assert predicted.perf_norm == pytest.approx(0.8)
    assert predicted.score == pytest.approx(0.55)
    assert predicted.score_low < 0.55 < predicted.score_high


def test_a_slice_in_which_nothing_was_timed_counts_for_nothing():
    base, model = measurement([1], [1.0]), measurement([1], [0.8])
    silent = [Timing(seconds=0.0, tokens=0)]
    own, other = seconds_per_token([*model.passes, silent], [*base.passes, silent], True)
    assert 1 - own / other == pytest.approx(0.2)
    assert speed([*model.passes, silent], [*base.passes, silent], True, np.random.default_rng(0)).norm > 0.19
