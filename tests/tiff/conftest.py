"""Fixtures for header tests: what GDAL reports on the real files, and TIFFs with chosen tags."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile


@pytest.fixture(scope="session")
def truth(data: Path) -> dict[str, dict[str, Any]]:
    """GDAL's report on each real file, by its path under the data folder."""
    return json.loads((data / "truth.json").read_text())["files"]


@pytest.fixture(scope="session")
def tiff_with() -> Callable[..., bytes]:
    """Write an 8 x 8 TIFF with extra tags ``(number, type, count, value)``."""

    def write(*tags: tuple[int, str, int, object], dtype: str = "uint8", **options: Any) -> bytes:
        file = io.BytesIO()
        extra = [(*tag, True) for tag in tags]
        with tifffile.TiffWriter(
            file,
            bigtiff=options.pop("bigtiff", False),
            byteorder=options.pop("byteorder", "<"),
        ) as writer:
            pixels = np.zeros(options.pop("shape", (8, 8)), dtype)
            writer.write(pixels, extratags=extra, metadata=None, **options)
        return file.getvalue()

    return write
