"""Which files of a project are read, by git and without it, and what their text is."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lsp_charrnn.project import files, ignore
from lsp_charrnn.project.files import ProjectFile, ProjectFilter, project_files, read_text
from lsp_charrnn.project.secrets import is_secret
from lsp_charrnn.train.corpus import LANGUAGES

CODE = "value = 1\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Whoever runs the tests has settings of git that no test must see."""
    for name in list(os.environ):
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    return home


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    return root


@pytest.fixture
def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_git", lambda *_: None)


@pytest.fixture(params=["git", "walk"])
def way(request: pytest.FixtureRequest) -> str:
    """Every test that asks for it runs twice: with git, and as if there were none."""
    if request.param == "walk":
        request.getfixturevalue("no_git")
    return str(request.param)


def git(directory: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, timeout=30)


def write(root: Path, tree: Mapping[str, str | bytes]) -> None:
    for path, text in tree.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)


def code(*paths: str) -> dict[str, str | bytes]:
    return dict.fromkeys(paths, CODE)


def paths(root: Path, **options: object) -> list[str]:
    return [file.path for file in project_files(root, **options).files]  # type: ignore[arg-type]


def looked_at(root: Path) -> set[str]:
    """Return the paths of all files under `root` of which the filter says that they are to be read."""
    look = ProjectFilter(root).look
    found = (Path(at, name) for at, _, names in os.walk(root) for name in names)
    return {file.path for path in found if (file := look(path)) is not None}


def check(root: Path, *expected: str) -> None:
    """All ways agree on the tree: the list (as the test's `way` makes it), and the filter file by file."""
    assert sorted(paths(root)) == sorted(expected)
    assert looked_at(root) == set(expected)


# --- what git would track ---


TREE: dict[str, str | bytes] = {
    **code("a.py", "build/made.py", "build/keep.py", "docs/a.md", "docs/_build/b.md", "x.log", "sub/x.log"),
    **code("sub/keep.log", "sub/top.py", "top.py", "sub/deep/er/c.py", "sub/deep/gen/d.py", "only/these.py"),
    **code("only/not.txt", "only/in/these.py", "config/a.ini", "config/keep.ini", "src/b.py", "src/c.txt"),
    **code("name with space.py", "sub/excluded.py", "sub/generated", "generated/e.py"),
    **code("[x].py", "#hash.py", "!bang.py", "end ", "end", "other", "box/in/a.py", "box/in/a.txt", "box/b.py"),
    **code("line\nend/gone/a.py", "line\nend/b.py", "all/in/a.py", "all/b.py"),
    ".gitignore": "build/*\n!build/keep.py\n*.log\n/top.py\n_build/\nconfig/**\n!config/keep.ini\n"
    "\\#hash.py\n\\!bang.py\ngenerated/\n\\[x].py\nend\\ \nother  \n**/gone/a.py\n# comment with * * * * * stars\n\n",
    "sub/.gitignore": "\ufeff!keep.log\r\ndeep/**/gen\r\n",
    "only/.gitignore": "*\n!*/\n!these.py\n!.gitignore\n",
    "all/.gitignore": "**/**/\n",
    "box/.gitignore": "*\n!/in\n!a.py\n",
    "src/.gitignore": "*\n!/src\n!b.py",
}
KEPT = [
    *("a.py", "build/keep.py", "docs/a.md", "sub/keep.log", "sub/top.py", "sub/deep/er/c.py", "only/these.py"),
    *("only/in/these.py", "config/keep.ini", "src/b.py", "name with space.py", "sub/generated", "end"),
    *("box/in/a.py", "line\nend/b.py", "all/b.py", "all/.gitignore"),
    *(".gitignore", "sub/.gitignore", "only/.gitignore"),
]


def test_what_git_would_track(root: Path, way: str) -> None:
    write(root, TREE)
    git(root, "init")
    write(root, {".git/info/exclude": "excluded.py\n"})
    check(root, *KEPT)


