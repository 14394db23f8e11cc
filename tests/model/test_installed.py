"""The models of projects: installed whole, found by any way to the project, replaced, removed, and never trusted."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest

from lsp_charrnn.errors import ModelError, OutputError
from lsp_charrnn.model import installed
from lsp_charrnn.model.files import load_model
from lsp_charrnn.model.installed import (
    POINTER_FILE,
    alone,
    install,
    installed_model,
    list_installed,
    model_of_project,
    place_of,
    pointer_of,
    project_key,
    projects_directory,
    uninstall,
)
from lsp_charrnn.project.cache import cache_file
from lsp_charrnn.server.models import Models


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has no data yet."""
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    return root


def test_what_is_installed_is_a_model_of_its_own(tiny_model: Path, root: Path) -> None:
    assert installed_model(root) is None
    assert pointer_of(root) is None
    path = install(tiny_model, root)
    assert path == installed_model(root) == model_of_project(root, "python")
    assert model_of_project(root, "go") is None
    assert path.parent == place_of(root)
    assert {entry.name for entry in path.iterdir()} == {entry.name for entry in tiny_model.iterdir()}
    assert load_model(path).name == "tiny"
    (one,) = list_installed()
    assert (one.root, one.model.name, one.model.path, one.model.problem) == (str(root), path.name, path, "")
    for directory in (projects_directory(), place_of(root), path):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_it_is_for_its_language_whatever_a_client_calls_that(tiny_model: Path, root: Path, tmp_path: Path) -> None:
    of_shell = tmp_path / "shell"
    shutil.copytree(tiny_model, of_shell)
    config = json.loads((of_shell / "config.json").read_text("utf-8"))
    (of_shell / "config.json").write_text(json.dumps(config | {"languages": ["shellscript"]}), "utf-8")
    path = install(of_shell, root)
    assert [model_of_project(root, name) for name in ("shellscript", "sh", "python")] == [path, path, None]
    of_project = Models().of_project
    assert [of_project(str(root), name) is not None for name in ("shellscript", "sh", "python")] == [True, True, False]


def test_the_project_is_one_whatever_leads_there(tiny_model: Path, root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    path = install(tiny_model, link)
    assert installed_model(root) == installed_model(f"{root}/") == installed_model(root / "." / ".." / "shop") == path
    assert installed_model(tmp_path) is None
    assert list_installed()[0].root == str(root)
    assert cache_file(link, tmp_path).name.startswith(project_key(root))


def test_another_version_lies_elsewhere_and_replaces_the_one_before(tiny_model: Path, root: Path) -> None:
    first, pointer = install(tiny_model, root), pointer_of(root)
    second = install(tiny_model, root)
    assert second != first
    assert pointer_of(root) != pointer
    assert installed_model(root) == second
    assert sorted(entry.name for entry in place_of(root).iterdir()) == sorted([second.name, POINTER_FILE])


def test_a_later_version_that_is_just_being_written_is_left_alone(tiny_model: Path, root: Path) -> None:
    later = place_of(root) / f"{9 * 10**18}-00000000"
    later.mkdir(parents=True)
    install(tiny_model, root)
    assert later.exists()


def test_a_damaged_model_is_not_installed(tiny_model: Path, root: Path, tmp_path: Path) -> None:
    path = install(tiny_model, root)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"model\.onnx"):
        install(broken, root)
    assert installed_model(root) == path


def test_where_nothing_can_be_written_the_model_stays(
    tiny_model: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = install(tiny_model, root)
    write, written = installed._write, []

    def full(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) > at:
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(installed, "_write", full)
    for at in (0, 3, 5):  # at once, within the model, at the pointer
        written.clear()
        with pytest.raises(OutputError, match="No space left"):
            install(tiny_model, root)
        assert len(written) == at + 1
        assert installed_model(root) == path
        assert sorted(entry.name for entry in place_of(root).iterdir()) == sorted([path.name, POINTER_FILE])
    assert load_model(path).name == "tiny"


def test_a_clock_that_is_put_back_keeps_no_older_model(
    tiny_model: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = install(tiny_model, root)
    monkeypatch.setattr(installed.time, "time_ns", lambda: 0)  # a battery is empty: 1970
    after = install(tiny_model, root)
    assert installed_model(root) == after
    assert after.name > before.name
    assert not before.exists()
    uninstall(root)
    assert installed_model(root) is None
    first = install(tiny_model, root)  # nothing before, and still 1970
    assert installed_model(root) == first
    assert load_model(first).name == "tiny"


@pytest.mark.parametrize(
    "pointer",
    [
        b"",
        b"[]",
        b"{",
        b'{"format": 1}',
        b'{"format": 2, "root": "/a", "version": "1795643704536958924-5f77bf32"}',
        b'{"format": 1, "root": "/a", "version": "../../elsewhere"}',
        b'{"format": 1, "root": "/a", "version": 5}',
        b'{"format": 1, "root": 7, "version": "1795643704536958924-5f77bf32"}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_pointer_is_one_sentence(tiny_model: Path, root: Path, pointer: bytes) -> None:
    install(tiny_model, root)
    (place_of(root) / POINTER_FILE).write_bytes(pointer)
    with pytest.raises(ModelError, match="does not say which model it is: train the project again") as caught:
        installed_model(root)
    assert "\n" not in str(caught.value)
    assert caught.value.args[0] == list_installed()[0].model.problem
    assert uninstall(root)
    assert installed_model(root) is None


def test_a_version_that_is_gone_is_told(tiny_model: Path, root: Path) -> None:
    shutil.rmtree(install(tiny_model, root))
    assert "does not exist" in list_installed()[0].model.problem
    with pytest.raises(ModelError, match="does not exist"):
        model_of_project(root, "python")


def test_uninstalling_leaves_nothing(tiny_model: Path, root: Path) -> None:
    assert not uninstall(root)
    install(tiny_model, root)
    (place_of(root) / "tuned.training").mkdir()
    shutil.rmtree(root)  # the project need not be there any more
    assert uninstall(root)
    assert not uninstall(root)
    assert list(projects_directory().iterdir()) == []


def test_one_training_at_a_time(tiny_model: Path, root: Path, tmp_path: Path) -> None:
    with alone(root):
        with pytest.raises(OutputError, match="is being trained already"), alone(root):
            raise AssertionError
        (place_of(root) / "tuned").mkdir()
        with pytest.raises(OutputError, match="is being trained already"):
            uninstall(root)
        with alone(tmp_path):
            pass
        install(tiny_model, root)
    with alone(root):
        pass


def test_no_name_of_a_file_says_more_than_it_must(tiny_model: Path, tmp_path: Path) -> None:
    odd = tmp_path / "na\udce9ve \u2028 [bold]"
    odd.mkdir()
    install(tiny_model, odd)
    assert list_installed()[0].root == str(odd)
    json.loads(pointer_of(odd) or b"")
