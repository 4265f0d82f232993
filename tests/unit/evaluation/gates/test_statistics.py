"""The tests of differences, against scipy and against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from git_theta_ext.evaluation.gates.bootstrap import FEW, GROUPS, Resampled
from git_theta_ext.evaluation.gates.compare import Normal, compare, holm
from git_theta_ext.evaluation.gates.paired import Counts, Melded, binomial_half
from git_theta_ext.evaluation.results import Examples, Score

COUNTS = [
    Counts(15, 5, 1), Counts(20, 0, 3), Counts(20, 3, 0), Counts(200, 30, 12),
    Counts(10_000, 300, 250), Counts(10_000, 2500, 2600), Counts(15, 7, 8),
]  # fmt: skip


@pytest.mark.parametrize(("k", "n"), [(0, 0), (0, 1), (3, 20), (10, 20), (17, 20), (480, 1000)])
def test_the_sign_test_is_scipys(k: int, n: int) -> None:
    wanted = stats.binomtest(k, n, alternative="less").pvalue if n else 1.0
    assert binomial_half(k, n) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("counts", COUNTS)
def test_without_a_margin_it_is_the_exact_test_of_mcnemar(counts: Counts) -> None:
    found, differ = Melded(counts), counts.only_base + counts.only_update
    worse = stats.binomtest(counts.only_update, differ, alternative="less").pvalue
    better = stats.binomtest(counts.only_base, differ, alternative="less").pvalue
    assert found.at_least(0) == pytest.approx(worse, rel=1e-7)
    assert found.at_most(0) == pytest.approx(better, rel=1e-7)


def melded(counts: Counts, x: float) -> float:
    """P(ψ(2θ - 1) ≥ x) for the upper confidence distributions, by scipy's own integration."""
    n, b, c = counts.examples, counts.only_base, counts.only_update
    m = b + c
    if b == 0:
        return 1.0 if x <= 0 else float(stats.beta(m + 1, n - m).sf(x))
    theta = stats.beta(c + 1, b)
    inside = [theta.ppf(q) for q in (0.001, 0.1, 0.5, 0.9, 0.999)]
    if x < 0:
        few = stats.beta(m, n - m + 1)
        part = integrate.quad(
            lambda t: theta.pdf(t) * few.cdf(-x / (1 - 2 * t)), 0, 0.5, limit=800,
            points=sorted(t for t in (*inside, (1 + x * n / m) / 2) if 0 < t < 0.5),
        )[0]  # fmt: skip
        return float(theta.sf(0.5) + part)
    above = (lambda v: float(v <= 1)) if n == m else stats.beta(m + 1, n - m).sf
    return float(integrate.quad(
        lambda t: theta.pdf(t) * above(x / (2 * t - 1)), 0.5, 1, limit=800,
        points=sorted(t for t in (*inside, (1 + x * n / m) / 2) if 0.5 < t < 1),
    )[0])  # fmt: skip


@pytest.mark.parametrize("counts", COUNTS)
def test_with_a_margin_it_is_the_melded_distribution(counts: Counts) -> None:
    for x in (-0.05, -0.01, 0.02):
        assert Melded(counts).at_least(x) == pytest.approx(melded(counts, x), abs=2e-6)
        assert Melded(counts.swapped).at_most(x) == pytest.approx(melded(counts, -x), abs=2e-6)


@pytest.mark.parametrize("counts", COUNTS)
def test_its_limits_are_where_the_tests_turn(counts: Counts) -> None:
    found = Melded(counts)
    low, high = found.limits(0.95)
    assert low <= counts.difference <= high
    assert found.at_least(high) == pytest.approx(0.05, abs=1e-4)
    assert found.at_most(low) == pytest.approx(0.05, abs=1e-4)


def test_versions_that_never_differ() -> None:
    """The rule of three: with n examples alike, a drop of 3/n is excluded, and no smaller one."""
    low, high = Melded(Counts(1000, 0, 0)).limits(0.95)
    assert -low == high == pytest.approx(1 - 0.05 ** (1 / 1000), rel=1e-6)
    assert Melded(Counts(10, 0, 0)).at_most(-0.01) == pytest.approx(0.99**10)


