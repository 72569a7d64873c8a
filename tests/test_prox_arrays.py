import math

import numpy as np
import pytest
import torch

from beyond_adam.prox import prox_l1
from beyond_adam.prox._arrays import checked_p, checked_strength, working

KINDS = [np.asarray, torch.tensor]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_full_precision_is_worked_in_as_it_is(dtype):
    array = np.ones(3, dtype)
    xp, z, restore = working(array)
    assert xp is np
    assert z is array
    assert restore(z) is array

    tensor = torch.from_numpy(array)
    xp, z, restore = working(tensor)
    assert xp is torch
    assert z is tensor
    assert restore(z) is tensor


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tensors_are_worked_in_as_float32(dtype):
    _, z, restore = working(torch.ones(3, dtype=dtype))
    assert z.dtype == torch.float32
    third = restore(z / 3)
    assert third.dtype == dtype
    assert torch.equal(third, torch.full((3,), 1 / 3).to(dtype))


def test_half_precision_arrays_are_worked_in_as_float32():
    _, z, restore = working(np.ones(3, np.float16))
    assert z.dtype == np.float32
    third = restore(z / 3)
    assert third.dtype == np.float16
    assert (third == np.float16(1 / 3)).all()


def test_integers_become_and_stay_the_default_floating_type():
    for integers in (np.arange(3), np.array([True, False]), [1, 2], 3):
        _, z, restore = working(integers)
        assert restore(z).dtype == np.float64
    for dtype in (torch.int64, torch.uint8, torch.bool):
        _, z, restore = working(torch.ones(2, dtype=dtype))
        assert restore(z).dtype == torch.get_default_dtype()


def test_gradients_pass_through_half_precision():
    x = torch.tensor([1.0, 2.0], dtype=torch.bfloat16, requires_grad=True)
    _, z, restore = working(x)
    restore(3 * z).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (torch.ones(2, dtype=torch.complex64), "torch.complex64"),
        (np.ones(2, complex), "complex128"),
        (np.array(["a"]), "<U1"),
        (np.array([None]), "object"),
        ("a", "<U1"),
        (np.array(["2020-01-01"], "datetime64[D]"), "datetime64"),
    ],
)
def test_what_is_no_array_of_real_numbers_is_refused(bad, named):
    with pytest.raises(TypeError, match=f"w must be .*real.*{named}"):
        working(bad, "w")


@pytest.mark.parametrize("number", [0, 2, 0.5, np.float32(0.5), np.int64(3), 1e38])
def test_a_number_as_strength_becomes_a_float(number):
    for like in (np.ones(2, np.float32), torch.ones(2)):
        strength = checked_strength(number, like)
        assert type(strength) is float
        assert strength == number


def test_a_number_beyond_the_precision_becomes_its_largest():
    assert checked_strength(1e300, np.ones(2, np.float32)) == float(np.finfo(np.float32).max)
    assert checked_strength(1e300, torch.ones(2)) == torch.finfo(torch.float32).max
    assert checked_strength(1e300, np.ones(2)) == 1e300
    assert not prox_l1(torch.ones(2), 1e300).any()


def test_an_array_as_strength_takes_the_type_of_the_input():
    assert checked_strength(np.ones(2), np.ones(2, np.float32)).dtype == np.float32
    assert checked_strength(np.arange(2), np.ones(2, np.float32)).dtype == np.float32
    assert checked_strength(torch.ones(2, dtype=torch.float64), torch.ones(2)).dtype == (
        torch.float32
    )
    assert checked_strength(torch.tensor(1), torch.ones(2)).dtype == torch.float32
    assert checked_strength(np.array(0.5), np.ones(2)) == 0.5


@pytest.mark.parametrize("bad", [-1.0, -1e-300, math.inf, -math.inf, math.nan, np.float32(-1)])
def test_a_bad_number_as_strength_is_named(bad):
    with pytest.raises(ValueError, match=rf"l1 must be finite and not negative, not {bad}$"):
        checked_strength(bad, np.ones(2), "l1")


@pytest.mark.parametrize("array", KINDS)
@pytest.mark.parametrize("bad", [-2.0, math.inf, math.nan])
def test_the_first_bad_entry_of_a_strength_is_named(array, bad):
    for strength in ([1.0, bad, -7.0], [[0.0], [bad]], bad):
        with pytest.raises(
            ValueError, match=rf"strength must be finite and not negative, not {bad}$"
        ):
            checked_strength(array(strength), array([1.0]))


def test_a_strength_of_another_kind_than_the_input_is_refused():
    with pytest.raises(TypeError, match="like the input, a ndarray, not a Tensor"):
        checked_strength(torch.ones(2), np.ones(2))
    with pytest.raises(TypeError, match="like the input, a Tensor, not a ndarray"):
        checked_strength(np.ones(2), torch.ones(2))
    for wrong in ("1", None, [1.0], 1j):
        with pytest.raises(TypeError, match=f"not a {type(wrong).__name__}"):
            checked_strength(wrong, np.ones(2))


def test_an_exponent_must_lie_inside_its_interval():
    assert checked_p(1) == 1.0
    assert type(checked_p(1)) is float
    assert checked_p(0.5, 0.0, 1.0) == 0.5
    for bad in (0, 2, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"between 0 and 2, exclusive, not {bad}$"):
            checked_p(bad)
    with pytest.raises(ValueError, match=r"between 1 and 2.5, exclusive, not 2.5$"):
        checked_p(2.5, 1, 2.5)
