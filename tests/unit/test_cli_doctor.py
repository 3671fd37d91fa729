from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aiplayground import _hook_api
from aiplayground._loader import load_plugins
from aiplayground.cli._app import App
from aiplayground.cli._checks import (
    Finding,
    Verdict,
    check_folders,
    check_machine,
    check_plugins,
    check_settings,
)
from aiplayground.cli._engine_checks import _judge, check_models, choose_model
from aiplayground.hookspecs import hookimpl
from aiplayground.paths import Paths
from aiplayground.specs import BackendSpec
from aiplayground.types import ModelInfo


def _verdicts(findings: list[Finding]) -> dict[str, Verdict]:
    return {each.check: each.verdict for each in findings}


def _model(name: str, size: int | None = None, **more: object) -> ModelInfo:
    return ModelInfo.model_validate({"name": name, "size": size, "service": "e", **more})


@pytest.mark.parametrize(
    ("models", "chosen"),
    [
        ([], None),
        ([_model("big", 9), _model("guide", 99), _model("small", 5)], "guide"),
        ([_model("big", 9), _model("unknown"), _model("small", 5)], "small"),
        ([_model("base", 1, chat=False), _model("talks", 5)], "talks"),
        ([_model("base", 1, chat=False)], "base"),
        ([_model("words", 1, type="embedding")], None),
        ([_model("guide", 1, service="other")], None),
    ],
)
def test_an_engine_is_asked_with_the_guide_or_its_smallest(
    models: list[ModelInfo], chosen: str | None
) -> None:
    model = choose_model(models, "e")
    assert (model.name if model else None) == chosen


@pytest.mark.parametrize(
    ("paths", "mentioned"),
    [(["/pack/guide.gguf"], True), (["/pack/guide.gguf", "/own.gguf"], False)],
)
async def test_starter_models_are_mentioned_where_only_the_guide_is(
    paths: list[str], mentioned: bool
) -> None:
    async def models() -> list[ModelInfo]:
        return [_model("m", path=path) for path in paths]

    async def problems() -> tuple[()]:
        return ()

    packs = SimpleNamespace(packs=(Path("/pack/guide.gguf"),))
    kernel: Any = SimpleNamespace(models=models, model_problems=problems, library=packs)
    (finding,) = [each async for each in check_models(kernel)]
    assert finding.verdict is Verdict.OK
    assert ("aipg models suggest" in finding.advice) == mentioned


def test_speed_is_counted_from_the_first_token() -> None:
    finding = _judge("engine e", "m", "a b c", [0.5, 0.6, 0.7], 0)
    assert finding.verdict is Verdict.OK
    assert finding.details["firstTokenSeconds"] == 0.5
    assert finding.details["tokensPerSecond"] == pytest.approx(10)
    assert _judge("engine e", "m", "a", [0.5], 1).details["tokensPerSecond"] is None


def test_an_empty_answer_is_a_failure() -> None:
    assert _judge("engine e", "m", "", [], 0).verdict is Verdict.FAIL


def test_a_healthy_home_is_fine(tmp_path: Path) -> None:
    findings = list(check_folders(Paths.resolve(tmp_path)))
    assert _verdicts(findings)["folders"] is Verdict.OK
    assert str(tmp_path / "logs") in findings[-1].message
    assert _verdicts(list(check_machine()))["program"] is Verdict.OK


def test_a_home_that_cannot_be_used_is_explained(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file in the way")
    (finding,) = check_folders(Paths.resolve(tmp_path / "home"))
    assert finding.verdict is Verdict.FAIL
    assert "move the file away" in finding.message.lower()


def test_settings_are_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIPG_PLUGINS__ALLOW", "[]")
    app = App(home=str(tmp_path))
    assert [each.verdict for each in check_settings(app)] == [Verdict.OK]
    file = tmp_path / "config" / "config.toml"
    file.parent.mkdir()
    file.write_text("[services.gone-backend]\nport = 5\n")
    (unknown,) = check_settings(app)
    assert unknown.verdict is Verdict.WARN
    assert "gone-backend" in unknown.message
    file.write_text("[residency]\nmax_modles = 5\n")
    (wrong,) = check_settings(app)
    assert wrong.verdict is Verdict.FAIL
    assert "max_models" in wrong.message


class _Backend:
    @hookimpl
    def backend(self) -> BackendSpec:
        return BackendSpec(name="e", title="E")

    @hookimpl
    def register_commands(self) -> dict[str, str]:
        raise ValueError("no commands today")


def test_plugins_are_judged_one_by_one() -> None:
    plugins = load_plugins([("good", _Backend()), ("bad", object())], discover=False)
    findings = list(check_plugins(plugins))
    text = " ".join(each.message for each in findings if each.verdict is Verdict.FAIL)
    assert "bad" in text
    assert "no commands today" in text
    assert findings[-1].message == "good"


def test_no_backend_is_a_failure_with_a_next_step() -> None:
    (finding,) = check_plugins(load_plugins(discover=False))
    assert finding.verdict is Verdict.FAIL
    assert "pip install" in finding.advice


def test_what_the_author_of_a_plugin_should_know_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_hook_api, "HOOK_API", 2)
    plugins = load_plugins([("old", _Backend())], discover=False)
    (warning,) = [each for each in check_plugins(plugins) if each.verdict is Verdict.WARN]
    assert "built for hook API 1 and runs with 2" in warning.message


async def test_models_that_no_engine_runs_are_not_taken_for_none() -> None:
    async def nothing() -> list[Any]:
        return []

    async def scan() -> Any:
        return SimpleNamespace(models=[SimpleNamespace(name="guide"), SimpleNamespace(name="mine")])

    kernel: Any = SimpleNamespace(
        models=nothing, model_problems=nothing, library=SimpleNamespace(scan=scan)
    )
    (found,) = [each async for each in check_models(kernel)]
    assert found.verdict is Verdict.WARN
    assert found.message.endswith("can run what is here: guide, mine")
