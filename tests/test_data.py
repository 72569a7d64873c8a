import hashlib
import sys

import numpy as np
import pytest

from beyond_adam.data import DIABETES_SHA256, DIGITS_SHA256, diabetes, digits


def test_the_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    data, bunch = digits(), load_digits()
    assert data.images.dtype == np.uint8
    assert data.labels.dtype == np.int64
    np.testing.assert_array_equal(data.images, bunch.images)
    np.testing.assert_array_equal(data.labels, bunch.target)
    assert data.images.shape == (1797, 8, 8)
    assert data.images.max() == 16


def test_the_fingerprint_is_that_of_the_content():
    data = digits()
    content = data.images.tobytes() + data.labels.astype("<i8").tobytes()
    assert data.fingerprint == hashlib.sha256(content).hexdigest()
    assert data.fingerprint == DIGITS_SHA256


def test_other_digits_are_refused(monkeypatch):
    from sklearn import datasets

    altered = datasets.load_digits()
    altered.images[0, 0, 0] += 1
    monkeypatch.setattr(datasets, "load_digits", lambda: altered)
    with pytest.raises(ValueError, match="digits is not the book's"):
        digits()


def test_the_split_is_fixed_complete_and_has_every_digit():
    data = digits()
    assert (len(data.train), len(data.test)) == (1437, 360)
    np.testing.assert_array_equal(np.sort(np.concatenate([data.train, data.test])), range(1797))
    assert np.bincount(data.labels[data.test], minlength=10).min() == 27
    assert data.train[:5].tolist() == [855, 921, 269, 1185, 11]
    assert data.test[:5].tolist() == [1303, 307, 4, 244, 929]


def test_every_call_returns_arrays_of_its_own():
    digits().images[:] = 0
    assert digits().images.max() == 16


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r'pip install "beyond-adam\[book\]"'):
        digits()


def test_the_diabetes_study_is_that_of_scikit_learn_standardised():
    from sklearn.datasets import load_diabetes

    data, bunch = diabetes(), load_diabetes()
    assert data.features.shape == (442, 10)
    assert data.names == ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
    assert data.fingerprint == DIABETES_SHA256
    # scikit-learn scales its columns to sum of squares 1 instead.
    np.testing.assert_allclose(data.features / np.sqrt(442), bunch.data, atol=1e-14)
    np.testing.assert_allclose(data.target, bunch.target - bunch.target.mean(), atol=1e-12)


def test_the_patients_are_split_four_to_one():
    data = diabetes()
    assert (len(data.train), len(data.test)) == (353, 89)
    np.testing.assert_array_equal(np.sort(np.concatenate([data.train, data.test])), range(442))
    assert data.train[:3].tolist() == [269, 11, 403]


def test_another_diabetes_study_is_refused(monkeypatch):
    from sklearn import datasets

    altered = datasets.load_diabetes(scaled=False)
    altered.target[0] += 1
    monkeypatch.setattr(datasets, "load_diabetes", lambda **_: altered)
    with pytest.raises(ValueError, match="diabetes study is not the book's"):
        diabetes()
