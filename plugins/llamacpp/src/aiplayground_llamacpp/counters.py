"""What the engine has done so far, for metrics."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Counters:
    """Sums since the model was loaded; times are in seconds, sizes in bytes.

    `prompt_tokens` were computed, `cached_tokens` were found in memory and `restored_tokens` of
    these in the prompt cache. `put_off` counts answers that had to make room for others.
    `slots_busy` is how many are at work now.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    restored_tokens: int = 0
    answer_tokens: int = 0
    steps: int = 0
    batches: int = 0
    put_off: int = 0
    slots_busy: int = 0
    step_seconds: float = 0.0
    decode_seconds: float = 0.0
    choose_seconds: float = 0.0
    prompt_cache_entries: int = 0
    prompt_cache_bytes: int = 0

    def figures(self) -> dict[str, float]:
        """Return all of them by name."""
        return asdict(self)
