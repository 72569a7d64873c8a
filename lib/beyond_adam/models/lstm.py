"""The recurrent network that HyperAdam is tested on."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class LSTM(nn.Module):
    """Layers of LSTM cells, and an affine map of what the last cell of the last layer puts out.

    Each gate has one bias. `torch.nn.LSTM` adds two, which doubles the step of their sum under an
    optimizer; so its own are off, and a column of ones is appended to the input of each layer.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.LSTM((hidden if layer else inputs) + 1, hidden, bias=False, batch_first=True)
            for layer in range(layers)
        )
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map sequences (batch, length, inputs) to (batch, outputs)."""
        for layer in self.layers:
            x, _ = layer(functional.pad(x, (0, 1), value=1.0))
        last: Tensor = self.head(x[:, -1])
        return last


def lstm(inputs: int = 1, outputs: int = 1, hidden: int = 20, layers: int = 1) -> LSTM:
    """Return the LSTM of HyperAdam's sequence prediction (paper, Table 2).

    It reads ten noisy samples of a sine wave and predicts its next value: 20 hidden units, forget
    gates without an offset, an affine head. One layer has 1 781 parameters, two have 5 061.

    Parameters
    ----------
    inputs
        Numbers at each place of the sequence, at least 1.
    outputs
        Numbers to predict, at least 1.
    hidden
        Units in each layer, at least 1.
    layers
        Number of layers, at least 1.

    Returns
    -------
    LSTM
        Maps sequences (batch, length, inputs) to (batch, outputs). All parameters are normal with
        standard deviation 0.1, as in the paper's experiments, drawn from torch's global generator.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    S. Wang, J. Sun and Z. Xu, HyperAdam: a learnable task-adaptive Adam for network training,
    AAAI 2019.
    """
    sizes = {"inputs": inputs, "outputs": outputs, "hidden": hidden, "layers": layers}
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    model = LSTM(inputs, outputs, hidden, layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model
