"""Print llama.cpp's devices as JSON: `python -m aiplayground_llamacpp.list_devices`.

A process of its own, since drivers of graphics cards can hang or crash who asks them.
"""

from __future__ import annotations

import json
import sys

from .backends import find_backends
from .bindings import load_bindings


def main() -> None:
    """Print a list of `[id, name, type, bytes of memory, bytes that are free]`."""
    lib = load_bindings()
    silent = lib.llama_log_callback(lambda _level, _text, _data: None)
    lib.llama_log_set(silent, None)
    lib.llama_backend_init()
    found = [[each.id, each.name, each.type, each.memory, each.free] for each in find_backends(lib)]
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
