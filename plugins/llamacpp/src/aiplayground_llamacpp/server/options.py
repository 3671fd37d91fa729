"""The settings of one model: what is set for it alone takes the place of what holds for all."""

from __future__ import annotations

from aiplayground_llamacpp.settings import ModelOptions, Settings


def settings_for(settings: Settings, name: str) -> tuple[Settings, ModelOptions]:
    """Return the settings with which the model of this name runs, and its own options."""
    own = settings.models.get(name, ModelOptions())
    told = {
        field: value
        for field in ("context_size", "gpu_layers", "chat_template")
        if (value := getattr(own, field)) is not None
    }
    return settings.model_copy(update=told), own
