"""From the text feature of a name to that of its attributed form, by one linear map per attribute."""

import torch
from torch import Tensor, nn


class AttributeProjections(nn.Module):
    """Linear maps `attr_linears.0` ... (d, d), one per attribute; (N, d) to (N, attributes, d).

    Keys and shapes are those of the original's `scannet200_attribute_projection_model.ckpt`.
    """

    def __init__(self, channels: int = 512, attributes: int = 8) -> None:
        super().__init__()
        self.attr_linears = nn.ModuleList(nn.Linear(channels, channels) for _ in range(attributes))

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([linear(features) for linear in self.attr_linears], 1)

    @torch.no_grad()
    def fit(self, anchors: Tensor, ridge: float = 1e-2) -> "AttributeProjections":
        """Set the maps to the ridge regression of each form on the name; anchors (C, 1 + attributes, d).

        `ridge` (relative to the mean variance of the names) draws each map towards a plain shift of all
        names.
        """
        anchors = anchors.double()
        mean = anchors.mean(0)  # (1 + attributes, d)
        names, forms = anchors[:, 0] - mean[0], anchors[:, 1:] - mean[1:]
        gram = names.T @ names
        gram.diagonal().add_(ridge * gram.diagonal().mean())
        for k, linear in enumerate(self.attr_linears):
            change = torch.linalg.solve(gram, names.T @ (forms[:, k] - names))
            weight = change + torch.eye(len(change)).to(change)  # identity: the form differs by a shift
            linear.weight.copy_(weight.T)
            linear.bias.copy_(mean[1 + k] - mean[0] @ weight)
        return self
