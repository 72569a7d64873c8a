"""The settings of ResNet-18 on CIFAR-10, before anybody pays for training with them."""

import pytest
import torch

from beyond_adam.data.augmentation import Crop, Flip, Rotation
from beyond_adam.experiments import resnet18_cifar10


def test_runs_are_at_paper_scale_only_and_need_a_gpu():
    assert [resnet18_cifar10.runs(profile) for profile in ("smoke", "quick")] == [{}, {}]
    assert resnet18_cifar10.NEEDS_GPU
    assert set(resnet18_cifar10.runs("paper")) == {("PAdam", 1337), ("AdamW", 1337)}


@pytest.mark.parametrize(
    ("method", "options"),
    [("PAdam", {"p": 0.8, "weight_decay": 1e-3}), ("AdamW", {"weight_decay": 1e-3})],
)
def test_settings_are_those_of_the_repository(method, options):
    run = resnet18_cifar10.runs("paper")[method, 1337]
    assert (run.data, run.epochs, run.batch, run.precision) == ("cifar10", 100, 400, "float32")
    rates = [run.schedules["lr"](epoch) for epoch in (0, 1, 2, 51, 100)]
    assert rates == pytest.approx([1e-5, 5.05e-4, 1e-3, 5.05e-4, 1e-5], rel=0.03)
    optimizer = run.build_optimizer(run.build_model(), torch.device("cpu"))
    decayed = [group for group in optimizer.param_groups if group["weight_decay"]]
    assert [len(group["params"]) for group in decayed] == [21]
    assert {name: decayed[0][name] for name in options} == options
    assert decayed[0]["betas"] == (0.9, 0.999)


def test_images_are_changed_as_in_the_repository():
    changes = resnet18_cifar10.runs("paper")["PAdam", 1337].augmentation
    assert changes == (Crop(4, reflect=True), Rotation(10), Flip(), Crop(4))
