"""Discovery through entry points of distributions that are really on the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.fakes import Fake

from aiplayground._loader import PluginSet, load_plugins

GOOD = """
from aiplayground.hookspecs import hookimpl
from aiplayground.specs import BackendSpec

@hookimpl
def backend():
    return BackendSpec(name="{service}", title="T")
"""


class Site:
    """A folder on the path with distributions of one module each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self, module: str, source: str, *, plugin: str, dist: str, version: str = "1.0"
    ) -> None:
        (self.folder / f"{module}.py").write_text(source)
        info = self.folder / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[aiplayground.plugins]\n{plugin} = {module}\n")

    def good(self, module: str, service: str, *, plugin: str = "", dist: str = "") -> None:
        source = GOOD.replace("{service}", service)
        self.add(module, source, plugin=plugin or service, dist=dist or f"dist-{module}")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    # The other distributions of this environment are none of the test's business.
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(p for p in sys.path if "site-" not in p)])
    return Site(tmp_path)


def load(**options: object) -> PluginSet:
    found = load_plugins(**options)  # type: ignore[arg-type]  # the options of the function
    for name in [name for name in sys.modules if name.startswith("aipgtest_")]:
        del sys.modules[name]
    return found


def names(found: PluginSet) -> list[str]:
    return [each.name for each in found.loaded if each.distribution.startswith("dist-")]


def test_installed_plugins_are_found_with_their_distribution(site: Site) -> None:
    site.good("aipgtest_b", "svc-b")
    site.good("aipgtest_a", "svc-a")
    found = load()
    assert names(found) == ["svc-a", "svc-b"], "in a stable order"
    assert not found.failures
    plugin = next(each for each in found.loaded if each.name == "svc-a")
    assert (plugin.distribution, plugin.version) == ("dist-aipgtest_a", "1.0")
    assert plugin.backends[0].name == "svc-a"
    assert plugin.seconds > 0


def test_discovery_can_be_left_out(site: Site) -> None:
    site.good("aipgtest_a", "svc-a")
    assert not load(discover=False).loaded


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("raise ValueError('boom')", "ValueError: boom"),
        ("import aipgtest_that_does_not_exist", "ModuleNotFoundError"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_an_import_that_fails_is_isolated(site: Site, source: str, error: str) -> None:
    site.add("aipgtest_bad", source, plugin="bad", dist="dist-bad", version="2.5")
    site.good("aipgtest_good", "svc-good")
    found = load()
    assert names(found) == ["svc-good"]
    (failure,) = found.failures
    assert (failure.name, failure.stage) == ("bad", "import")
    assert (failure.distribution, failure.version) == ("dist-bad", "2.5")
    assert "bad (dist-bad 2.5): importing it raised " + error in failure.message


TRACER = "import builtins; builtins.aipg_imported = True\n" + GOOD.replace("{service}", "svc-t")


@pytest.mark.parametrize("options", [{"deny": ["traced"]}, {"allow": ["svc-good"]}])
def test_what_is_not_to_load_is_not_imported(site: Site, options: dict[str, list[str]]) -> None:
    site.add("aipgtest_traced", TRACER, plugin="traced", dist="dist-traced")
    site.good("aipgtest_good", "svc-good")
    found = load(**options)
    assert names(found) == ["svc-good"]
    assert found.disabled == ("traced",)
    assert not found.failures
    import builtins

    assert not hasattr(builtins, "aipg_imported")


def test_deny_wins_over_allow(site: Site) -> None:
    site.good("aipgtest_good", "svc-good")
    assert not load(allow=["svc-good"], deny=["svc-good"]).loaded
    assert not load(allow=[]).loaded


@pytest.mark.parametrize(("plugins", "what"), [(("same", "same"), "plugin 'same'"),
                                                (("one", "two"), "service 'svc'")])  # fmt: skip
def test_what_two_claim_is_refused_naming_both(
    site: Site, plugins: tuple[str, str], what: str
) -> None:
    for module, plugin in zip(("aipgtest_a", "aipgtest_b"), plugins, strict=True):
        site.good(module, "svc", plugin=plugin)
    found = load()
    assert [each.distribution for each in found.loaded] == ["dist-aipgtest_a"]
    (failure,) = found.failures
    assert failure.distribution == "dist-aipgtest_b"
    for words in (what, "dist-aipgtest_a 1.0", "dist-aipgtest_b 1.0", "Uninstall one of them"):
        assert words in failure.message


def test_a_broken_first_leaves_the_name_to_the_second(site: Site) -> None:
    site.add("aipgtest_a", "raise ValueError", plugin="same", dist="dist-a")
    site.good("aipgtest_b", "svc", plugin="same", dist="dist-b")
    found = load()
    assert [each.distribution for each in found.loaded] == ["dist-b"]
    assert [each.distribution for each in found.failures] == ["dist-a"]


def test_one_that_is_handed_over_comes_before_one_that_is_installed(site: Site) -> None:
    site.good("aipgtest_a", "svc")
    found = load(given=[("mine", Fake("svc"))])
    assert [each.name for each in found.loaded] == ["mine"]
    assert "the embedding program and dist-aipgtest_a 1.0" in found.failures[0].message


def test_a_distribution_on_the_path_twice_counts_once(
    site: Site, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = Site(tmp_path_factory.mktemp("twin"))
    for place in (site, twin):
        place.good("aipgtest_a", "svc", dist="dist-a")
    monkeypatch.setattr(sys, "path", [*sys.path, str(twin.folder)])
    found = load()
    assert (names(found), found.failures) == (["svc"], ())
