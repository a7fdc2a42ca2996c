"""Read and change one data set or Space on the Hub through `huggingface_hub`; errors are one line.

Works with the client's generations 1 (httpx) and 2 (httpx2), of which it uses only what both have.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyrefuse_data.core.errors import PublishError
from polyrefuse_data.core.files import temporary_folder
from polyrefuse_data.core.hub_access import hub_is_reachable
from polyrefuse_data.core.paths import file_sha256
from polyrefuse_data.publish.hub_errors import HubError, explain, is_bad_token, status_of

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi

    Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
SERVER_FILES = (".gitattributes",)
"""Files that the Hub makes itself and that are left as they are."""

STATIC = "static"
"""The SDK of a Space that serves files as they are."""

NOT_LOST = "nothing was published"


@dataclass(frozen=True)
class RemoteFile:
    """A file of a revision. `sha256` is known of files in large storage only; `git_oid` of the others."""

    path: str
    size: int
    sha256: str | None
    git_oid: str

    def is_same_as(self, path: Path) -> bool:
        """Return whether the file at `path` has the same bytes, by the hash that the Hub gives."""
        if self.size != path.stat().st_size:
            return False
        if self.sha256 is not None:
            return self.sha256 == file_sha256(path)
        return self.git_oid == git_oid(path)


def git_oid(path: Path) -> str:
    """Return the id that git gives to the file's content (sha1 of a header and the bytes)."""
    hasher = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


@dataclass(frozen=True)
class RemoteState:
    """The state of a repository on the Hub: commit of its main branch, visibility, gate, tags.

    `sdk` is what runs a Space, None for a data set.
    """

    head: str
    private: bool
    gated: str | bool
    tags: Mapping[str, str]
    """Name -> commit."""
    sdk: str | None = None


