"""Which documents are completed."""

from __future__ import annotations

import pytest

from lsp_charrnn.config import Settings
from lsp_charrnn.project.secrets import is_secret
from lsp_charrnn.server.scope import Scope


@pytest.mark.parametrize(
    "path",
    [
        "/srv/project/.env", "/.env.production", "/a/prod.env", "/x/key.PEM", "/home/me/.ssh/id_ed25519", "/id_rsa.pub",
        "/home/me/.aws/credentials", "/home/me/.kube/config", "/.git-credentials", "/p/secrets.yaml",
        "/infra/terraform.tfstate", "/infra/terraform.tfstate.backup", "/infra/prod.tfvars", "/home/me/.my.cnf",
        "/home/me/kubeconfig", "/home/me/office.ovpn", "/ios/AuthKey_1.p8",
    ],
)  # fmt: skip
def test_secret(path: str) -> None:
    assert is_secret(path)


@pytest.mark.parametrize(
    "path",
    [
        "/srv/project/.env.example",
        "/srv/project/env.py",
        "/lib/secrets.py",
        "/keys.py",
        "/credentials",
        "/kube/config",
        "/infra/terraform.tfvars.example",
        "/infra/main.tf",
        "",
    ],
)
def test_not_secret(path: str) -> None:
    assert not is_secret(path)


def test_languages_and_globs() -> None:
    scope = Scope(Settings(disabled_languages=("Python",), disabled_globs=("build/", "*.min.js", "/docs/*.md")))
    assert scope.problems == []
    assert scope.why_off("python", "a.py") == "disabledLanguages has python"
    for path in ("build/x.js", "a/build/x.js", "a/b.min.js", "docs/a.md"):
        assert scope.why_off("other", path) is not None
    for path in ("builds/x.js", "b.js", "a/docs/a.md"):
        assert scope.why_off("other", path) is None


def test_a_glob_that_is_none_is_told_and_left_out() -> None:
    scope = Scope(Settings(disabled_globs=("!", "*.md")))
    (problem,) = scope.problems
    assert "'!'" in problem
    assert scope.why_off("markdown", "a.md") is not None
