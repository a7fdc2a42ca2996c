"""A Hub on loopback that the real clients speak to, and that misbehaves on purpose.

It keeps data sets and Spaces as lists of commits in memory and answers what `huggingface_hub` and `datasets`
ask: creation, pre-upload, LFS basic transfer, commits against a parent, tags, refs, history, tree, resolve
with ranges and ETags, settings, gated access. `fault()` arranges for an answer to go wrong.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

WRITE_TOKEN = "hf_loopbackWriteTokenThatMustNeverShow"  # noqa: S105 (of the loopback server only)
READ_TOKEN = "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"  # noqa: S105
STRANGER_TOKEN = "hf_loopbackStrangerTokenThatMustNeverShow"  # noqa: S105
TOKENS = {
    WRITE_TOKEN: {"name": "acme", "role": "write"},
    READ_TOKEN: {"name": "acme", "role": "read"},
    STRANGER_TOKEN: {"name": "stranger", "role": "write"},
}
LFS_SUFFIXES = (".parquet",)
DATE = "2026-01-01T00:00:00.000Z"
TREE_PAGE = 20
"""Entries of a tree that one answer holds: few, so that clients have to follow the links."""

LICENCES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "other"}
SIZES = {"n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M"}


@dataclass(frozen=True)
class Blob:
    """A file of a commit: its content by sha256, and whether it is kept by LFS."""

    sha256: str
    size: int
    lfs: bool
    git_oid: str


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    title: str
    files: dict[str, Blob]


@dataclass
class Repo:
    """A data set or a Space."""

    owner: str
    private: bool = True
    gated: str | bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    head: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    granted: set[str] = field(default_factory=set)
    sdk: str | None = None
    """What runs a Space; None for a data set."""

    def resolve(self, revision: str) -> Commit | None:
        sha = self.head if revision in ("main", "refs/heads/main") else self.tags.get(revision, revision)
        return self.commits.get(sha)

    def add(self, title: str, files: dict[str, Blob]) -> Commit:
        text = json.dumps(
            [self.head, title, {name: blob.sha256 for name, blob in files.items()}, len(self.commits)]
        )
        commit = Commit(hashlib.sha1(text.encode()).hexdigest(), self.head or None, title, files)  # noqa: S324
        self.commits[commit.sha] = commit
        self.head = commit.sha
        return commit


@dataclass
class Fault:
    """What goes wrong: an answer of `status`, a dropped connection, an altered body, or a wait.

    `after` lets the request take its effect first, so that only the answer is lost. It strikes `times` times,
    after `skip` requests that matched.
    """

    method: str
    path: re.Pattern[str]
    status: int | None = None
    drop: bool = False
    corrupt: bool = False
    stall: threading.Event | None = None
    before: Callable[[], None] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "as arranged"
    after: bool = False
    times: int = 10**6
    skip: int = 0
    reached: threading.Event = field(default_factory=threading.Event)


class _AnsweredError(Exception):
    """The request has been answered with an error."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class LoopbackHub:
    """The server and all it holds; use as a context manager."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.contents: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, int]] = []
        """Method, path and number of bytes received, in order of arrival."""
        self.tokens_at_store: list[str] = []
        """Paths of requests to the store of large files that carried a token: there must be none."""
        self.lock = threading.RLock()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def store_url(self) -> str:
        """The store of large files: for clients another host, which must not get to see the token."""
        return f"http://localhost:{self._server.server_address[1]}"

    def __enter__(self) -> LoopbackHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for fault in self.faults:
            if fault.stall is not None:
                fault.stall.set()
        self._server.shutdown()
        self._server.server_close()

    def fault(self, method: str, path: str, **what: Any) -> Fault:
        """Arrange for requests of `method` whose path matches `path` to go wrong; see `Fault`."""
        fault = Fault(method, re.compile(path), **what)
        self.faults.append(fault)
        return fault

    @contextmanager
    def stalled(self, method: str, path: str, **what: Any) -> Iterator[Fault]:
        """Let matching requests wait until the block ends."""
        fault = self.fault(method, path, stall=threading.Event(), **what)
        try:
            yield fault
        finally:
            assert fault.stall is not None
            fault.stall.set()
            self.faults.remove(fault)

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """Return the files of a revision as the Hub shows them."""
        commit = self.repos[name].resolve(revision)
        assert commit is not None, revision
        return {path: self.contents[blob.sha256] for path, blob in commit.files.items()}

    def sent(self) -> list[tuple[str, str, int]]:
        """Return the requests so far that could change something, and forget all requests."""
        changing = [one for one in self.requests if one[0] in ("POST", "PUT", "DELETE")]
        self.requests.clear()
        return changing

    def blob(self, data: bytes, lfs: bool) -> Blob:
        sha256 = hashlib.sha256(data).hexdigest()
        self.contents[sha256] = data
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324
        return Blob(sha256, len(data), lfs, git)


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    # One packet an answer: else every one of them waits for the client's delayed acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 (as http.server calls them)

    # ---- the frame: read the body, strike with a fault, route, answer

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else self._chunks()
        split = urlsplit(self.path)
        self.route, self.query = split.path, parse_qs(split.query)
        with self.hub.lock:
            self.hub.requests.append((self.command, unquote(self.route), len(self.body)))
            if self.route.startswith(("/cdn/", "/lfs-store/")) and self.headers.get("Authorization"):
                self.hub.tokens_at_store.append(self.route)
            fault = self._next_fault()
        self.fault = fault
        if fault is not None:
            fault.reached.set()
            if fault.before is not None:
                fault.before()
            if not fault.after and self._strike(fault):
                return
        try:
            with self.hub.lock:
                answer = self._answer()
        except _AnsweredError as error:
            answer = (error.status, {"error": error.message}, self._error_headers(error.message, error.code))
        if fault is not None and fault.after and self._strike(fault):
            return
        self._send(*answer)

    def _chunks(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return b""
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _next_fault(self) -> Fault | None:
        for fault in self.hub.faults:
            if fault.method == self.command and fault.path.search(unquote(self.route)):
                if fault.skip > 0:
                    fault.skip -= 1
                elif fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def _strike(self, fault: Fault) -> bool:
        """Let the fault happen; return whether the request is done with."""
        if fault.stall is not None:
            fault.stall.wait()
        if fault.drop:
            self.close_connection = True
            self.connection.close()
            return True
        if fault.status is not None:
            headers = {**self._error_headers(fault.message, None), **fault.headers}
            self._send(fault.status, {"error": fault.message}, headers)
            return True
        return False

    @staticmethod
    def _error_headers(message: str, code: str | None) -> dict[str, str]:
        return {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = dict(headers or {})
        if self.fault is not None and self.fault.corrupt and isinstance(body, bytes) and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        self.send_response(status)
        headers.setdefault("Content-Type", "application/json")
        headers.setdefault("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    # ---- who asks, and what they may see

    def _user(self) -> dict[str, str] | None:
        header = self.headers.get("Authorization") or ""
        if not header.startswith("Bearer "):
            return None
        user = TOKENS.get(header.removeprefix("Bearer "))
        if user is None:
            raise _AnsweredError(401, "Invalid credentials in Authorization header")
        return user

    def _repo(self, name: str, write: bool = False, files: bool = False) -> Repo:
        user = self._user()
        repo = self.hub.repos.get(name)
        mine = repo is not None and user is not None and user["name"] == repo.owner
        if repo is None or (repo.private and not mine):
            if user is None:
                raise _AnsweredError(401, "Repository not found", "RepoNotFound")
            raise _AnsweredError(404, "Repository not found", "RepoNotFound")
        if write and (user is None or user["role"] != "write" or not mine):
            raise _AnsweredError(403, "You don't have the rights to write to this data set")
        if files and repo.gated and not mine and (user or {}).get("name") not in repo.granted:
            raise _AnsweredError(
                403 if user else 401, f"Access to dataset {name} is restricted; ask for access", "GatedRepo"
            )
        return repo

    def _commit(self, repo: Repo, revision: str) -> Commit:
        commit = repo.resolve(revision)
        if commit is None:
            raise _AnsweredError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # ---- routes

    def _answer(self) -> tuple[int, Any, dict[str, str]]:
        for method, pattern, serve in _ROUTES:
            match = re.fullmatch(pattern, self.route)
            if match and self.command in method:
                return serve(
                    self, **{key: unquote(value) for key, value in match.groupdict().items() if value}
                )
        raise _AnsweredError(404, f"no route {self.command} {self.route}")

    def _json(self) -> Any:
        return json.loads(self.body or b"{}")

    def whoami(self) -> tuple[int, Any, dict[str, str]]:
        user = self._user()
        if user is None:
            raise _AnsweredError(401, "Invalid username or password.")
        return (
            200,
            {"name": user["name"], "type": "user", "auth": {"accessToken": {"role": user["role"]}}},
            {},
        )

    def create(self) -> tuple[int, Any, dict[str, str]]:
        user, asked = self._user(), self._json()
        if user is None:
            raise _AnsweredError(401, "Invalid username or password.")
        owner = asked.get("organization") or user["name"]
        if user["role"] != "write" or owner != user["name"]:
            raise _AnsweredError(
                403, f"You don't have the rights to create a dataset under the namespace {owner}"
            )
        name = f"{owner}/{asked['name']}"
        if name in self.hub.repos:
            return (
                409,
                {"error": "You already created this dataset repo", "url": f"{self.hub.url}/datasets/{name}"},
                {},
            )
        private = asked.get("private", asked.get("visibility") == "private")
        repo = self.hub.repos[name] = Repo(owner, bool(private), sdk=asked.get("sdk"))
        files = {".gitattributes": b"*.parquet filter=lfs\n"}
        if asked.get("type") == "space":
            files |= {"README.md": b"---\nsdk: static\n---\n", "index.html": b"welcome", "style.css": b"p {}"}
        repo.add("initial commit", {path: self.hub.blob(data, False) for path, data in files.items()})
        return 200, {"url": f"{self.hub.url}/{asked['type']}s/{name}", "name": name, "id": name}, {}

    def validate_yaml(self) -> tuple[int, Any, dict[str, str]]:
        errors = metadata_errors(self._json()["content"])
        return (400 if errors else 200), {"errors": [{"message": one} for one in errors], "warnings": []}, {}

    def info(self, name: str, revision: str = "main") -> tuple[int, Any, dict[str, str]]:
        repo = self._repo(name)
        commit = self._commit(repo, revision)
        value = {
            "_id": "0" * 24,
            "id": name,
            "author": repo.owner,
            "sha": commit.sha,
            "private": repo.private,
            "gated": repo.gated,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "lastModified": DATE,
            "createdAt": DATE,
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
            **({} if repo.sdk is None else {"sdk": repo.sdk}),
        }
        return 200, value, {}

    def settings(self, name: str) -> tuple[int, Any, dict[str, str]]:
        repo, asked = self._repo(name, write=True), self._json()
        if "gated" in asked:
            repo.gated = asked["gated"]
        if "visibility" in asked or "private" in asked:
            repo.private = asked.get("private", asked.get("visibility") == "private")
        return 200, {"private": repo.private, "gated": repo.gated}, {}

    def preupload(self, name: str, revision: str) -> tuple[int, Any, dict[str, str]]:
        commit = self._commit(self._repo(name, write=True), revision)
        files = []
        for one in self._json()["files"]:
            there = commit.files.get(one["path"])
            oid = (there.sha256 if there.lfs else there.git_oid) if there else None
            mode = "lfs" if one["path"].endswith(LFS_SUFFIXES) else "regular"
            files.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return 200, {"files": files}, {}

    def lfs_batch(self, name: str) -> tuple[int, Any, dict[str, str]]:
        self._repo(name, write=True)
        objects = []
        for one in self._json()["objects"]:
            value = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.hub.contents:
                value["actions"] = {
                    "upload": {"href": f"{self.hub.store_url}/lfs-store/{one['oid']}"},
                    "verify": {"href": f"{self.hub.url}/lfs-verify/{name}"},
                }
            objects.append(value)
        return (
            200,
            {"transfer": "basic", "objects": objects},
            {"Content-Type": "application/vnd.git-lfs+json"},
        )

    def lfs_put(self, sha256: str) -> tuple[int, Any, dict[str, str]]:
        if hashlib.sha256(self.body).hexdigest() != sha256:
            raise _AnsweredError(400, "the content has another sha256")
        self.hub.contents[sha256] = self.body
        return 200, b"", {}

    def lfs_verify(self, name: str) -> tuple[int, Any, dict[str, str]]:
        self._repo(name, write=True)
        asked = self._json()
        if len(self.hub.contents.get(asked["oid"], b"")) != asked["size"]:
            raise _AnsweredError(404, "no such object")
        return 200, {}, {}

    def commit(self, name: str, revision: str) -> tuple[int, Any, dict[str, str]]:
        repo = self._repo(name, write=True)
        head = self._commit(repo, revision)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, head.sha):
            raise _AnsweredError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = self.hub.blob(base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.contents:
                    raise _AnsweredError(400, f"LFS object {value['oid']} is not there")
                files[value["path"]] = self.hub.blob(self.hub.contents[value["oid"]], True)
            elif line["key"] == "deletedFile" and files.pop(value["path"], None) is None:
                raise _AnsweredError(404, "A file with this name doesn't exist", "EntryNotFound")
        made = repo.add(header["summary"], files)
        url = f"{self.hub.url}/datasets/{name}/commit/{made.sha}"
        return 200, {"success": True, "commitUrl": url, "commitOid": made.sha, "hookOutput": ""}, {}

    def tag(self, name: str, revision: str) -> tuple[int, Any, dict[str, str]]:
        repo = self._repo(name, write=True)
        tag = self._json()["tag"]
        if tag in repo.tags:
            raise _AnsweredError(409, f"Tag {tag} already exists")
        repo.tags[tag] = self._commit(repo, revision).sha
        return 201, {}, {}

    def refs(self, name: str) -> tuple[int, Any, dict[str, str]]:
        repo = self._repo(name)
        tags = [
            {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": sha}
            for tag, sha in sorted(repo.tags.items())
        ]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head}
        return 200, {"branches": [main], "converts": [], "tags": tags}, {}

    def history(self, name: str, revision: str) -> tuple[int, Any, dict[str, str]]:
        repo = self._repo(name)
        commits = []
        commit: Commit | None = self._commit(repo, revision)
        while commit is not None:
            commits.append(
                {
                    "id": commit.sha,
                    "title": commit.title,
                    "message": "",
                    "authors": [],
                    "date": DATE,
                }
            )
            commit = repo.commits[commit.parent] if commit.parent else None
        return 200, commits, {}

    @staticmethod
    def _entry(path: str, blob: Blob) -> dict[str, Any]:
        value: dict[str, Any] = {"type": "file", "path": path, "size": blob.size, "oid": blob.git_oid}
        if blob.lfs:
            value["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 130}
        return value

    def tree(self, name: str, revision: str, under: str = "") -> tuple[int, Any, dict[str, str]]:
        commit = self._commit(self._repo(name), revision)
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        prefix = under.rstrip("/") + "/" if under else ""
        entries: dict[str, dict[str, Any]] = {}
        for path, blob in sorted(commit.files.items()):
            if not path.startswith(prefix):
                continue
            folders = path.removeprefix(prefix).split("/")[:-1]
            for depth in range(1, len(folders) + 1):
                folder = prefix + "/".join(folders[:depth])
                if recursive or depth == 1:
                    oid = hashlib.sha1(folder.encode()).hexdigest()  # noqa: S324
                    entries[folder] = {"type": "directory", "path": folder, "oid": oid, "size": 0}
            if recursive or not folders:
                entries[path] = self._entry(path, blob)
        if under and not entries:
            raise _AnsweredError(404, f"{under} does not exist", "EntryNotFound")
        start = int(self.query.get("cursor", ["0"])[0])
        page = list(entries.values())[start : start + TREE_PAGE]
        headers = {}
        if start + TREE_PAGE < len(entries):
            link = f"{self.hub.url}{self.route}?recursive={recursive}&cursor={start + TREE_PAGE}"
            headers["Link"] = f'<{link}>; rel="next"'
        return 200, page, headers

    def paths_info(self, name: str, revision: str) -> tuple[int, Any, dict[str, str]]:
        commit = self._commit(self._repo(name), revision)
        asked = self._json() if self.body.startswith(b"{") else parse_qs(self.body.decode())
        paths = asked["paths"] if isinstance(asked["paths"], list) else [asked["paths"]]
        found = []
        for path in paths:
            if path in commit.files:
                found.append(self._entry(path, commit.files[path]))
            elif any(name.startswith(f"{path}/") for name in commit.files):
                found.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
        return 200, found, {}

    def resolve(self, name: str, revision: str, path: str) -> tuple[int, Any, dict[str, str]]:
        repo = self._repo(name, files=True)
        commit = self._commit(repo, revision)
        blob = commit.files.get(path)
        if blob is None:
            headers = {**self._error_headers("Entry not found", "EntryNotFound"), "X-Repo-Commit": commit.sha}
            return 404, {"error": "Entry not found"}, headers
        headers = {"X-Repo-Commit": commit.sha}
        if blob.lfs:
            headers.update(
                {
                    "X-Linked-Etag": f'"{blob.sha256}"',
                    "X-Linked-Size": str(blob.size),
                    "Location": f"{self.hub.store_url}/cdn/{blob.sha256}",
                }
            )
            return 302, b"", headers
        return self._content(self.hub.contents[blob.sha256], {**headers, "ETag": f'"{blob.git_oid}"'})

    def cdn(self, sha256: str) -> tuple[int, Any, dict[str, str]]:
        if sha256 not in self.hub.contents:
            raise _AnsweredError(404, "no such object")
        return self._content(self.hub.contents[sha256], {"ETag": f'"{sha256}"'})

    def _content(self, data: bytes, headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        headers = {**headers, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if not match or not data:
            return 200, data, headers
        first, last = match.groups()
        start = int(first) if first else max(0, len(data) - int(last))
        end = min(int(last) if last and first else len(data) - 1, len(data) - 1)
        if start > end:
            return 416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"}
        return 206, data[start : end + 1], {**headers, "Content-Range": f"bytes {start}-{end}/{len(data)}"}


_KIND = "(?:datasets|spaces)"
_NAME = r"(?P<name>[^/]+/[^/]+)"
_ROUTES: tuple[tuple[tuple[str, ...], str, Callable[..., tuple[int, Any, dict[str, str]]]], ...] = (
    (("GET",), r"/api/whoami-v2", _Handler.whoami),
    (("POST",), r"/api/repos/create", _Handler.create),
    (("POST",), r"/api/validate-yaml", _Handler.validate_yaml),
    (("GET",), rf"/api/{_KIND}/{_NAME}", _Handler.info),
    (("GET",), rf"/api/{_KIND}/{_NAME}/revision/(?P<revision>[^/]+)", _Handler.info),
    (("PUT",), rf"/api/{_KIND}/{_NAME}/settings", _Handler.settings),
    (("POST",), rf"/api/{_KIND}/{_NAME}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    (("POST",), rf"/api/{_KIND}/{_NAME}/commit/(?P<revision>[^/]+)", _Handler.commit),
    (("POST",), rf"/api/{_KIND}/{_NAME}/tag/(?P<revision>[^/]+)", _Handler.tag),
    (("GET",), rf"/api/{_KIND}/{_NAME}/refs", _Handler.refs),
    (("GET",), rf"/api/{_KIND}/{_NAME}/commits/(?P<revision>[^/]+)", _Handler.history),
    (("GET",), rf"/api/{_KIND}/{_NAME}/tree/(?P<revision>[^/]+)(?:/(?P<under>.+))?", _Handler.tree),
    (("POST",), rf"/api/{_KIND}/{_NAME}/paths-info/(?P<revision>[^/]+)", _Handler.paths_info),
    (("POST",), rf"/{_KIND}/{_NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (("PUT",), r"/lfs-store/(?P<sha256>[0-9a-f]{64})", _Handler.lfs_put),
    (("POST",), rf"/lfs-verify/{_NAME}", _Handler.lfs_verify),
    (("GET", "HEAD"), rf"/{_KIND}/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
    (("GET", "HEAD"), r"/cdn/(?P<sha256>[0-9a-f]{64})", _Handler.cdn),
)


def metadata_errors(card: str) -> list[str]:
    """Return what the Hub's metadata check would say of a card, as far as this server knows its rules."""
    match = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    if not match:
        return ["no YAML metadata"]
    try:
        head = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"YAML: {error}"]
    errors = []
    if head.get("license") not in LICENCES:
        errors.append(f'"license" must be one of the known licences, not {head.get("license")}')
    if head.get("license") == "other" and not head.get("license_name"):
        errors.append('"license_name" must be given with license: other')
    for code in head.get("language", []):
        if not isinstance(code, str) or not re.fullmatch(r"[a-z]{2,3}", code):
            errors.append(f'"language" {code} is no ISO 639 code')
    if not set(head.get("size_categories", [])) <= SIZES:
        errors.append('"size_categories" unknown')
    for config in head.get("configs", []):
        if not isinstance(config.get("config_name"), str):
            errors.append('"configs" without a text "config_name"')
    for text in ("extra_gated_prompt", "extra_gated_heading", "pretty_name"):
        if not isinstance(head.get(text, ""), str):
            errors.append(f'"{text}" must be a text')
    return errors
