from typing import Any

import numpy.typing as npt
from typing_extensions import Buffer

from native.publication import Publication

def flood(
    out: Publication,
    records: npt.NDArray[Any],
    begin: int,
    step: int,
    progress: Buffer | None = None,
    window: int = 0,
) -> int: ...