def test_it_keeps_its_word_at_the_boundary() -> None:
    """Of all outcomes of 40 pairs where the drop is exactly what is allowed, few are refused."""
    n, allowed = 40, 0.05
    for won in (0.0, 0.05, 0.2):
        lost = won + allowed
        refused = proved = 0.0
        for b in range(n + 1):
            for c in range(n + 1 - b):
                chance = stats.multinomial.pmf([b, c, n - b - c], n, [lost, won, 1 - won - lost])
                if chance > 1e-9:
                    found = Melded(Counts(n, b, c))
                    refused += chance * (found.at_least(-allowed) < 0.05)
                    proved += chance * (found.at_most(-allowed) < 0.05)
        assert refused <= 0.05
        assert proved <= 0.05


@pytest.mark.parametrize("n", [60, GROUPS, 10_000])
def test_the_bootstrap_is_near_to_students_interval(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.1, 1, n)
    low, high = Resampled(differences).limits(0.95)
    t = stats.t.interval(0.9, n - 1, differences.mean(), stats.sem(differences))
    width = t[1] - t[0]
    assert abs(low - t[0]) < 0.1 * width
    assert abs(high - t[1]) < 0.1 * width


def test_the_bootstrap_and_its_limits_agree() -> None:
    differences = np.random.default_rng(3).exponential(1, 200) - 1
    found = Resampled(differences)
    low, high = found.limits(0.95)
    assert found.at_least(high - 1e-9) >= 0.05 > found.at_least(high + 1e-9)
    assert found.at_most(low + 1e-9) >= 0.05 > found.at_most(low - 1e-9)
    assert Resampled(differences).limits(0.95) == (low, high)
    shifted = Resampled(differences + 1e6).limits(0.95)
    assert shifted == pytest.approx((low + 1e6, high + 1e6), abs=1e-8)


def test_few_examples_prove_nothing() -> None:
    for differences in (np.full(FEW - 1, -1.0), np.zeros(1)):
        found = Resampled(differences)
        assert found.at_least(0) == found.at_most(0) == 1
        assert found.limits(0.95) == (-math.inf, math.inf)
    same = Resampled(np.zeros(FEW))
    assert (same.at_least(0), same.at_most(0), same.at_most(-0.1)) == (1, 1, 0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def of(values: list[float], kind: str, **more: object) -> Score:
    examples = Examples.of({f"{at:05}": one for at, one in enumerate(values)}, kind)  # type: ignore[arg-type]
    fields = {"value": float(np.mean(values)), "count": len(values), **more}
    return Score("t", "acc", ids_hash=examples.ids_hash, examples=examples, **fields)  # type: ignore[arg-type]


def test_which_test_is_used() -> None:
    right, real = [1.0, 0.0] * 50, [0.3, 0.1] * 50
    assert compare(of(right, "right"), of(right, "right")).how == "exact"
    assert compare(of(real, "real"), of(real, "real")).how == "bootstrap"
    assert compare(of(right, "right"), of(real, "real")).how == "bootstrap"
    assert compare(of(right, "right"), Score("t", "acc", 0.5, count=100)).how == "errors"
    assert compare(Score("t", "f1", 0.5, 0.01), Score("t", "f1", 0.5, 0.01)).how == "errors"
    assert compare(Score("t", "f1", 0.5), Score("t", "f1", 0.5, 0.01)).how == "numbers"
    assert compare(Score("t", "f1", 1.0, 0.0), Score("t", "f1", 1.0, 0.0)).how == "numbers"


def test_a_score_that_is_not_the_mean_of_its_examples_is_not_paired() -> None:
    one = of([1.0, 0.0] * 50, "right", value=0.7, stderr=0.05)
    found = compare(one, one)
    assert found.how == "errors"
    assert "not the mean" in found.note


def test_shares_of_all_are_not_certain() -> None:
    found = compare(Score("t", "acc", 1.0, 0.0, count=50), Score("t", "acc", 1.0, 0.0, count=50))
    low, high = found.test.limits(0.95)
    assert low == pytest.approx(-high)
    assert 0.03 < high < 0.06


def test_standard_errors_by_hand() -> None:
    """A drop of 1.75 standard errors: p = 0.080 on both sides."""
    found = Normal(-0.035, 0.02)
    assert 2 * found.at_least(0) == pytest.approx(0.0801, abs=1e-4)
    assert found.limits(0.95)[1] == pytest.approx(-0.035 + 1.6448536 * 0.02)
