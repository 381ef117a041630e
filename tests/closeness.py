"""How close to the truth a result of floating-point sums has to be."""

import torch


def assert_close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    """Relative error, direction, and no preferred sign of the error."""
    assert found.shape == wanted.shape
    found, wanted = found.double().flatten(), wanted.double().flatten()
    error = found - wanted
    assert error.norm() <= tolerance * wanted.norm()
    if wanted.norm() > 0:
        assert torch.cosine_similarity(found, wanted, 0, eps=0) > 1 - tolerance
    assert error.mean().abs() <= tolerance * wanted.abs().mean()
