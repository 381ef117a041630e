"""Small coarse rooms, made once."""

import pytest

from lground.synth import make_scene


@pytest.fixture(scope="session")
def scenes():
    """Twelve rooms of data set 3, vertices 5 cm apart."""
    return [make_scene(3, index, size="small", spacing=0.05) for index in range(12)]
