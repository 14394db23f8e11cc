"""Which documents the user has switched off. Which ones hold secrets is told by `project.secrets`."""

from __future__ import annotations

import pathspec

from lsp_charrnn.config import Settings


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