def test_a_folder_of_a_work_tree(root: Path, way: str) -> None:
    write(root, TREE)
    git(root, "init")
    write(root, {".git/info/exclude": "excluded.py\n"})
    check(root / "sub", "keep.log", "top.py", "deep/er/c.py", "generated", ".gitignore")


def test_tracked_files_are_found_once(root: Path, way: str) -> None:
    write(root, code("a.py", "b.py", "sub/c.py"))
    git(root, "init")
    git(root, "add", "a.py")
    git(root, "commit", "-m", "one")
    write(root, {"a.py": CODE + CODE})
    check(root, "a.py", "b.py", "sub/c.py")


def test_a_conflict_names_a_file_once(root: Path) -> None:
    git(root, "init", "-b", "main")
    for branch, text in (("main", "x = 0\n"), ("other", "x = 1\n"), ("main", "x = 2\n")):
        if branch == "other" or (root / "a.py").exists():
            git(root, "checkout", *(["-b"] if branch == "other" else []), branch)
        write(root, {"a.py": text})
        git(root, "add", "a.py")
        git(root, "commit", "-m", text)
    with pytest.raises(subprocess.CalledProcessError):
        git(root, "merge", "other")
    assert paths(root) == ["a.py"]


def test_what_is_tracked_although_ignored_is_listed(root: Path) -> None:
    write(root, {".gitignore": "*.txt\n", **code("a.txt", "b.txt")})
    git(root, "init")
    git(root, "add", "--force", "a.txt")
    assert sorted(paths(root)) == [".gitignore", "a.txt"]


def test_a_tracked_file_that_was_removed_is_not_there(root: Path) -> None:
    write(root, code("a.py", "b.py"))
    git(root, "init")
    git(root, "add", ".")
    (root / "a.py").unlink()
    found = project_files(root)
    assert [file.path for file in found.files] == ["b.py"]
    assert found.left_out == {files.GONE: 1}


def test_no_work_tree(root: Path, way: str) -> None:
    write(
        root, {**code("a.py", "b.log", "sub/c.py", "sub/d.tmp"), ".gitignore": "*.log\n", "sub/.gitignore": "*.tmp\n"}
    )
    check(root, "a.py", "sub/c.py", ".gitignore", "sub/.gitignore")


def test_no_such_directory(root: Path, way: str) -> None:
    assert project_files(root / "none").files == ()
    assert ProjectFilter(root / "none").look("a.py") is None


def test_an_empty_directory(root: Path, way: str) -> None:
    assert project_files(root).files == ()


def test_a_repository_in_a_repository_is_not_of_the_project(root: Path, way: str) -> None:
    write(root, code("a.py", "inner/b.py", "sub/inner/c.py", "sub/d.py"))
    for inner in ("inner", "sub/inner"):
        git(root / inner, "init")
        git(root / inner, "add", ".")
        git(root / inner, "commit", "-m", "one")
    git(root, "init")
    check(root, "a.py", "sub/d.py")
    assert project_files(root).left_out[ignore.ELSEWHERE] == 2


def test_a_submodule_is_not_of_the_project(root: Path, tmp_path: Path, way: str) -> None:
    other = tmp_path / "other"
    write(other, code("b.py"))
    git(other, "init")
    git(other, "add", ".")
    git(other, "commit", "-m", "one")
    write(root, code("a.py"))
    git(root, "init")
    git(root, "-c", "protocol.file.allow=always", "submodule", "add", str(other), "module")
    check(root, "a.py", ".gitmodules")


def test_a_directory_of_repositories_is_walked(root: Path, way: str) -> None:
    write(
        root, {"one/.gitignore": "*.log\n", **code("one/a.py", "one/b.log", "two/a.py", "two/b.log", "two/build/c.py")}
    )
    git(root / "one", "init")
    git(root / "two", "init")
    write(root, {"one/.git/info/exclude": "excluded.py\n", **code("one/excluded.py", "two/excluded.py")})
    check(root, "one/a.py", "one/.gitignore", "two/a.py", "two/b.log", "two/excluded.py")


