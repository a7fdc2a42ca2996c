"""Parse addresses such as `s3://bucket/runs/qwen`, and hide the secrets in them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from polyrefuse_eval.errors import StorageError

SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
MAGIC = re.compile(r"[*?\[]")
CONTAINER_SCHEMES = ("abfs", "abfss", "wasb", "wasbs", "az")
"""Azure's schemes: the part before the `@` is the container, no secret."""

LOGIN_SCHEMES = ("ftp", "ftps", "sftp", "ssh", "smb", "http", "https", "webhdfs", "hdfs")
"""Schemes in which a user, and a password after a colon, may stand before an `@`."""

HIDDEN = "***"


def is_address(text: str) -> bool:
    """Return whether `text` is an address rather than a path: it begins with a scheme and `://`."""
    return bool(SCHEME.match(text))


@dataclass(frozen=True)
class Address:
    """The address of a run, of a folder of runs, or a pattern of these.

    `text` may hold a password: use `shown` in messages.
    """

    text: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address in `text`; raise `StorageError` for one that cannot be read and written."""
        scheme, rest = text.split("://", 1)
        address = cls(f"{scheme.lower()}://{rest.rstrip('/')}")
        if "::" in text:
            raise StorageError(f"'{address.shown}' is a chain of addresses; give a single address")
        if re.search(r"\?[^/]*=", text):
            raise StorageError(
                f"'{address.shown}' holds a query; give the address without it, and credentials by "
                "the environment or the configuration of the service's own tools"
            )
        if address.secrets and address.scheme not in LOGIN_SCHEMES:
            raise StorageError(
                f"'{address.shown}' holds a user or a key; give the address without it, and credentials "
                "by the environment or the configuration of the service's own tools"
            )
        if not address.name:
            raise StorageError(
                f"'{address.shown}' names no folder; expected one such as s3://bucket/runs/one"
            )
        return address

    def __str__(self) -> str:
        return self.shown

    @property
    def scheme(self) -> str:
        match = SCHEME.match(self.text)
        return match[1].lower() if match else ""

    @property
    def shown(self) -> str:
        """The address without user, password or query."""
        scheme, rest = self.text.split("://", 1)
        if scheme.lower() not in CONTAINER_SCHEMES:
            # A password may hold a slash: everything up to the last @ that follows a colon is one.
            rest = re.sub(r"^(?:[^/@]*@|[^@]*:[^@]*@)+", f"{HIDDEN}@", rest)
        rest = re.sub(r"\?[^/]*=.*", f"?{HIDDEN}", rest)
        return f"{scheme}://{rest}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Parts of the address that must not be shown."""
        user = re.match(r"^[^@]*@", self.text.split("://", 1)[1])
        if self.shown == self.text or not user:
            return ()
        parts = [user[0][:-1], *re.split("[:/]", user[0][:-1])]
        return tuple(sorted({part for part in parts if part}, key=len, reverse=True))

    @property
    def name(self) -> str:
        """The last part of the address, the name of a run."""
        return self.shown.split("://", 1)[1].strip("/").rpartition("/")[2]

    @property
    def is_pattern(self) -> bool:
        """Whether it may match several addresses: it holds `*`, `?` or `[`."""
        return bool(MAGIC.search(self.text))

    @property
    def fixed(self) -> Address:
        """The address before the first part that is a pattern."""
        match = MAGIC.search(self.text)
        return self if match is None else Address(self.text[: match.start()].rpartition("/")[0])

    def child(self, name: str) -> Address:
        """Return the address of `name`, a relative path, below this one."""
        return Address(f"{self.text}/{name}")


def is_inside(name: str) -> bool:
    """Return whether an object's name, as a relative path, stays inside the folder it is written to."""
    parts = name.split("/")
    plain = not any(ord(char) < 32 or char in "\\:" for char in name)
    return plain and all(part not in ("", ".", "..") for part in parts)
