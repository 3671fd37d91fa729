"""Backends without Python: one TOML file that says how to run a program with the OpenAI API.

Such a file lies in the `backends` folder beside the settings file, or as `aiplayground.toml` in a
package that an entry point names and that defines no hook. The guide is `docs/manifests.md`.
"""

from __future__ import annotations

from ._backend import ManifestBackend
from ._read import InvalidManifest, load_manifest
from ._schema import Manifest

__all__ = ["InvalidManifest", "Manifest", "ManifestBackend", "load_manifest"]
