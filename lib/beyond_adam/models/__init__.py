"""Models: some small enough to look inside, and those of the experiments at paper scale.

`mlp` has a seed of its own, and `digits_problem` makes a `PointwiseCNN`, a loss surface to draw
rather than a torch module. The others draw a float32 model from torch's global generator.
"""

from beyond_adam.models.cnn import fashion_cnn
from beyond_adam.models.lstm import LSTM, lstm
from beyond_adam.models.mlp import image_mlp, mlp
from beyond_adam.models.pointwise_cnn import PointwiseCNN, Valley, digits_problem
from beyond_adam.models.resnet import padam_wide_resnet, resnet18, resnet20, wide_resnet
from beyond_adam.models.slim import slim
from beyond_adam.models.vgg import vgg16_bn

__all__ = [
    "LSTM",
    "PointwiseCNN",
    "Valley",
    "digits_problem",
    "fashion_cnn",
    "image_mlp",
    "lstm",
    "mlp",
    "padam_wide_resnet",
    "resnet18",
    "resnet20",
    "slim",
    "vgg16_bn",
    "wide_resnet",
]