def test_a_project_that_the_repository_around_it_ignores(root: Path, way: str) -> None:
    # Somebody keeps the whole home directory in git, and projects in it that are in none.
    write(root, {".gitignore": "*\n", "work/tool/.gitignore": "*.log\n", **code("work/tool/a.py", "work/tool/b.log")})
    git(root, "init")
    check(root / "work/tool", "a.py", ".gitignore")
    check(root)


def test_a_linked_work_tree(root: Path, tmp_path: Path, way: str) -> None:
    write(root, code("a.py"))
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "one")
    write(root, {".git/info/exclude": "excluded.py\n"})
    linked = tmp_path / "linked"
    git(root, "worktree", "add", str(linked))
    write(linked, code("b.py", "excluded.py"))
    check(linked, "a.py", "b.py")


@pytest.mark.parametrize("place", [".config/git/ignore", "elsewhere/ignore"])
def test_the_patterns_of_the_user(root: Path, home: Path, place: str) -> None:
    write(home, {place: "*.orig\n"})
    if place.startswith("elsewhere"):
        git(root, "config", "--global", "core.excludesFile", "~/elsewhere/ignore")
    write(root, code("a.py", "a.py.orig"))
    git(root, "init")
    check(root, "a.py")


def test_the_patterns_of_the_user_without_git(
    root: Path, home: Path, no_git: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, code("a.py", "a.py.orig"))
    git(root, "init")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    write(home, {"xdg/git/ignore": "*.orig\n"})
    check(root, "a.py")


def test_a_gitignore_that_is_no_file_says_nothing(root: Path, tmp_path: Path, way: str) -> None:
    write(tmp_path, {"patterns": "*.py\n"})
    write(root, code("a.py", "linked/b.py", "directory/.gitignore/c.md", "directory/d.py"))
    git(root, "init")
    (root / "linked/.gitignore").symlink_to(tmp_path / "patterns")
    check(root, "a.py", "linked/b.py", "directory/d.py")


ODD_PATTERNS = [
    *("a*", "*o*", "[ab]", "[!a]", "fo?", "\\!b", "**", "*", "foo", "b", "c.py", "*.py", "*.p?", "sp ace", "a.txt  "),
]
ODD_NAMES = ["a", "b", "foo", "c.py", "foo.py", "sp ace", "!b", "line\nend", "a.txt"]


def grow(directory: Path, chance: random.Random, depth: int = 0) -> None:
    for name in chance.sample(ODD_NAMES, chance.randint(2, 6)):
        path = directory / name
        if depth < 3 and chance.random() < 0.45:
            path.mkdir()
            grow(path, chance, depth + 1)
        else:
            path.write_text(CODE)
    if depth == 0 or chance.random() < 0.25:
        (directory / ".gitignore").write_text("".join(odd_line(chance) for _ in range(chance.randint(1, 5))))


def odd_line(chance: random.Random) -> str:
    parts = chance.choices(ODD_PATTERNS, k=chance.choice([1, 1, 2, 2, 3]))
    negated, leading, trailing = (
        sign * (chance.random() < share) for sign, share in (("!", 0.35), ("/", 0.25), ("/", 0.25))
    )
    return f"{negated}{leading}{'/'.join(parts)}{trailing}\n"


