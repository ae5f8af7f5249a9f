"""What tests of the native modules share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from native import black


@pytest.fixture(scope="module", params=black.targets())
def black_target(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each build of the pricing kernel that this machine runs, in turn."""
    black.select_target(request.param)
    yield request.param
    black.select_target(None)