class HubRepository:
    """A repository on the Hub. Every method raises `PublishError` in one line, without the token in it.

    `outcome` is what such a line says of the work that did not happen.
    """

    repo_type = ""
    noun = ""
    """What messages call it."""
    _create_options: Mapping[str, Any] = {}

    def __init__(self, name: str, api: HfApi | None = None, outcome: str = NOT_LOST) -> None:
        if not NAME.fullmatch(name) or ".." in name or "--" in name:
            raise PublishError(
                f"'{name}' is not the name of a {self.noun} on the Hub; expected NAMESPACE/NAME, as "
                "acme/polyrefuse"
            )
        from huggingface_hub import HfApi, get_token

        self.name = name
        self.outcome = outcome
        self._reached = False
        self.api = api or HfApi(token=get_token() or False)

    @property
    def has_token(self) -> bool:
        """Whether a token is at hand."""
        return bool(self.api.token)

    def check_token(self) -> None:
        """Raise unless there is a token, the Hub knows it, and it is not for reading only."""
        if not self.has_token:
            raise PublishError(
                "no token for the Hub; make one with write access in the Hub's settings, then set HF_TOKEN "
                "or run `hf auth login`"
            )
        with self._one_line("asking who the token belongs to"):
            who = self.api.whoami()
        role = ((who.get("auth") or {}).get("accessToken") or {}).get("role")
        if role == "read":
            raise PublishError(
                f"the token of {who.get('name')} may only read; publishing to {self.name} needs one with "
                "write access"
            )

    def state(self) -> RemoteState | None:
        """Return the state, or None if the repository does not exist (or the token may not see it)."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        with self._one_line(f"reading {self.name}"):
            try:
                info = self.api.repo_info(self.name, repo_type=self.repo_type, revision="main")
                refs = self.api.list_repo_refs(self.name, repo_type=self.repo_type)
            except GatedRepoError:
                raise
            except RepositoryNotFoundError as error:
                if is_bad_token(error):
                    raise
                return None
        tags = {tag.name: tag.target_commit for tag in refs.tags}
        return RemoteState(
            head=str(info.sha),
            private=bool(info.private),
            gated=getattr(info, "gated", None) or False,
            tags=tags,
            sdk=getattr(info, "sdk", None),
        )

    def commit_of(self, revision: str) -> str:
        """Return the commit that a branch, tag or commit id names."""
        with self._one_line(f"reading {self.name} at {revision}"):
            return str(self.api.repo_info(self.name, repo_type=self.repo_type, revision=revision).sha)

    def files(self, revision: str) -> dict[str, RemoteFile]:
        """Return path -> file of a revision, without those that the Hub makes itself."""
        from huggingface_hub.hf_api import RepoFile

        files = {}
        with self._one_line(f"listing {self.name}"):
            for entry in self.api.list_repo_tree(
                self.name, recursive=True, revision=revision, repo_type=self.repo_type
            ):
                if isinstance(entry, RepoFile) and entry.path not in SERVER_FILES:
                    sha256 = entry.lfs.sha256 if entry.lfs else None
                    files[entry.path] = RemoteFile(entry.path, entry.size, sha256, entry.blob_id)
        return files

    def create_private(self) -> None:
        """Create the repository, private."""
        with self._one_line(f"creating {self.name}"):
            self.api.create_repo(self.name, repo_type=self.repo_type, private=True, **self._create_options)

    def change_settings(self, *, gated: str | None = None, private: bool | None = None) -> None:
        """Turn gating on, or change who sees the repository; read back what the Hub made of it."""
        given = {key: value for key, value in (("gated", gated), ("private", private)) if value is not None}
        with self._one_line(f"changing the settings of {self.name}"):
            self.api.update_repo_settings(self.name, repo_type=self.repo_type, **given)  # type: ignore[arg-type]
            info = self.api.repo_info(self.name, repo_type=self.repo_type)
        if gated is not None and info.gated != gated:
            raise PublishError(
                f"{self.name}: the Hub did not turn gating to '{gated}' (it says {info.gated}); {NOT_LOST}"
            )
        if private is not None and info.private != private:
            raise PublishError(
                f"{self.name}: the Hub did not make the {self.noun} {'private' if private else 'public'}"
            )

    def commit(self, operations: Sequence[Operation], parent: str, title: str, description: str = "") -> str:
        """Make one commit on main, whose parent must still be `parent`; return its id."""
        with self._one_line(f"publishing to {self.name}"):
            made = self.api.create_commit(
                self.name,
                operations,
                commit_message=title,
                commit_description=description,
                repo_type=self.repo_type,
                revision="main",
                parent_commit=parent,
                num_threads=4,
            )
        return str(made.oid)

    def tag(self, tag: str, commit: str, message: str) -> None:
        """Name a commit."""
        with self._one_line(f"tagging {self.name}", lost="the files are published, the tag is not"):
            self.api.create_tag(
                self.name, tag=tag, tag_message=message, revision=commit, repo_type=self.repo_type
            )

    @contextmanager
    def downloaded(self, path: str, revision: str, lost: str | None = None) -> Iterator[Path]:
        """Yield a local copy of one file, read from the Hub and not from any cache; it is gone afterwards."""
        with temporary_folder() as folder:
            with self._one_line(f"reading {path} of {self.name}", lost=lost):
                local = self.api.hf_hub_download(
                    self.name,
                    path,
                    repo_type=self.repo_type,
                    revision=revision,
                    cache_dir=folder,
                    force_download=True,
                )
            yield Path(local)

    @contextmanager
    def _one_line(self, doing: str, lost: str | None = None) -> Iterator[None]:
        """Convert what the client raises to one line that says what happened and what to do."""
        lost = lost or self.outcome
        self._check_client(doing, lost)
        try:
            yield
        except (PublishError, TypeError, AttributeError):  # the latter two are ours to mend, not the Hub's
            raise
        except Exception as error:
            # From None: the chain holds requests with their headers, and so the token.
            line = explain(error, self.name, self.noun, doing, lost)
            raise HubError(self._redacted(line), status_of(error)) from None

    def _check_client(self, doing: str, lost: str) -> None:
        """Raise where the client cannot send anything: it is offline, or its token cannot be sent."""
        from huggingface_hub import constants

        if constants.HF_HUB_OFFLINE:
            raise PublishError(
                f"the Hub's client is in offline mode, since HF_HUB_OFFLINE is set ({doing}); unset it and "
                f"run again; {lost}"
            )
        if not self._reached:
            if not hub_is_reachable(self.api.endpoint):
                raise HubError(f"the Hub at {self.api.endpoint} cannot be reached ({doing}); {lost}", None)
            self._reached = True
        token = self.api.token
        if isinstance(token, str) and not (token.isascii() and token.isprintable()):
            raise PublishError(
                "the token holds characters that no token has (pasted with typographic quotes?); set "
                f"HF_TOKEN to the bare token; {lost}"
            )

    def _redacted(self, text: str) -> str:
        token = self.api.token
        return text.replace(token, "***") if isinstance(token, str) and token else text


class HubDataset(HubRepository):
    """A data set on the Hub."""

    repo_type = "dataset"
    noun = "data set"


class HubSpace(HubRepository):
    """A static Space on the Hub: files that the Hub serves as they are."""

    repo_type = "space"
    noun = "Space"
    _create_options: Mapping[str, Any] = {"space_sdk": STATIC}

    def has_one_commit(self) -> bool:
        """Return whether the Space is as the Hub created it, with the files of its template."""
        with self._one_line(f"reading {self.name}"):
            return len(self.api.list_repo_commits(self.name, repo_type=self.repo_type)) == 1
