"""pyarrow's compute functions, which it makes when it is imported, so that no type checker sees them."""

from typing import Any

import pyarrow.compute

pc: Any = pyarrow.compute