@pytest.mark.parametrize("seed", range(40))
def test_git_and_the_walk_agree_on_odd_trees(seed: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(root, random.Random(seed))
    git(root, "init")
    by_git = sorted(paths(root))
    assert looked_at(root) == set(by_git)
    monkeypatch.setattr(files, "_git", lambda *_: None)
    assert sorted(paths(root)) == by_git


@pytest.mark.parametrize("pattern", ["*a" * 40, "a*" * 40 + "b", "**/x/" * 40 + "y", "[a-z]*" * 20])
def test_no_pattern_takes_long(pattern: str, root: Path, no_git: None) -> None:
    write(root, {".gitignore": f"{pattern}\n!{pattern}\n", **code("a" * 200, "b.md", "x/" * 60 + "c.md")})
    started = time.monotonic()
    assert "b.md" in paths(root) or pattern.startswith("[")
    assert time.monotonic() - started < 5


# --- what tools leave behind ---


LEFT_BEHIND = code(
    *(
        "node_modules/m/index.js",
        "__pycache__/a.py",
        "env/lib/a.py",
        "sub/site-packages/b.py",
        "build/c.py",
        "dist/d.js",
    ),
    *("target/e.rs", "sub/build/f.py", ".tool/g.py"),
)


def test_what_tools_made_is_left_out_where_nobody_says_so(root: Path, way: str) -> None:
    write(root, {**LEFT_BEHIND, "env/pyvenv.cfg": "home = /usr\n", **code("a.py", "sub/b.py", "builder/c.py")})
    check(root, "a.py", "sub/b.py", "builder/c.py")
    git(root, "init")
    check(root, "a.py", "sub/b.py", "builder/c.py")


@pytest.mark.parametrize("place", [".gitignore", "above"])
def test_with_a_gitignore_its_author_has_the_say(root: Path, place: str, way: str) -> None:
    git(root, "init")
    project = root / "project"
    write(project, {**LEFT_BEHIND, "env/pyvenv.cfg": "home = /usr\n", **code("a.py")})
    write(root if place == "above" else project, {".gitignore": "*.log\n"})
    own = [] if place == "above" else [".gitignore"]
    check(project, "a.py", "build/c.py", "dist/d.js", "target/e.rs", "sub/build/f.py", ".tool/g.py", *own)


def test_a_gitignore_speaks_for_its_directory_only(root: Path, way: str) -> None:
    git(root, "init")
    write(root, {"sub/.gitignore": "", **code("build/a.py", "sub/build/b.py", "sub/deep/dist/c.py")})
    check(root, "sub/build/b.py", "sub/deep/dist/c.py")


def test_what_is_tracked_is_not_left_behind(root: Path) -> None:
    write(root, code("build/a.py", "build/b.py"))
    git(root, "init")
    git(root, "add", "build/a.py")
    assert paths(root) == ["build/a.py"]


# --- what is never read ---


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        "sub/.env.local",
        "deploy/server.pem",
        "id_rsa",
        ".aws/credentials",
        "secrets.yaml",
        ".npmrc",
        "line\nend/.env",
    ],
)
def test_secrets(root: Path, path: str, way: str) -> None:
    write(root, {".gitignore": "", **code(path, "a.py", ".env.example")})
    git(root, "init")
    git(root, "add", ".")
    check(root, "a.py", ".env.example")
    assert project_files(root).left_out == {files.SECRET: 1, files.EMPTY: 1}
    assert is_secret(str(root / path))


def test_a_project_in_a_secret_place(tmp_path: Path, way: str) -> None:
    write(tmp_path, code(".aws/credentials"))
    check(tmp_path / ".aws")


def test_links(root: Path, tmp_path: Path, way: str) -> None:
    write(tmp_path, code("outside/b.py"))
    write(root, code("a.py", "sub/c.py"))
    git(root, "init")
    (root / "file.py").symlink_to(tmp_path / "outside/b.py")
    (root / "directory").symlink_to(tmp_path / "outside")
    (root / "sub/loop").symlink_to(root)
    (root / "inside.py").symlink_to("a.py")
    (root / "nowhere.py").symlink_to("nowhere")
    check(root, "a.py", "sub/c.py")
    assert project_files(root).left_out[files.LINK] == 5
    for path in ("directory/b.py", "sub/loop/a.py", "inside.py"):
        assert ProjectFilter(root).look(path) is None


def test_a_tracked_directory_that_became_a_link(root: Path, tmp_path: Path) -> None:
    write(tmp_path, code("outside/b.py", "outside/deep/c.py"))
    write(root, code("a.py", "sub/b.py", "sub/deep/c.py"))
    git(root, "init")
    git(root, "add", ".")
    (root / "sub").rename(tmp_path / "away")
    (root / "sub").symlink_to(tmp_path / "outside")
    found = project_files(root)
    assert [file.path for file in found.files] == ["a.py"]
    assert read_text(root, ProjectFile("sub/b.py", 10, 0)) is None
    assert read_text(root, ProjectFile("sub/deep/c.py", 10, 0)) is None


