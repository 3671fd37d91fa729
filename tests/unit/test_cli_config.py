from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiplayground.cli import main


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIPG_HOME", str(tmp_path))
    monkeypatch.setenv("AIPG_PLUGINS__ALLOW", "[]")


def _run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(["config", *args])
    printed = capsys.readouterr()
    return code, printed.out.strip(), printed.err.strip()


def test_a_setting_goes_round(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "config" / "config.toml"
    assert _run(capsys, "path") == (0, str(file), "")
    assert _run(capsys, "get", "models.default") == (0, "", "")
    assert _run(capsys, "set", "models.default", "guide")[0] == 0
    assert file.read_text() == '[models]\ndefault = "guide"\n'
    assert _run(capsys, "get", "models.default") == (0, "guide", "")
    row = json.loads(_run(capsys, "get", "models.default", "--json")[1])
    assert (row["value"], row["default"]) == ("guide", None)
    assert row["origin"] == f"{file}, line 2"
    assert "models.default" in _run(capsys, "list", "--changed")[1]
    assert _run(capsys, "unset", "models.default")[0] == 0
    assert _run(capsys, "get", "models.default")[1] == ""


def test_lists_and_numbers_are_written_as_they_are_typed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _run(capsys, "set", "residency.pinned", "a,b")[0] == 0
    assert _run(capsys, "get", "residency.pinned")[1] == '["a", "b"]'
    assert _run(capsys, "set", "residency.max_models", "3", "--json")[0] == 0
    assert _run(capsys, "get", "residency.max_models")[1] == "3"


def test_a_value_that_looks_like_an_option_is_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = _run(capsys, "set", "residency.max_models", "-1")
    assert (code, out) == (1, "")
    assert "residency.max_models" in err
    assert "option" not in err


@pytest.mark.parametrize("action", [["get"], ["set"]])
def test_a_wrong_key_gets_a_suggestion(
    action: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    value = ["5"] if action == ["set"] else []
    code, out, err = _run(capsys, *action, "residency.idle_timout", *value)
    assert (code, out) == (1, "")
    assert "idle_timeout'?" in err


def test_a_table_is_no_setting_but_its_keys_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = _run(capsys, "get", "residency")
    assert code == 1
    assert "residency.idle_timeout" in err


def test_a_file_with_a_mistake_can_be_mended(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "config" / "config.toml"
    file.parent.mkdir()
    file.write_text('[residency]\nmax_models = "many"\n')
    code, _, err = _run(capsys, "list")
    assert code == 1
    assert "line 2" in err
    assert _run(capsys, "set", "residency.max_models", "4")[0] == 0
    assert _run(capsys, "get", "residency.max_models")[1] == "4"


def test_a_variable_that_hides_the_file_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIPG_RESIDENCY__MAX_MODELS", "7")
    code, _, err = _run(capsys, "set", "residency.max_models", "4")
    assert code == 0
    assert "AIPG_RESIDENCY__MAX_MODELS" in err


def test_every_setting_is_listed_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(_run(capsys, "list", "--json")[1])
    assert len(rows) > 20
    assert all(row["description"] for row in rows)
    assert _run(capsys, "list")[1].splitlines()[0].split() == [
        "SETTING",
        "VALUE",
        "FROM",
        "MEANING",
    ]
