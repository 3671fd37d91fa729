"""The version of the documented API, which is neither the package's nor the hooks'."""

from typing import Final

API_VERSION: Final = "3.0.0"
