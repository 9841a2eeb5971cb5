"""The calibration against a known truth with two moods, its honesty about what it has seen, and the real file."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

import compressors.schemes
from evaluation.leaderboard import FEATURES, SLOW_FROM, Calibration, main, mood
from evaluation.leaderboard_table import (
    errors,
    forecasts_left_out,
    medians_left_out,
    report,
    scheme_medians_left_out,
    unit,
)
from evaluation.submissions import COLUMNS, NEEDED, SCHEMES, Submission, read_submissions

REAL = Path(__file__).parents[3] / "shared" / "data" / "contest-submissions.csv"
LOSS, TRAINED, KEPT = 0.12, -0.15, 0.02
TRUE = {"W8A8": 0.63, "FP8": 0.61, "W4A16": 0.58}
EFFECTS = [feature.name for feature in FEATURES]


def synthetic(count=240, seed=0):
    """Rows whose truth is known, and whether each was slow; every third one tells its minutes."""
    random = np.random.default_rng(seed)
    rows, slow = [], []
    for number in range(count):
        scheme, trained, kept = random.choice(list(TRUE)), random.random() < 0.2, random.random() < 0.3
        slow.append(random.random() < 0.35)
        score = TRUE[scheme] + TRAINED * trained + KEPT * kept - LOSS * slow[-1] + 0.008 * random.standard_t(4)
        minutes = (13.0 if slow[-1] else 10.0) if number % 3 == 0 else None
        rows.append(
            Submission(
                row=number + 2,
                source=f"team {number}",
                scheme=scheme,
                algorithm="gptq",
                trained=trained,
                kept=kept,
                score=score,
                minutes=minutes,
            )
        )
    return rows, np.array(slow)


def write(path, rows, columns=COLUMNS):
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def scored(**cells):
    return {"source": "a", "name": "n", "scheme": "W8A8", "algorithm": "rtn", "server_score": "0.6"} | cells


def test_effects_and_moods_are_recovered():
    rows, slow = synthetic()
    found = Calibration(rows).fit
    effect = dict(zip(EFFECTS, found.effects, strict=True))
    for scheme, score in TRUE.items():
        assert found.constant + effect[scheme] == pytest.approx(score, abs=0.01), scheme
    assert effect["weights trained before"] == pytest.approx(TRAINED, abs=0.03)
    assert effect["some layers in 16 bits"] == pytest.approx(KEPT, abs=0.01)
    assert found.loss == pytest.approx(LOSS, abs=0.01)
    assert ((found.slow > 0.5) == slow).mean() > 0.95
    assert found.odds[0] == pytest.approx(np.log(0.35 / 0.65), abs=0.5)


def test_least_squares_that_knows_no_moods_is_worse():
    rows, _ = synthetic()
    kinds = [Submission(scheme=scheme, trained=trained, kept=False) for scheme in TRUE for trained in (False, True)]
    truth = [TRUE[row.scheme] + TRAINED * row.trained for row in kinds]
    ours = [one.fast for one in Calibration(rows).forecasts(kinds)]

    def table(some):
        return np.array([[*(row.scheme == scheme for scheme in TRUE), row.trained, row.kept] for row in some], float)

    effects = np.linalg.lstsq(table(rows), np.array([row.score for row in rows]), rcond=None)[0]
    plain = table(kinds) @ effects
    assert np.abs(np.subtract(ours, truth)).max() < 0.02
    assert np.abs(plain - truth).mean() > 3 * np.abs(np.subtract(ours, truth)).mean()


def test_an_interval_holds_about_as_often_as_it_says():
    rows, _ = synthetic(seed=1)
    others, were_slow = synthetic(seed=2)
    told = Calibration(rows).forecasts(others)
    fast = [n for n, row in enumerate(others) if not were_slow[n] and not row.trained]
    held = [told[n].fast_low <= others[n].score <= told[n].fast_high for n in fast]
    assert 0.85 <= np.mean(held) <= 1
    below = [others[n].score < told[n].middle for n in range(len(others)) if not others[n].trained]
    assert 0.4 <= np.mean(below) <= 0.6


def test_what_no_row_shows_stays_at_its_prior_and_says_so():
    rows, _ = synthetic()
    calibration = Calibration(rows)
    usual, trimmed = calibration.forecasts([Submission(scheme="W8A8"), Submission(scheme="W8A8", trimmed=True)])
    assert trimmed.fast == usual.fast
    assert trimmed.fast_high - trimmed.fast_low > 3 * (usual.fast_high - usual.fast_low)
    assert (usual.unseen, trimmed.unseen) == ((), ("vocabulary trimmed",))
    assert trimmed.predicted is True


def test_the_uncompressed_model_scores_one_half():
    told = Calibration(synthetic()[0]).forecasts([Submission(scheme="none", trained=False, kept=False)])[0]
    assert told.fast == pytest.approx(0.5, abs=0.03)


def test_a_rows_own_score_is_left_out_of_its_forecast():
    rows, _ = synthetic(40)
    twin = rows[7].model_copy(update={"row": 99, "score": 0.3})
    rows = [*rows, twin]
    assert unit(twin) == unit(rows[7])
    for predict in (lambda some: [one.middle for one in forecasts_left_out(some)], medians_left_out):
        before = predict(rows)
        changed = [row.model_copy(update={"score": 0.9}) if unit(row) == unit(twin) else row for row in rows]
        after = predict(changed)
        assert (after[7], after[-1]) == (before[7], before[-1])
        assert after != before


def test_scheme_medians_by_hand():
    scores = {"W8A8": [0.6, 0.7, 0.8], "FP8": [0.1]}
    rows = [
        Submission(source=f"{scheme} {number}", scheme=scheme, score=score)
        for scheme, some in scores.items()
        for number, score in enumerate(some)
    ]
    assert scheme_medians_left_out(rows) == pytest.approx([0.75, 0.7, 0.65, 0.7])
    assert errors([0.1, 0.2, 0.6], [0.2, 0.4, 0.9]) == pytest.approx((0.2, 0.2, 1.0))


def test_a_recipe_is_read_from_what_is_stated_and_no_further(tmp_path):
    said = {
        "plain": scored(details="512 samples"),
        "trained": scored(name="kd_base_w8a8", details="KD from a larger one"),
        "kept": scored(details="layers 0-3 BF16"),
        "as kept": scored(details="as kept with actorder"),
        "trimmed": scored(details="vocabulary pruning"),
        "silent": scored(scheme="", algorithm="", details=""),
        "fp8": scored(scheme="FP8_DYNAMIC", local_tokens_per_s="200", local_tokens_per_s_base="100"),
        "not vllm": scored(local_tokens_per_s="200", local_tokens_per_s_base="100", note="HF transformers, not vLLM"),
        "28 layers": scored(layers="28", local_perf="0.3", local_perf_base="0.4", server_run_minutes="13"),
        "KMMLU": scored(scheme="INT4", details="KMMLU 2048, ignore lm_head"),
    }
    write(tmp_path / "a.csv", [{**cells, "name": name} for name, cells in said.items()])
    read = {row.name: row for row in read_submissions(tmp_path / "a.csv")}
    assert (read["plain"].trained, read["plain"].kept, read["plain"].trimmed) == (False, False, False)
    assert read["trained"].trained
    assert read["kept"].kept
    assert read["as kept"].kept
    assert read["trimmed"].trimmed
    assert (read["silent"].scheme, read["silent"].trained, read["silent"].kept) == (None, None, None)
    assert (read["fp8"].scheme, read["fp8"].local_speed_norm) == ("FP8", 0.5)
    assert read["not vllm"].local_speed_norm is None
    assert (read["28 layers"].layers, read["28 layers"].local_perf_norm) == (28, pytest.approx(0.75))
    assert (mood(read["28 layers"]), read["28 layers"].minutes > SLOW_FROM) == (1, True)
    assert (read["KMMLU"].scheme, read["KMMLU"].trained, read["KMMLU"].kept) == ("other", False, False)
    assert read["plain"].row == 2


@pytest.mark.parametrize(
    ("rows", "columns", "complaint"),
    [
        (
            12,
            [one for one in COLUMNS if one != "server_score"],
            "no column server_score: scheme, algorithm, server_sco",
        ),
        (9, COLUMNS, "has 9 rows with a server_score; at least 10"),
        (12, COLUMNS, None),  # each row alone is right, and nothing is left to predict them from
        ("abc", COLUMNS, "line 3, column server_score holds 'abc', no number: correct"),
        ("nan", COLUMNS, "line 3, column server_score holds 'nan', no number"),
        ("63.2", COLUMNS, "line 3, column server_score holds '63.2', which is not 0 to 1"),
    ],
)
def test_bad_files_are_refused_with_the_remedy(tmp_path, monkeypatch, capsys, rows, columns, complaint):
    path = tmp_path / "submissions.csv"
    made = [scored() for _ in range(rows)] if isinstance(rows, int) else [scored(), scored(server_score=rows)]
    write(path, [{column: row.get(column, "") for column in columns} for row in made], columns)
    if complaint is not None:
        with pytest.raises(ValueError, match=complaint) as raised:
            read_submissions(path)
        assert str(path) in str(raised.value)
    monkeypatch.setattr(sys, "argv", ["leaderboard", str(path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("scheme", ["INT8", "w8a8", "NVFP4"])
def test_a_scheme_nobody_knows_is_named_with_those_that_are(tmp_path, scheme):
    path = write(tmp_path / "a.csv", [scored(), scored(server_score="", scheme=scheme, layers="28.5")])
    told = (
        rf"line 3, column scheme holds '{scheme}', which is none of W8A8, .* other; line 3, column layers holds '28.5'"
    )
    with pytest.raises(ValueError, match=told):
        read_submissions(path)


def test_every_scheme_that_can_be_made_may_be_recorded():
    assert set(compressors.schemes.SCHEMES) <= set(SCHEMES)


def test_many_faults_are_counted(tmp_path):
    with pytest.raises(ValueError, match=r"line 6, .*'x', no number; and 7 more: correct"):
        read_submissions(write(tmp_path / "a.csv", [scored(local_score="x") for _ in range(12)]))


def test_three_columns_are_enough(tmp_path):
    rows = [{column: scored()[column] for column in NEEDED} for _ in range(12)]
    assert len(read_submissions(write(tmp_path / "a.csv", rows, NEEDED))) == 12


@pytest.mark.parametrize("asked", ["-h", "--help"])
def test_help_is_usage(monkeypatch, capsys, asked):
    monkeypatch.setattr(sys, "argv", ["leaderboard", asked])
    main()
    assert capsys.readouterr().out.startswith("usage: python -m evaluation.leaderboard CSV")


def test_a_missing_or_unreadable_file_is_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match="cannot be read"):
        read_submissions(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no CSV in UTF-8"):
        read_submissions(tmp_path / "bytes.csv")
    with pytest.raises(ValueError, match="nothing can be learned"):
        Calibration([Submission(row=3)])
    monkeypatch.setattr(sys, "argv", ["leaderboard"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "give one CSV" in capsys.readouterr().err


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not there")
def test_the_contests_submissions():
    """The calibration beats both medians on all rows, and the raw local score's error on the rows that state one.

    Ranks of those nine rows it tells no better by its forecast over both moods; by its score in the fast mood it does.
    """
    rows = read_submissions(REAL)
    assert len(rows) == 83
    assert sum(row.minutes is not None for row in rows) == 34
    told, scores = forecasts_left_out(rows), [row.score for row in rows]
    ours = errors([one.middle for one in told], scores)
    for baseline in (medians_left_out(rows), scheme_medians_left_out(rows)):
        mean, _, rank = errors(baseline, scores)
        assert ours[0] < mean
        assert ours[2] > rank
    those = [n for n, row in enumerate(rows) if row.local_score is not None]
    raw = errors([rows[n].local_score for n in those], [scores[n] for n in those])
    assert (len(those), raw[2]) == (9, pytest.approx(0.30, abs=0.005))
    assert errors([told[n].middle for n in those], [scores[n] for n in those])[0] < raw[0]
    assert errors([told[n].fast for n in those], [scores[n] for n in those])[2] > raw[2]
    assert Calibration(rows).fit.loss == pytest.approx(0.115, abs=0.01)
    assert "83 scored rows" in report(rows)[0]