def test_a_root_that_is_a_link_is_followed(root: Path, tmp_path: Path, way: str) -> None:
    write(root, code("a.py", "sub/b.py"))
    link = tmp_path / "link"
    link.symlink_to(root)
    check(link, "a.py", "sub/b.py")
    (file,) = (file for file in project_files(link).files if file.path == "sub/b.py")
    assert read_text(link, file) == CODE.encode()
    assert ProjectFilter(link).look(root / "a.py") == ProjectFilter(root).look("a.py")


def test_only_regular_files(root: Path, way: str) -> None:
    write(root, code("a.py"))
    git(root, "init")
    os.mkfifo(root / "pipe.py")
    os.mkfifo(root / "tracked.py")
    check(root, "a.py")


def test_a_pipe_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe.py")
    assert read_text(root, ProjectFile("pipe.py", 10, 0)) is None
    os.mkfifo(root / ".gitignore")
    write(root, code("a.py"))
    assert looked_at(root) == {"a.py"}


def test_sizes(root: Path, way: str) -> None:
    most = files.MAX_FILE_BYTES
    write(root, {"empty.py": "", "most.py": b"x" * most, "large.py": b"x" * (most + 1), "one.py": "x"})
    check(root, "most.py", "one.py")
    assert project_files(root).left_out == {files.EMPTY: 1, files.LARGE: 1}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "package-lock.json",
            "poetry.lock",
            "pnpm-lock.yaml",
            "uv.lock",
            "go.sum",
            "Cargo.lock",
            "jquery.min.js",
            "a.map",
        ),
        *("logo.svg", "data.csv", "Notebook.IPYNB", "a.png", "a.so"),
    ],
)
def test_what_nobody_types_is_left_out(root: Path, name: str, way: str) -> None:
    write(root, code("a.py", name))
    check(root, "a.py")
    assert project_files(root).left_out == {files.NOT_WRITTEN: 1}


ODD_FILES = [
    "line\nend.py",
    " spaces .py",
    "tab\t.py",
    "quote\"'.py",
    "ünï.py",
    "-option.py",
    "\udcff\udcfe.py",
    "$(x)`.py",
]


@pytest.mark.parametrize("name", ODD_FILES, ids=range(len(ODD_FILES)))
def test_odd_names(root: Path, name: str, way: str) -> None:
    directory = name.removesuffix(".py")
    try:
        write(root, code(name, f"{directory}/{name}"))
    except OSError:  # macOS keeps UTF-8 names only
        assert sys.platform == "darwin"
        return
    git(root, "init")
    check(root, name, f"{directory}/{name}")
    for file in project_files(root).files:
        assert read_text(root, file) == CODE.encode()


# --- a hostile repository ---


