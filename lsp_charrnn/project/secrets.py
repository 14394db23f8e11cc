"""Which files hold keys and passwords: they are neither read nor completed, whatever the settings say.

By their names alone, since looking into them is what must not happen. The server (documents) and the project's memory
(files) share this list. Secrets within a source file are not told here.
"""

from __future__ import annotations

from typing import Final

import pathspec

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
    ".authinfo",
    ".my.cnf",
    ".dockercfg",
    ".s3cfg",
    ".boto",
    "kubeconfig",
    "*.kubeconfig",
    "*.ovpn",
    "*.p8",
    "*.pkcs12",
    "*.tfstate",
    "*.tfstate.*",
    "*.tfvars",
    "*.tfvars.json",
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
    # A line end in a directory's name would hide the rest from the patterns: `.` matches none.
    return _SECRET.match_file(path.lower().lstrip("/").replace("\n", " "))
