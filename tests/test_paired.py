"""Two networks against each other: SciPy's exact tests, published examples, brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from neocog.metrics import paired as pairs
from neocog.metrics import student
from neocog.metrics.intervals import Z


@pytest.mark.parametrize(("a", "b"), [(0, 1), (0, 5), (3, 9), (12, 31), (7, 1), (200, 260)])
def test_mid_p_is_the_exact_test_less_half_of_what_was_seen(a: int, b: int) -> None:
    exact = stats.binomtest(a, a + b, 0.5).pvalue
    mid = exact - stats.binom.pmf(min(a, b), a + b, 0.5)
    assert pairs.mcnemar(a, b) == pytest.approx(mid, rel=1e-9)
    assert pairs.mcnemar(b, a) == pairs.mcnemar(a, b)


def test_mcnemar_with_many_is_the_normal_one() -> None:
    a, b = 50_000, 50_700
    z = (b - a) / math.sqrt(a + b)
    assert pairs.mcnemar(a, b) == pytest.approx(2 * stats.norm.sf(z), rel=1e-3)
    assert pairs.mcnemar(0, 5000) == 0.0  # below the smallest number, not NaN
    assert pairs.mcnemar(17, 17) == 1.0
    assert pairs.mcnemar(0, 0) == 1.0


def test_published_examples() -> None:
    """Fagerland, Lydersen and Laake: airway hyper-responsiveness, 1, 1, 7, 12 of 21 children; mid-p
    0.039 (2013, table 5), Tango's interval −0.517 to −0.026 (2014)."""
    assert pairs.mcnemar(7, 1) == pytest.approx(0.039, abs=5e-4)
    low, high = pairs.tango_bounds(7, 1, 21)
    assert (float(low), float(high)) == pytest.approx((-0.517, -0.026), abs=5e-4)


def likelihood(a: int, b: int, n: int, delta: float) -> float:
    """The most likely chance of "only A" when "only B" is larger by delta, by search."""

    def minus(q: float) -> float:
        rest = 1 - 2 * q - delta
        terms = ((a, q), (b, q + delta), (n - a - b, rest))
        return -sum(k * math.log(max(p, 1e-300)) for k, p in terms if k)

    ends = (max(0.0, -delta), (1 - delta) / 2)
    return float(
        optimize.minimize_scalar(minus, bounds=ends, method="bounded", options={"xatol": 1e-12}).x
    )


@pytest.mark.parametrize(("a", "b", "n"), [(3, 10, 50), (12, 31, 400), (5, 5, 60), (9, 2, 11)])
def test_tango_inverts_the_score_test(a: int, b: int, n: int) -> None:
    for end in pairs.tango_bounds(a, b, n):
        delta = float(end)
        if abs(delta) > 1 - 1e-9:
            continue
        q = likelihood(a, b, n, delta)
        z = (b - a - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))
        assert abs(z) == pytest.approx(Z, rel=2e-3)


def test_tango_at_the_edges() -> None:
    low, high = pairs.tango_bounds([0, 0, 5], [0, 5, 0], [50, 50, 50])
    z2 = Z * Z
    assert float(high[0]) == pytest.approx(z2 / (50 + z2))  # Wilson's, for nothing of 50
    assert low.tolist() == pytest.approx((-high).tolist()[:1] + (-high).tolist()[:0:-1])
    assert low[1] > 0 > high[2]


def test_a_pair_of_networks() -> None:
    random = np.random.default_rng(0)
    a, b = random.random(300) < 0.8, random.random(300) < 0.9
    found = pairs.paired(a, b)
    assert found.both + found.only_a + found.only_b + found.neither == found.difference.n == 300
    assert found.difference.value == pytest.approx(b.mean() - a.mean())
    assert found.difference.low < found.difference.value < found.difference.high
    turned = pairs.paired(b, a).difference
    assert (turned.low, turned.high) == pytest.approx(
        (-found.difference.high, -found.difference.low), abs=1e-9
    )
    for wrong in (([1], [1, 0]), ([], [])):
        with pytest.raises(ValueError, match="equally long"):
            pairs.paired(*wrong)


def test_losses_sample_by_sample() -> None:
    random = np.random.default_rng(0)
    a = random.gamma(1.0, size=200)
    b = a + random.normal(0.05, 0.1, size=200)
    found = pairs.mean_difference(a, b)
    half = Z * (b - a).std(ddof=1) / math.sqrt(200)
    assert (found.low, found.high) == pytest.approx(((b - a).mean() - half, (b - a).mean() + half))


@pytest.mark.parametrize("sizes", [(2, 2), (3, 5), (10, 4)])
def test_over_seeds_is_welchs_test(sizes: tuple[int, int]) -> None:
    random = np.random.default_rng(sum(sizes))
    a, b = random.normal(0.9, 0.01, sizes[0]), random.normal(0.93, 0.03, sizes[1])
    found = pairs.over_seeds(a.tolist(), b.tolist())
    exact = stats.ttest_ind(b, a, equal_var=False)
    ends = exact.confidence_interval(0.95)
    assert found is not None
    assert found.p == pytest.approx(exact.pvalue, rel=1e-8)
    assert (found.difference.low, found.difference.high) == pytest.approx((ends.low, ends.high))
    assert bool(found.remark) == (min(sizes) < 5)


def test_over_few_or_equal_seeds() -> None:
    assert pairs.over_seeds([0.9], [0.8, 0.9, 0.95]) is None
    same = pairs.over_seeds([0.9, 0.9], [0.9, 0.9])
    assert same is not None
    assert same.p == 1.0
    assert "nothing is known of their spread" in same.remark


def test_student_is_that_of_scipy() -> None:
    for freedom in (1, 1.3, 2, 4.5, 11, 100, 10_000):
        assert student.quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-8)
        for t in (0.0, 0.7, -2.3, 6.0):
            exact = 2 * stats.t.sf(abs(t), freedom)
            assert student.tails(t, freedom) == pytest.approx(exact, rel=1e-6, abs=1e-10)
    with pytest.raises(ValueError, match="at least one degree"):
        student.tails(1.0, 0.5)


def test_holm() -> None:
    """By hand: 4 tests; 0.005·4, 0.011·3, 0.02·2, then 0.04·1 does not fall below 0.04."""
    assert pairs.holm([0.02, 0.005, 0.04, 0.011]) == pytest.approx([0.04, 0.02, 0.04, 0.033])
    assert pairs.holm([]) == []
    assert pairs.holm([0.9, 0.8]) == [1.0, 1.0]
