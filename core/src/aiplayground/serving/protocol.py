"""What kernel and worker agree on: names, and nothing that needs a library.

The kernel imports this module, so it must stay free of imports.
"""

from __future__ import annotations

ERROR_PREFIX = "AIPG-ERROR "
"""Begins the one line of JSON on stderr in which a worker says why it gives up."""

TOKEN_VARIABLE = "AIPG_WORKER_TOKEN"
"""Environment variable with the secret that control routes ask for as a bearer token."""

PARENT_FD_VARIABLE = "AIPG_PARENT_FD"
"""Environment variable with the descriptor whose end of file means that the kernel is gone."""

LOAD_PATH = "/models/load"
UNLOAD_PATH = "/models/unload"
RELEASE_PATH = "/memory/release"
HEALTH_PATH = "/health"
METRICS_PATH = "/metrics"

OCCUPIED = "occupied"
"""`details.reason` of a refused load: the worker holds another model."""