def test_nothing_in_a_repository_is_run(root: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    program = root / "program"
    write(root, {"a.py": CODE, "program": f"#!/bin/sh\ntouch '{ran}'\n", ".gitattributes": "*.py filter=evil\n"})
    program.chmod(0o755)
    git(root, "init")
    git(root, "add", ".")
    for setting in ("core.fsmonitor", "core.pager", "pager.ls-files", "core.sshCommand", "core.askPass", "core.editor"):
        git(root, "config", setting, str(program))
    for setting in ("filter.evil.clean", "filter.evil.smudge", "alias.ls-files"):
        git(root, "config", setting, f"!{program}" if setting.startswith("alias") else str(program))
    hooks = root / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("post-index-change", "fsmonitor-watchman", "pre-auto-gc"):
        (hooks / hook).write_bytes(program.read_bytes())
        (hooks / hook).chmod(0o755)
    ran.unlink(missing_ok=True)
    os.utime(root / "a.py", (1, 1))  # the index is out of date
    check(root, "a.py", "program", ".gitattributes")
    assert not ran.exists()


def test_a_work_tree_that_claims_to_be_elsewhere(root: Path, tmp_path: Path) -> None:
    write(tmp_path, code("outside.py"))
    write(root, code("a.py"))
    git(root, "init")
    git(root, "config", "core.worktree", str(tmp_path))
    assert paths(root) == ["a.py"]


@pytest.mark.parametrize("place", ["bin", "."])
def test_a_git_that_the_project_brought_along_is_not_run(
    root: Path, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    write(root, {f"{place}/git": f"#!/bin/sh\ntouch '{ran}'\n", "a.py": CODE})
    (root / place / "git").chmod(0o755)
    monkeypatch.chdir(root)
    monkeypatch.setenv("PATH", f"{root / place if place == 'bin' else '.'}{os.pathsep}{os.environ['PATH']}")
    assert "a.py" in paths(root)
    assert not ran.exists()


def test_a_repository_that_somebody_else_names(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An editor that `git commit` started has these.
    other = tmp_path / "other"
    write(other, code("b.py"))
    git(other, "init")
    write(root, {".gitignore": "*.log\n", **code("a.py", "a.log", "b.log")})
    git(root, "init")
    git(root, "add", "--force", "a.log")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "index"))
    assert sorted(paths(root)) == [".gitignore", "a.log", "a.py"]


@pytest.fixture
def fake_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def install(script: str) -> None:
        write(tmp_path, {"bin/git": f"#!/bin/sh\n{script}\n"})
        (tmp_path / "bin/git").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    return install


@pytest.mark.parametrize("script", ["exit 128", "exec sleep 60", "kill -9 $$"])
def test_where_git_fails_the_tree_is_walked(
    root: Path, script: str, fake_git: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_GIT_SECONDS", 0.3)
    write(root, {".gitignore": "*.log\n", **code("a.py", "a.log")})
    fake_git(script)
    assert sorted(paths(root)) == [".gitignore", "a.py"]


def test_where_git_is_slow_what_is_tracked_is_known(
    root: Path, fake_git: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_GIT_SECONDS", 0.5)
    write(root, code("a.py", "b.py"))
    fake_git("case \"$*\" in *--others*) exec sleep 60;; *--cached*) printf 'a.py\\0';; esac")
    found = project_files(root)
    assert [file.path for file in found.files] == ["a.py"]
    assert found.left_out == {files.SLOW: 1}


def test_too_many_files(root: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_ENTRIES", 10)
    write(root, code(*(f"{number}.py" for number in range(9)), *(f"sub/{number}/a.py" for number in range(9))))
    git(root, "init")
    git(root, "add", "8.py")
    found = project_files(root)
    assert "8.py" in {file.path for file in found.files}
    assert len(found.files) <= 10
    assert found.left_out[files.TOO_MANY] >= 1


# --- order and cap ---


def aged(root: Path, *paths: str) -> None:
    """Write files, each newer than the one before it."""
    for age, path in enumerate(paths):
        write(root, code(path))
        os.utime(root / path, ns=(10**18 + age * 10**9, 10**18 + age * 10**9))


def test_the_newest_come_first(root: Path) -> None:
    aged(root, "b.py", "sub/a.py", "c.py")
    assert paths(root) == ["c.py", "sub/a.py", "b.py"]


def test_equals_come_by_name(root: Path, way: str) -> None:
    write(root, code("b.py", "a.py", "sub/c.py", "B.py"))
    for file in root.rglob("*.py"):
        os.utime(file, ns=(10**18, 10**18))
    assert paths(root) == ["B.py", "a.py", "b.py", "sub/c.py"]


def test_the_nearest_come_first(root: Path) -> None:
    aged(root, "app/core/a.py", "app/core/deep/b.py", "app/web/c.py", "app/d.py", "e.py", "lib/core/f.py")
    near = ["app/core/open.py"]
    assert paths(root, near=near) == [
        *("app/core/a.py", "app/d.py", "app/core/deep/b.py", "e.py", "app/web/c.py", "lib/core/f.py"),
    ]
    # Of several documents, the nearest counts.
    assert paths(root, near=[*near, "lib/core/g.py"])[:2] == ["lib/core/f.py", "app/core/a.py"]
    assert paths(root, near=["top.py"])[0] == "e.py"


def test_source_comes_before_data(root: Path) -> None:
    source = ["a.py", "Makefile", "README.md", "pyproject.toml", "sub/b.ts", "docs/c.rst", "Dockerfile"]
    aged(root, *source, "LICENSE", "notes.txt", "data.json", "third_party/lib.c", "server.log")
    order = paths(root, near=["third_party/x.c"])
    assert sorted(order[:7]) == sorted(source)
    assert sorted(order[7:9]) == ["LICENSE", "notes.txt"]
    assert sorted(order[9:]) == ["data.json", "server.log", "third_party/lib.c"]


def test_what_models_are_trained_on_is_source() -> None:
    assert set(LANGUAGES) <= files.SOURCE_SUFFIXES


def test_the_cap(root: Path, way: str) -> None:
    aged(root, *(f"{number}.py" for number in range(5)))
    found = project_files(root, cap=len(CODE) * 3 + 1)
    assert [file.path for file in found.files] == ["4.py", "3.py", "2.py"]
    assert found.left_out == {files.OVER_CAP: 2}
    assert project_files(root, cap=0).files == ()


def test_what_is_larger_than_the_room_that_is_left_lets_smaller_files_in(root: Path, way: str) -> None:
    write(root, {"near.py": CODE * 10, "far/off/a.py": CODE})
    found = project_files(root, near=["main.py"], cap=len(CODE) * 2)
    assert [file.path for file in found.files] == ["far/off/a.py"]
    assert found.left_out == {files.OVER_CAP: 1}


def test_size_and_time_are_told(root: Path, way: str) -> None:
    aged(root, "a.py")
    assert project_files(root).files == (ProjectFile("a.py", len(CODE), 10**18),)
    assert ProjectFilter(root).look("a.py") == ProjectFile("a.py", len(CODE), 10**18)


# --- one file ---


def test_the_filter_follows_gitignore_files(root: Path) -> None:
    write(root, code("a.py", "sub/b.py"))
    git(root, "init")
    one = ProjectFilter(root)
    assert one.look("sub/b.py")
    write(root, {"sub/.gitignore": "b.py\n"})
    assert one.look("sub/b.py") is None
    assert one.look("a.py")
    write(root, {"sub/.gitignore": "!b.py\n", ".gitignore": "*.py\n"})
    assert one.look("sub/b.py")
    assert one.look("a.py") is None
    (root / "sub/.gitignore").unlink()
    assert one.look("sub/b.py") is None
    write(root, {".gitignore": "/sub/\n"})
    assert one.look("a.py")
    assert one.look("sub/b.py") is None
    write(root, {".gitignore": "", ".git/info/exclude": "a.*\n"})
    assert one.look("a.py") is None
    assert one.look("sub/b.py")


def test_the_filter_takes_paths_of_any_kind(root: Path, tmp_path: Path) -> None:
    write(root, code("a.py", "sub/b.py"))
    write(tmp_path, code("outside.py", "project-2/a.py"))
    one = ProjectFilter(root)
    for path in ("sub/b.py", str(root / "sub/b.py"), root / "sub/b.py", "sub/../sub/b.py", "./sub//b.py"):
        file = one.look(path)
        assert file is not None
        assert file.path == "sub/b.py" == one.relative(path)
    for path in (
        *(
            "",
            ".",
            "sub",
            str(root),
            "..",
            "../outside.py",
            str(tmp_path / "outside.py"),
            str(tmp_path / "project-2/a.py"),
        ),
        *("/", "none.py", "none/a.py", "a.py/b.py", "a\0b.py", ".git/config"),
    ):
        assert one.look(path) is None, path
    assert one.relative("none/a.py") == one.relative(root / "none/a.py") == "none/a.py"
    assert one.relative(tmp_path / "outside.py") is one.relative("../outside.py") is one.relative(root) is None


def test_the_filter_looks_at_the_file_as_it_is(root: Path) -> None:
    write(root, {"a.py": ""})
    one = ProjectFilter(root)
    assert one.look("a.py") is None
    write(root, code("a.py"))
    assert one.look("a.py")
    (root / "a.py").unlink()
    assert one.look("a.py") is None


# --- text ---


def text_of(root: Path, data: str | bytes) -> bytes | None:
    write(root, {"file": data})
    return read_text(root, ProjectFile("file", len(data), 0))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a\nb\n", b"a\nb\n"),
        (b"a\r\nb\rc", b"a\nb\nc"),
        (b"\xef\xbb\xbfa\n", b"a\n"),
        ("é → \U0001f600\n".encode(), "é → \U0001f600\n".encode()),
        (b"\x0c\nform = 'feed'\n", b"\x0c\nform = 'feed'\n"),
        (b"one = 1\n" * 20_000, b"one = 1\n" * 20_000),
        (b"a" * 150 + b"\n\n", b"a" * 150 + b"\n\n"),
        (b"short = 1\n" * 300 + b"a" * 4000 + b"\n", b"short = 1\n" * 300 + b"a" * 4000 + b"\n"),
        (b"1, 2, 3, 4, 5\n", b"1, 2, 3, 4, 5\n"),  # too short to be told
    ],
)
def test_text(root: Path, data: bytes, text: bytes) -> None:
    assert text_of(root, data) == text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" \n\t\r\n",
        b"\xef\xbb\xbf",
        b"\x7fELF\0\0",
        "a = 1\n".encode("utf-16"),
        b"caf\xe9\n" * 100,
        b"\xed\xa0\x80\n",  # a surrogate
        b"var a=1;" * 100,
        b"x = 1\n" * 1000 + b"a" * 5001,
        b"0.123, 4.567, 8.901\n" * 100,
        b"x = 1\n" * 40_000,
    ],
    ids=range(11),
)
def test_no_text(root: Path, data: bytes) -> None:
    assert text_of(root, data) is None


