"""The experiments of the chapters on proximal operators and on the Λ_p identity."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from beyond_adam import prox
from beyond_adam.data import diabetes
from beyond_adam.experiments import (
    adiabatic_descent,
    higgs,
    prox_accuracy,
    proximal_rates,
    regression_paths,
)
from beyond_adam.numerical import central_difference


class TestBruteForce:
    def test_finds_what_a_scalar_minimiser_finds(self):
        z = np.array([-3.0, -0.4, 0.7, 2.0])
        found, margin = prox_accuracy.brute_force(
            lambda u: np.log1p(u**2), lambda u: 2 * u / (1 + u**2), z
        )
        for one, right in zip(z, found, strict=True):
            search = minimize_scalar(
                lambda u, one=one: np.log1p(u**2) + 0.5 * (u - one) ** 2,
                bounds=(min(one, 0), max(one, 0)),
                method="bounded",
                options={"xatol": 1e-12},
            )
            assert right == pytest.approx(search.x, abs=1e-7)
        assert (margin > 0).all()

    def test_sees_a_tie(self):
        threshold, jump = prox.lp_threshold(1.0, 0.5)
        _, margin = prox_accuracy.brute_force(
            np.sqrt, lambda u: 0.5 / np.sqrt(u), np.array([threshold, 2 * threshold])
        )
        assert margin[0] < 1e-14 < margin[1]
        assert jump == pytest.approx(1)

    def test_notices_an_operator_that_is_wrong(self, monkeypatch):
        right = prox_accuracy.run("smoke")["accuracy"].set_index("operator")["error"]
        assert (right < 1e-12).all()
        monkeypatch.setattr(
            prox, "prox_lp", lambda z, strength, _: (1 + 1e-8) * prox.prox_l1(z, strength)
        )
        wrong = prox_accuracy.run("smoke")["accuracy"].set_index("operator")["error"]
        assert (wrong[["Lp, p = 0.5", "Lp, p = 1", "Lp, p = 1.5"]] > 1e-9).sum() >= 2


class TestHiggs:
    def test_the_landscape_has_the_derivatives_it_says(self):
        points = np.random.default_rng(0).normal(size=(20, 2))
        gradient = central_difference(higgs.HIGGS.value, points)
        np.testing.assert_allclose(higgs.HIGGS.gradient(points), gradient, atol=1e-8)
        rows = [
            central_difference(lambda w, i=i: higgs.HIGGS.gradient(w)[..., i], points)
            for i in (0, 1)
        ]
        np.testing.assert_allclose(higgs.HIGGS.hessian(points), np.stack(rows, 1), atol=1e-7)

    def test_the_runs_are_those_of_the_published_figure(self):
        runs = higgs.run("quick")["runs"]
        end = runs[runs["step"] == 20].set_index("run")[["w1", "w2"]]
        np.testing.assert_allclose(end.loc["unregularised"], [0.74329, 0.66896], atol=5e-6)
        np.testing.assert_allclose(end.loc["p = 1/2"], [0.96654, 0.07282], atol=5e-6)
        np.testing.assert_allclose(end.loc["p = 1"], [0.89169, 0.26872], atol=5e-6)

    def test_the_objective_falls_in_every_step(self):
        # η = 0.7 is below 2/L on the way: L is at most 2.1 there.
        runs = higgs.run("quick")["runs"]
        for _, run in runs.groupby("run"):
            assert (np.diff(run["objective"]) <= 1e-15).all()

    def test_s_at_rate_one_is_the_adiabatic_limit(self):
        best = prox.optimal_s(np.array(higgs.START), 0.5)
        np.testing.assert_allclose(
            higgs.descend_with_s(0.5, 0.1, 1.0, best), higgs.descend(0.5, 0.1), atol=1e-13
        )

    def test_slow_s_starts_as_weight_decay(self):
        first = higgs.descend_with_s(0.5, 0.1, 0.1, np.ones(2), steps=1)[1]
        start = np.array(higgs.START)
        moved = start - 0.7 * higgs.HIGGS.gradient(start)
        np.testing.assert_allclose(first, moved / (1 + 0.7 * 0.5 * 0.1))


class TestDescent:
    def test_the_losses_have_largest_curvature_one(self):
        matrix, centre, strength = adiabatic_descent.losses(50)
        curvature = np.linalg.eigvalsh(matrix)
        np.testing.assert_allclose(curvature[:, -1], 1)
        assert curvature.min() > 0.009
        assert centre.shape == (50, 6)
        assert ((strength >= 1e-3) & (strength <= 1)).all()

    def test_it_falls_below_two_over_l_and_not_above(self):
        table = adiabatic_descent.run("smoke")["descent"]
        assert (table.loc[table["rate"] < 2, "rising"] == 0).all()
        assert (table.loc[table["rate"] > 2, "rising"] > 0.2).all()


class TestRates:
    def test_the_columns_are_standardised_and_none_is_there_twice(self):
        x, y = proximal_rates.expanded()
        assert x.shape == (442, 64)
        np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-14)
        np.testing.assert_allclose(np.mean(x**2, axis=0), 1)
        assert np.linalg.matrix_rank(x) == 64
        assert len(y) == 442

    def test_the_problem_is_the_lasso_of_scikit_learn(self):
        from sklearn.linear_model import Lasso

        x, y = proximal_rates.expanded()
        problem = proximal_rates.lasso(x, y, 2.0)
        w = np.random.default_rng(0).normal(size=64)
        np.testing.assert_allclose(
            problem.gradient(w), central_difference(lambda p: problem.value(p), w, 1e-4), rtol=1e-6
        )
        theirs = Lasso(alpha=2.0, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(x, y).coef_
        ours = prox.fista(problem, np.zeros(64), tolerance=1e-10, max_steps=50_000)
        assert problem.objective(ours.x) == pytest.approx(problem.objective(theirs), rel=1e-10)

    def test_every_gap_is_below_its_bound(self):
        tables = proximal_rates.run("smoke")
        proved = tables["rates"].dropna()
        assert set(proved["method"]) == {"ISTA", "FISTA"}
        assert (proved["gap"] <= proved["bound"]).all()
        assert (tables["rates"]["gap"] >= -1e-9).all()


class TestPaths:
    @pytest.fixture
    def normal(self):
        study = diabetes()
        return study.features.T @ study.features / 442, study.features.T @ study.target / 442

    def test_above_the_largest_strength_no_coefficient_alone_pays(self, normal):
        gram, correlation = normal
        for p in (0.5, 0.8, 1.0):
            edge = regression_paths.largest_strength(correlation, p)
            alone = np.diag(prox.prox_lp(correlation, 0.9999 * edge, p))
            batch = np.broadcast_to(gram, (10, 10, 10)), np.broadcast_to(correlation, (10, 10))
            assert regression_paths.objective(*batch, alone, 0.9999 * edge, p).min() < 0
            assert not prox.prox_lp(correlation, 1.0001 * edge, p).any()

    def test_the_lasso_is_that_of_scikit_learn(self, normal):
        from sklearn.linear_model import lasso_path

        study, strengths = diabetes(), np.array([20.0, 1.0])
        found = regression_paths.path(*normal, strengths, 1.0)
        _, theirs, _ = lasso_path(study.features, study.target, alphas=strengths, tol=1e-14)
        np.testing.assert_allclose(found, theirs.T, atol=1e-6)

    def test_every_subset_has_its_least_squares(self, normal):
        study = diabetes()
        found = regression_paths.every_subset(*normal)
        assert found.shape == (1024, 10)
        chosen = np.array([0, 2, 8])
        right = np.linalg.lstsq(study.features[:, chosen], study.target)[0]
        one = found[1 + 4 + 256]
        np.testing.assert_allclose(one[chosen], right)
        assert np.count_nonzero(one) == 3

    def test_coordinate_descent_solves_the_lasso_too(self, normal, monkeypatch):
        monkeypatch.setattr(regression_paths, "SWEEPS", 1000)
        batch = normal[0][None], normal[1][None]
        start = np.zeros((1, 10))
        ours = regression_paths.coordinate_descent(*batch, 5.0, 1.0, start)
        fista = regression_paths.local_search(*batch, 5.0, 1.0, start)
        np.testing.assert_allclose(ours, fista, atol=1e-6)

    def test_many_starts_beat_two(self, normal):
        batch = normal[0][None], normal[1][None]
        strengths = np.geomspace(50, 5, 4)
        best = regression_paths.path(*normal, strengths, 0.5)
        least_squares = np.linalg.solve(*normal)[None]
        for strength, found in zip(strengths, best, strict=True):
            own = regression_paths.objective(*batch, found[None], strength, 0.5)
            for start in (np.zeros((1, 10)), least_squares):
                other = regression_paths.local_search(*batch, strength, 0.5, start)
                assert own <= regression_paths.objective(*batch, other, strength, 0.5) + 1e-9

    def test_a_search_that_does_not_settle_is_loud(self, normal, monkeypatch):
        monkeypatch.setattr(regression_paths, "MAX_STEPS", 3)
        with pytest.raises(ValueError, match=r"3 steps at p=0\.5, strength=1\.0"):
            regression_paths.local_search(
                normal[0][None], normal[1][None], 1.0, 0.5, np.ones((1, 10))
            )

    def test_the_tables_are_complete(self):
        tables = regression_paths.run("smoke")
        paths, folds = tables["paths"], tables["folds"]
        assert set(paths["p"]) == {1.0, 0.8, 0.5}
        assert (paths.groupby("p").size() == 6 * 10).all()
        assert (folds.groupby("p").size() == 2 * regression_paths.FOLDS).all()
        # With nothing in the model the mean is predicted.
        empty = folds[folds["nonzero"] == 0]
        assert len(empty)
        np.testing.assert_allclose(empty["error"], 1)
