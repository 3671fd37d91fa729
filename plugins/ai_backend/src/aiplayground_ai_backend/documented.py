"""The routes of the program's documented REST API that are not OpenAI's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiplayground.errors import InvalidParameters, ServiceNotAvailable
from aiplayground.serving.wire import parse_object

from .version import API_VERSION

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel
    from aiplayground.types import ModelInfo

    from .exchange import Exchange

ABSENT = {
    "/api/downloadModel": ("downloads of models", "aiplayground-models"),
    "/api/comfyUi/checkWorkflowRequirements": ("ComfyUI", "aiplayground-comfyui"),
    "/api/comfyUi/installCustomNode": ("ComfyUI", "aiplayground-comfyui"),
    "/api/comfyUi/installPythonPackage": ("ComfyUI", "aiplayground-comfyui"),
}
"""Documented routes that a plugin brings: what it is for, and the package that has it."""


async def healthy(exchange: Exchange) -> None:
    """`GET /healthy`."""
    await exchange.reply_json(200, {"status": "ok", "version": API_VERSION})


async def check_model_loaded(kernel: Kernel, exchange: Exchange) -> None:
    """`POST /api/checkModelAlreadyLoaded`."""
    repo, filename = _asked(parse_object(await exchange.body()))
    found = [each for each in await kernel.models() if _is_it(each, repo, filename)]
    model = min(found, key=lambda each: _distance(each, repo), default=None)
    loaded = bool(model and model.loaded)
    data: dict[str, Any] = {"loaded": loaded}
    if model is not None:
        data["path"] = model.path
    await exchange.reply_json(200, {"code": 0, "message": "success", "data": data})


def _asked(fields: dict[str, Any]) -> tuple[str, str]:
    data = fields.get("data")
    if not isinstance(data, dict):
        raise InvalidParameters("'data' must be an object.", details={"field": "data"})
    repo, filename = data.get("repo", ""), data.get("filename", "")
    if not (isinstance(repo, str) and isinstance(filename, str) and (repo or filename)):
        raise InvalidParameters(
            "'data' needs 'repo' or 'filename', as text.", details={"field": "data.repo"}
        )
    return repo, filename


def _is_it(model: ModelInfo, repo: str, filename: str) -> bool:
    """Whether a model is the file of a repository, by the file's name or else the repository's."""
    path = model.path.replace("\\", "/")
    if filename:
        return path.endswith(f"/{filename}") or model.name == filename.removesuffix(".gguf")
    return model.name in (repo, repo.rpartition("/")[2])


def _distance(model: ModelInfo, repo: str) -> tuple[bool, bool]:
    """Order files of one name: the one in its repository's folder, then one that is in memory."""
    own = bool(repo) and f"/{repo}/" in model.path.replace("\\", "/")
    return not own, not model.loaded


def absent(path: str) -> ServiceNotAvailable:
    """Return the answer to a documented route whose plugin is not installed."""
    what, package = ABSENT[path]
    return ServiceNotAvailable(
        f"{path} needs the plugin for {what}, which is not installed. Run: pip install {package}",
        details={"path": path, "package": package},
    )
