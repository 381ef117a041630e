"""From the text feature of a name to that of its attributed form, by one linear map per attribute."""

import torch
from torch import Tensor, nn

from lground.losses.common import in_float32


def draw_attributes(
    labels: Tensor,
    classes: Tensor,
    num_classes: int,
    probability: float = 0.5,
    attributes: int = 8,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw for each of `classes` (K,) with `probability` one attribute 1 to `attributes`, else 0, the plain name.

    labels (N,); returns (N,) int64, the same for all points of a class, 0 for other classes and ignored points.
    """
    device = generator.device if generator is not None else labels.device
    changed = torch.rand(len(classes), generator=generator, device=device) < probability
    drawn = torch.randint(1, attributes + 1, (len(classes),), generator=generator, device=device)
    table = labels.new_zeros(num_classes + 1)  # the last one is for ignored points
    table[classes] = (changed * drawn).to(labels.device)
    return table[labels]


class AttributeProjections(nn.Module):
    """Linear maps `attr_linears.0` ... (d, d), one per attribute; (N, d) to (N, attributes, d).

    Keys and shapes are those of the original's `scannet200_attribute_projection_model.ckpt`.
    """

    def __init__(self, channels: int = 512, attributes: int = 8) -> None:
        super().__init__()
        self.attr_linears = nn.ModuleList(nn.Linear(channels, channels) for _ in range(attributes))

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([linear(features) for linear in self.attr_linears], 1)

    @in_float32
    def attribute(self, features: Tensor, attributes: Tensor) -> Tensor:
        """Features (N, d), each through the map of its attribute (N,) 1 to 8, or as it is where that is 0."""
        rows = [(attributes == k).nonzero()[:, 0] for k in range(1, len(self.attr_linears) + 1)]
        mapped = [linear(features[r]) for linear, r in zip(self.attr_linears, rows, strict=True)]
        return features.index_copy(0, torch.cat(rows), torch.cat(mapped))

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
