"""How is transformers imported without what no model here needs?

With its models it imports the losses of object detectors, and with those, where it finds it, all of
`scipy.optimize`: more than a second of every start. So while its models are imported, it does not find it.
Import this before anything of the library that models need.
"""

from __future__ import annotations

import importlib
from typing import Any

_utils: Any = importlib.import_module("transformers.utils")
_found = _utils.is_scipy_available
_utils.is_scipy_available = lambda: False
try:
    importlib.import_module("transformers.modeling_utils")
finally:
    _utils.is_scipy_available = _found