def test_a_file_that_changed_since_it_was_listed(root: Path, tmp_path: Path) -> None:
    write(root, code("a.py", "b.py", "c.py", "d.py", "sub/e.py"))
    listed = {file.path: file for file in project_files(root).files}
    (root / "a.py").unlink()
    write(root, {"b.py": "x = 1\n" * 40_000})
    (root / "c.py").unlink()
    (root / "c.py").mkdir()
    (root / "d.py").unlink()
    write(tmp_path, code("outside/e.py"))
    (root / "d.py").symlink_to(tmp_path / "outside/e.py")
    (root / "sub/e.py").unlink()
    (root / "sub").rmdir()
    (root / "sub").symlink_to(tmp_path / "outside")
    assert {path: read_text(root, file) for path, file in listed.items()} == dict.fromkeys(listed)


@pytest.mark.parametrize(
    "path", ["../outside.py", "/etc/hostname", "", "sub", "sub/", "./a.py", "sub/../a.py", "a\0.py"]
)
def test_no_path_leads_out(root: Path, tmp_path: Path, path: str) -> None:
    write(tmp_path, code("outside.py"))
    write(root, code("a.py", "sub/b.py"))
    assert read_text(root, ProjectFile(path, 10, 0)) is None


def test_a_file_that_may_not_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, code("a.py"))

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    assert read_text(root, ProjectFile("a.py", 10, 0)) is None


def test_without_directory_descriptors(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on Windows.
    monkeypatch.setattr(os, "supports_dir_fd", set())
    write(root, code("a.py", "sub/b.py"))
    write(tmp_path, code("outside/c.py"))
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "link.py").symlink_to("a.py")
    assert read_text(root, ProjectFile("sub/b.py", 10, 0)) == CODE.encode()
    for path in ("link/c.py", "link.py", "../outside/c.py"):
        assert read_text(root, ProjectFile(path, 10, 0)) is None


def test_reading_leaves_nothing_open(root: Path) -> None:
    write(root, code("sub/deep/a.py", "b.py"))
    os.mkfifo(root / "pipe.py")
    opened = os.open(root, os.O_RDONLY)
    os.close(opened)
    for path in ("sub/deep/a.py", "none/a.py", "sub", "sub/deep/none.py", "pipe.py", "b.py/c.py"):
        read_text(root, ProjectFile(path, 10, 0))
    again = os.open(root, os.O_RDONLY)
    os.close(again)
    assert again == opened
