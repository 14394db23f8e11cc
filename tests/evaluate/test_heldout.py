"""Which files are measured: the same ones whenever and wherever it runs."""

import pytest

from lsp_charrnn.errors import CorpusError
from lsp_charrnn.evaluate.heldout import heldout_files, name_of, take_in_turn


@pytest.fixture
def project(tmp_path):
    for name, text in {
        "src/shop/cart.py": "class Cart:\n    pass\n",
        "src/shop/total.py": "def total(items):\r\n    return sum(items)\r\n",
        "src/shop/_vendor/copied.py": "x = 1\n",
        "tests/test_cart.py": "def test_cart(): ...\n",
        "notes.txt": "not source\n",
    }.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return tmp_path / "shop"


def test_own_source_and_tests_are_kept_with_their_line_ends_read_as_one(project):
    heldout = heldout_files([project])
    assert [name_of(file) for file in heldout.files] == [
        "shop/src/shop/cart.py",
        "shop/src/shop/total.py",
        "shop/tests/test_cart.py",
    ]
    assert heldout.files[1].text == b"def total(items):\n    return sum(items)\n"
    assert heldout.characters == sum(len(file.text) for file in heldout.files)


def test_a_sample_is_as_long_as_asked_and_always_the_same(project):
    whole = {name_of(file): file.text for file in heldout_files([project]).files}
    sample = heldout_files([project], max_chars=30)
    assert sample.characters == 30
    assert sample == heldout_files([project], max_chars=30)
    assert all(whole[name_of(file)].startswith(file.text) for file in sample.files)
    assert heldout_files([project], max_chars=10**6).files == heldout_files([project]).files


def test_projects_come_in_turn(project):
    files = heldout_files([project]).files
    others = [type(file)("zoo", file.path, file.text, file.language) for file in files[:1]]
    order = [file.project for file in take_in_turn([*files, *others])]
    assert order == ["shop", "zoo", "shop", "shop"]


def test_an_empty_sample_is_refused(project):
    with pytest.raises(CorpusError, match="1 or more"):
        heldout_files([project], max_chars=0)


def test_single_projects_of_what_was_fetched_are_found_where_git_ignores_it(project):
    """As in this repository, which keeps `heldout/` out of git; a directory in it is what git ignores, and no more."""
    tree = project.parent
    (tree / ".git").mkdir()
    (tree / ".gitignore").write_text("/heldout/\n")
    for name in ("one", "two", "three"):
        (tree / "heldout" / name).mkdir(parents=True)
        (tree / "heldout" / name / "a.py").write_text(f"{name} = 1\n")
    (tree / "heldout" / ".lsp-charrnn-corpus.json").write_text('{"projects": {"one": {}, "two": {}, "three": {}}}')
    chosen = heldout_files([tree / "heldout"], projects=("two", "one"))
    assert [name_of(file) for file in chosen.files] == ["one/a.py", "two/a.py"]
    assert len(heldout_files([tree / "heldout"]).files) == 3
    with pytest.raises(CorpusError, match=r"no files of four\b"):
        heldout_files([tree / "heldout"], projects=("four",))
