"""Which documents are completed at all: not those with secrets, and not those that the user has switched off."""

from __future__ import annotations

from typing import Final

import pathspec

from lsp_charrnn.config import Settings

# Files that hold keys and passwords are neither read nor completed, whatever the settings say.
SECRET_FILES: Final = (
    ".env",
    ".env.*",
    "*.env",
    "!.env.example",
    "!.env.sample",
    "!.env.template",
    ".envrc",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.ppk",
    "*.asc",
    "*.gpg",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    ".netrc",
    "_netrc",
    ".pgpass",
    ".npmrc",
    ".pypirc",
    ".git-credentials",
    ".htpasswd",
    ".vault_pass*",
    "**/.aws/credentials",
    "**/.docker/config.json",
    "**/.kube/config",
    "credentials.json",
    "secrets.json",
    "secrets.toml",
    "secrets.yaml",
    "secrets.yml",
)


_SECRET: Final = pathspec.GitIgnoreSpec.from_lines(SECRET_FILES)


def is_secret(path: str) -> bool:
    """Say whether a file of that path (its whole path: some are told by their directory) holds keys or passwords."""
    return _SECRET.match_file(path.lower().lstrip("/"))


class Scope:
    """What the settings and the toggle leave switched on."""

    def __init__(self, settings: Settings) -> None:
        self._languages = frozenset(language.casefold() for language in settings.disabled_languages)
        self.problems: list[str] = []
        patterns = []
        for pattern in settings.disabled_globs:
            try:
                pathspec.GitIgnoreSpec.from_lines([pattern])
            except ValueError:
                self.problems.append(
                    f"setting 'disabledGlobs' has {pattern!r}, which is no pattern as in .gitignore: left it out."
                )
            else:
                patterns.append(pattern)
        self._globs = pathspec.GitIgnoreSpec.from_lines(patterns)

    def why_off(self, language: str, path: str) -> str | None:
        """Return why documents of that language and path are not completed, or None if they are."""
        if language.casefold() in self._languages:
            return f"disabledLanguages has {language}"
        if self._globs.match_file(path):
            return "disabledGlobs has a pattern that matches this file"
        return None
