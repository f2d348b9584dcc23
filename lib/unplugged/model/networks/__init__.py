"""The learned model: representation, dynamics and prediction as three pure functions.

Every network is the same bundle, `Model`, so nothing else knows which one it is.
"""

from unplugged.model.networks.base import MASKED, Model, Params, computed_in, masked, standardized
from unplugged.model.networks.conv import conv
from unplugged.model.networks.conv_mlp import conv_mlp
from unplugged.model.networks.layers import Convolution, convolve
from unplugged.model.networks.mlp import mlp
from unplugged.model.networks.mlp_resnet import mlp_resnet
from unplugged.model.networks.resnet import resnet

NETWORKS = {
    "mlp": mlp,
    "mlp_resnet": mlp_resnet,
    "conv": conv,
    "conv_mlp": conv_mlp,
    "resnet": resnet,
}

__all__ = [
    "MASKED", "NETWORKS", "Convolution", "Model", "Params", "computed_in", "conv", "conv_mlp",
    "convolve", "masked", "mlp", "mlp_resnet", "resnet", "standardized",
]  # fmt: skip
