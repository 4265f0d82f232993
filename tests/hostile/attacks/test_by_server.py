"""A hostile server"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from git_theta_ext.cli.github import uploaded, web
from git_theta_ext.core.errors import MissingObjectError, RepositoryError, ThetaError, TransferError
from git_theta_ext.drivers import pre_push
from git_theta_ext.evaluation import travel
from git_theta_ext.evaluation.kept import Kept, advance, tips
from git_theta_ext.evaluation.ref_names import REF
from git_theta_ext.evaluation.results import Result, Score
from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.model import UpdateRef
from git_theta_ext.objects.store.where import store_of
from git_theta_ext.objects.transfer import endpoints, folders, pointers, transport
from tests.hostile.attacks.sites import Asked, batch, offers, serve
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.objects import put
from tests.scenarios.pull_requests import GitHub, report
from tests.scenarios.repositories import Repo
from tests.servers.listening import Handler

NewRepo = Callable[..., Repo]
ABSENT = UpdateRef("dense", "ab" * 32, 100)


def connected(new_repo: NewRepo, url: str) -> Repository:
    """A repository whose objects lie at a server that the user chose."""
    repo = new_repo()
    repo.git("remote", "add", "origin", f"{url}/r")
    repo.git("config", "lfs.url", url)
    repo.git("config", "lfs.transfer.maxretries", "2")
    return Repository.discover(repo.path)


def stored(repository: Repository) -> int:
    """Bytes of all files below `.git/theta`."""
    folder = repository.common_dir / "theta"
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# -- sending too much, or nothing ------------------------------------------------------------------


def test_a_download_without_end(new_repo: NewRepo) -> None:
    """An object of a hundred bytes is sent as a stream that does not end, to fill the disk."""

    def answer(handler: Handler, asked: Asked) -> None:
        if batch(handler, asked, site):
            return
        handler.send_response(200)
        handler.end_headers()
        for _ in range(4000):
            handler.wfile.write(b"\0" * (1 << 16))
            time.sleep(0.005)
        finished.append(True)

    finished: list[bool] = []
    with serve(answer) as site:
        repository = connected(new_repo, site.url)
        with pytest.raises(MissingObjectError, match="sent more than the 100 bytes"):
            transport.fetch(repository, [ABSENT])
    assert not finished
    assert stored(repository) < 1 << 16


def test_a_download_that_drips(new_repo: NewRepo) -> None:
    """A byte now and then keeps a transfer alive for ever, though each is progress."""

    def answer(handler: Handler, asked: Asked) -> None:
        if batch(handler, asked, site):
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 20))
        handler.end_headers()
        for _ in range(300):
            handler.wfile.write(b"\0")
            time.sleep(0.1)

    with serve(answer) as site:
        repository = connected(new_repo, site.url)
        Repo(repository.top).git("config", "theta.transferTimeout", "2")
        start = time.monotonic()
        with pytest.raises(MissingObjectError, match="no progress for 2 seconds"):
            transport.fetch(repository, [UpdateRef("dense", "ab" * 32, 1 << 20)])
        assert time.monotonic() - start < 20


def test_try_again_in_thirty_years(new_repo: NewRepo) -> None:
    """A refusal for the moment asks the client to wait for a thousand million seconds."""

    def answer(handler: Handler, asked: Asked) -> None:
        handler.answer(429, {"message": "slow"}, {"Retry-After": "1000000000"})

    with serve(answer) as site:
        repository = connected(new_repo, site.url)
        Repo(repository.top).git("config", "theta.transferTimeout", "3")
        start = time.monotonic()
        with pytest.raises(ThetaError):
            transport.fetch(repository, [ABSENT])
        assert time.monotonic() - start < 20
        assert len(site.asked) < 20


def test_other_bytes_than_were_asked_for(new_repo: NewRepo) -> None:
    """Objects of the right length and of other bytes are sent, to become somebody's weights."""

    def answer(handler: Handler, asked: Asked) -> None:
        if not batch(handler, asked, site):
            handler.answer(200, b"x" * 100)

    with serve(answer) as site:
        repository = connected(new_repo, site.url)
        with pytest.raises(MissingObjectError):
            transport.fetch(repository, [ABSENT])
    assert not list(store_of(repository).oids())


def test_objects_that_nobody_asked_for(new_repo: NewRepo) -> None:
    """The answer to a batch lists a thousand objects that the manifest does not name."""

    def answer(handler: Handler, asked: Asked) -> None:
        if asked.path.endswith("/objects/batch"):
            more = [{"oid": f"{n:064x}", "size": 1} for n in range(1000)]
            handler.answer(200, offers([*asked.objects, *more, *asked.objects], site.url))
        else:
            handler.answer(200, b"x")

    with serve(answer) as site:
        repository = connected(new_repo, site.url)
        with pytest.raises(MissingObjectError):
            transport.fetch(repository, [ABSENT])
    assert not list(store_of(repository).oids())
    assert stored(repository) < 4096


# -- lies about what is there ----------------------------------------------------------------------


@pytest.mark.sample(2)
@pytest.mark.parametrize("offered", [True, False])
def test_everything_is_there_already(new_repo: NewRepo, offered: bool) -> None:
    """A server says of a whole push that it has the objects, so that nothing is sent to it."""

    def answer(handler: Handler, asked: Asked) -> None:
        if not asked.path.endswith("/objects/batch"):
            handler.answer(404)
        elif json.loads(asked.body)["operation"] == "upload":
            rows = [{"oid": one["oid"], "size": one["size"]} for one in asked.objects]
            handler.answer(200, {"objects": rows})
        elif offered:
            handler.answer(200, offers(asked.objects, site.url))
        else:
            error = {"error": {"code": 404, "message": "no"}}
            handler.answer(200, {"objects": [{**one, **error} for one in asked.objects]})

    with serve(answer) as site:
        repository = connected(new_repo, site.url)
        (item,) = put(repository, b"x" * 1000)
        with pytest.raises(TransferError, match=r"do not exist|not offer it"):
            transport.push(repository, "origin", f"{site.url}/r", [item])
        endpoint = endpoints.for_push(repository, "origin", f"{site.url}/r")
        assert item.oid not in endpoints.Confirmed(repository, endpoint).read()


def test_an_upload_to_nowhere(new_repo: NewRepo) -> None:
    """A server takes every upload, keeps none, and says in the end that it does not have them."""

    def answer(handler: Handler, asked: Asked) -> None:
        if asked.path.endswith("/objects/batch"):
            rows = [
                {
                    "oid": one["oid"], "size": one["size"],
                    "actions": {
                        "upload": {"href": f"{site.url}/up"},
                        "verify": {"href": f"{site.url}/verify"},
                    },
                }
                for one in asked.objects
            ]  # fmt: skip
            handler.answer(200, {"transfer": "basic", "objects": rows})
        else:
            handler.answer(422 if asked.path == "/verify" else 200, {"message": "not here"})

    with serve(answer) as site:
        repository = connected(new_repo, site.url)
        with pytest.raises(TransferError):
            transport.push(repository, "origin", f"{site.url}/r", put(repository, b"x" * 1000))


# -- secrets ---------------------------------------------------------------------------------------


@pytest.mark.sample(2)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_to_another_host(new_repo: NewRepo, status: int) -> None:
    """A redirect of a batch or of an object leads the credential of one host to another."""

    def other(handler: Handler, asked: Asked) -> None:
        handler.answer(404, {"message": "x"})

    def answer(handler: Handler, asked: Asked) -> None:
        if asked.secret is None:
            handler.answer(401, {}, {"WWW-Authenticate": 'Basic realm="x"'})
        else:
            handler.answer(status, b"", {"Location": f"{thief.url}{asked.path}"})

    with serve(other, "localhost") as thief, serve(answer) as site:
        repository = connected(new_repo, site.url)
        helper = "!f() { echo username=u; echo password=secret; }; f"
        Repo(repository.top).git("config", f"credential.{site.url}.helper", helper)
        with pytest.raises(ThetaError):
            transport.fetch(repository, [ABSENT])
        assert site.secrets  # it really was sent to where it belongs
        assert not thief.secrets


def test_objects_that_lie_elsewhere(new_repo: NewRepo) -> None:
    """The batch says that objects lie at another host, which then gets the credential of this."""

    def other(handler: Handler, asked: Asked) -> None:
        handler.answer(404, {"message": "x"})

    def answer(handler: Handler, asked: Asked) -> None:
        if asked.secret is None:
            handler.answer(401, {}, {"WWW-Authenticate": 'Basic realm="x"'})
        else:
            handler.answer(200, offers(asked.objects, thief.url, authenticated=False))

    with serve(other, "localhost") as thief, serve(answer) as site:
        repository = connected(new_repo, site.url)
        helper = "!f() { echo username=u; echo password=secret; }; f"
        Repo(repository.top).git("config", f"credential.{site.url}.helper", helper)
        with pytest.raises(ThetaError):
            transport.fetch(repository, [ABSENT])
        assert site.secrets
        assert thief.asked
        assert not thief.secrets


def test_a_login_that_never_succeeds(new_repo: NewRepo) -> None:
    """Every password is refused, for ever, so that a helper which has one is asked again."""

    def answer(handler: Handler, asked: Asked) -> None:
        handler.answer(401, {}, {"WWW-Authenticate": 'Basic realm="x"'})

    with serve(answer) as site:
        repository = connected(new_repo, site.url)
        helper = "!f() { echo username=u; echo password=secret; }; f"
        Repo(repository.top).git("config", f"credential.{site.url}.helper", helper)
        Repo(repository.top).git("config", "theta.transferTimeout", "2")
        start = time.monotonic()
        with pytest.raises(MissingObjectError):
            transport.fetch(repository, [ABSENT])
        assert time.monotonic() - start < 15


def test_a_file_of_this_machine_as_an_object(new_repo: NewRepo, tmp_path: Path) -> None:
    """The batch says that an object lies in a file of this machine, a secret to be read."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 100)

    def answer(handler: Handler, asked: Asked) -> None:
        answer = offers(asked.objects, site.url)
        for row in answer["objects"]:  # type: ignore[attr-defined]
            row["actions"]["download"]["href"] = secret.as_uri()
        handler.answer(200, answer)

    oid = hashlib.sha256(b"s" * 100).hexdigest()  # it even has the right hash
    with serve(answer) as site:
        repository = connected(new_repo, site.url)
        with pytest.raises(MissingObjectError):
            transport.fetch(repository, [UpdateRef("dense", oid, 100)])
        assert not store_of(repository).has(oid, 100)
        server = uploaded.Server(site.url, "")
        item = UpdateRef("dense", oid, 100)
        server.missing([item])
        assert server.download(item) is None


def test_messages_that_act_on_a_terminal(new_repo: NewRepo) -> None:
    """Refusals have escape sequences, line ends and commands of a runner in them."""
    evil = "\x1b]0;owned\x07\x1b[2J\r::add-mask::x\n##[set-env name=PATH]x\u202e"

    def answer(handler: Handler, asked: Asked) -> None:
        error = {"error": {"code": 404, "message": evil}}
        rows = [{**one, **error} for one in asked.objects]
        handler.answer(200, {"objects": rows, "message": evil})

    with serve(answer) as site:
        repository = connected(new_repo, site.url)
        repo = Repo(repository.top)
        repo.write("m.safetensors", safetensors(model()))
        repo.commit()
        shutil.rmtree(repo.path / ".git/theta")
        done = repo.run(
            "git", "theta", "fetch", ok=(6,), env={"GITHUB_ACTIONS": "true"}
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert b"owned" in said  # the message is told, and does nothing
        assert not [byte for byte in said if byte < 32 and byte != 10]
        for line in said.decode().split("\n"):
            assert not line.strip().startswith("::")
            assert "##[" not in line


# -- what a report on a pull request asks ----------------------------------------------------------


def test_headers_byte_by_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response whose header comes byte by byte keeps a report waiting for days."""
    monkeypatch.setattr(web, "TIMEOUT_SECONDS", 1)

    def answer(handler: Handler, asked: Asked) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(600):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.1)

    with serve(answer) as site:
        start = time.monotonic()
        with pytest.raises(TransferError, match="no answer within"):
            web.read("GET", site.url, None, {}, 100)
        assert time.monotonic() - start < 10


def test_a_redirect_of_what_is_written() -> None:
    """A redirect turns the making of a comment into a reading, which then counts as made."""

    def answer(handler: Handler, asked: Asked) -> None:
        if asked.method == "POST":
            handler.answer(302, b"", {"Location": f"{site.url}/elsewhere"})
        else:
            handler.answer(200, {"id": 1})

    with serve(answer) as site:
        with pytest.raises(TransferError, match="not followed"):
            web.read("POST", site.url, b"{}", {}, 100)
        assert len(site.asked) == 1


@pytest.mark.sample(2)
@pytest.mark.parametrize("target", ["ftp://{}/x", "file:///etc/hostname", "http://u:p@{}/x"])
def test_a_redirect_to_what_is_no_web(target: str) -> None:
    """A redirect of an object leads to FTP, to a file, or to a place with a password."""

    def answer(handler: Handler, asked: Asked) -> None:
        place = site.url.removeprefix("http://")
        handler.answer(302, b"", {"Location": target.format(place)})

    with serve(answer) as site:
        with pytest.raises(TransferError):
            web.read("GET", site.url, None, {"Authorization": "secret"}, 100)
        assert len(site.asked) == 1


@pytest.mark.sample(2)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::1]", "0.0.0.0"])
def test_addresses_inside_the_runner(host: str) -> None:
    """The batch, or a redirect, leads to a server that only the runner reaches."""
    inner = f"http://{host}:1/x"
    assert web.leads_inside(inner, "https://192.0.2.1/lfs")
    assert web.leads_inside("http://169.254.169.254/latest", inner)
    assert not web.leads_inside(inner, "http://127.0.0.1:2/lfs")
    server = uploaded.Server("https://192.0.2.1/lfs", "")
    server._note("ab" * 32, {"actions": {"download": {"href": inner}}})
    assert server._places == {}


def test_a_batch_of_a_million_strangers() -> None:
    """The answer to a batch lists objects without number, all to be remembered."""

    def answer(handler: Handler, asked: Asked) -> None:
        more = [{"oid": f"{n:064x}", "size": 1} for n in range(4000)]
        handler.answer(200, offers([*more, *asked.objects], site.url))

    with serve(answer) as site:
        server = uploaded.Server(site.url, "")
        server.missing([ABSENT])
        assert len(server._places) <= 2


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "body",
    [
        b"<html>not json</html>", b"[" * 2_000_000, b'{"objects": ' + b"9" * 1_000_000 + b"}",
        b'{"objects": [null, 1, "x", {"oid": 1}, {"oid": {}, "size": []}]}', b"\xff\xfe\0", b"",
    ],
)  # fmt: skip
def test_answers_that_are_no_batch(body: bytes) -> None:
    """HTML, deep JSON, numbers of a million digits or nothing at all come in place of a batch."""

    def answer(handler: Handler, asked: Asked) -> None:
        handler.answer(200, body)

    with serve(answer) as site:
        server = uploaded.Server(site.url, "")
        try:
            missing = server.missing([ABSENT])
        except TransferError:
            return
        assert missing == [ABSENT]


def test_an_answer_without_end() -> None:
    """The answer to a batch is JSON that does not end."""

    def answer(handler: Handler, asked: Asked) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b'{"objects": [')
        for _ in range(2000):
            handler.wfile.write(b"{}," * 20_000)
        finished.append(True)

    finished: list[bool] = []
    with serve(answer) as site:
        tracemalloc.start()
        with pytest.raises(TransferError):
            uploaded.Server(site.url, "").missing([ABSENT])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert not finished
    assert peak < 64 << 20


def test_headers_that_say_where_a_request_ends() -> None:
    """The header that an object is to be asked for with names another host, and line ends."""

    def answer(handler: Handler, asked: Asked) -> None:
        header = {"Host": "inside.example", "Content-Length": "5", "X": "y"}
        if asked.path == "/lines/objects/batch":
            header = {"X": "y\r\nHost: inside.example"}
        if asked.path.endswith("/objects/batch"):
            handler.answer(200, offers(asked.objects, site.url, header=header))
        else:
            handler.answer(200, b"x")

    with serve(answer) as site:
        server = uploaded.Server(site.url, "token")
        server.missing([ABSENT])
        server.download(ABSENT)
        (got,) = (one for one in site.asked if one.method == "GET")
        assert got.headers["Host"] == site.url.removeprefix("http://")
        assert got.headers["X"] == "y"
        assert "Content-Length" not in got.headers
        server = uploaded.Server(f"{site.url}/lines", "")
        server.missing([ABSENT])
        with pytest.raises(TransferError):
            server.download(ABSENT)


@pytest.mark.sample(2)
@pytest.mark.parametrize("status", [400, 401, 500])
def test_errors_that_quote_a_password(status: int) -> None:
    """What is said of a refusal, or of a URL that is none, quotes its password or signature."""

    def answer(handler: Handler, asked: Asked) -> None:
        if asked.path.endswith("/objects/batch") and status != 401:
            href = f"{site.url}/a b?X-Signature=hidden"
            rows = offers(asked.objects, site.url)
            for row in rows["objects"]:  # type: ignore[attr-defined]
                row["actions"]["download"]["href"] = href
            handler.answer(200, rows)
        else:
            handler.answer(status, {})

    with serve(answer) as site:
        place = site.url.removeprefix("http://")
        server = uploaded.Server(f"http://user:hidden@{place}", "token")
        said = server.url
        try:
            server.missing([ABSENT])
            server.download(ABSENT)
        except TransferError as error:
            said += error.message
        assert "hidden" not in said
        assert "user" not in said
        assert site.secrets == ["Basic dXNlcjpoaWRkZW4="]
    with pytest.raises(TransferError) as caught:
        uploaded.Server("ssh://user:hidden@example.org", "")
    assert "hidden" not in caught.value.message


# -- Git servers, and folders ----------------------------------------------------------------------


def bomb(repo: Repo, levels: int = 12) -> str:
    """A commit whose tree holds itself ten times over, level by level."""
    oid = repo.git("hash-object", "-w", "--stdin", stdin=b"x").strip()
    kind, mode = "blob", "100644"
    for _ in range(levels):
        lines = "".join(f"{mode} {kind} {oid}\t{n:02x}\n" for n in range(16))
        oid = repo.git("mktree", stdin=lines.encode()).strip()
        kind, mode = "tree", "040000"
    return repo.git("commit-tree", oid, "-m", "bomb").strip()


def test_a_tree_of_pointers_without_end(new_repo: NewRepo, tmp_path: Path) -> None:
    """The ref of pointer files at a remote is a tree that holds itself, 10^14 files in all."""
    repo = new_repo()
    remote = Repo(tmp_path / "remote.git")
    remote.path.mkdir()
    remote.git("init", "-q", "--bare")
    remote.git("update-ref", pointers.REF, bomb(remote))
    repository = Repository.discover(repo.path)
    items = [UpdateRef("dense", f"{n:02x}" * 32, 1) for n in range(16)]
    start = time.process_time()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    pointers.publish(repository, str(remote.path), items, lambda: items)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - used.ru_utime + time.process_time() - start < 10


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", ["x\u2028y", "x\u0085y", "x\udcffy"])
def test_refs_with_line_ends_in_their_names(new_repo: NewRepo, tmp_path: Path, name: str) -> None:
    """Names of refs have what Unicode calls a line end, or no text at all, to stop every push."""
    repo = new_repo()
    remote = Repo(tmp_path / "remote.git")
    remote.path.mkdir()
    remote.git("init", "-q", "--bare")
    remote.git("update-ref", f"{pointers.REF}{name}", bomb(remote, 1))
    repository = Repository.discover(repo.path)
    there = pre_push._deleted_by_mirror(repository, "origin", str(remote.path))
    assert there == set()
    repo.git("config", "remote.origin.mirror", "true")
    repository = Repository.discover(repo.path)
    there = pre_push._deleted_by_mirror(repository, "origin", str(remote.path))
    assert there == {f"{pointers.REF}{name}"}
    line = f"refs/heads/{name} {'1' * 40} refs/heads/{name} {'0' * 40}\n"
    (found,) = pre_push.parse(line.encode("utf-8", "surrogateescape"))
    assert found.local == "1" * 40


@pytest.fixture
def folder(sealed: Path, tmp_path: Path) -> Path:
    """A bare repository that somebody else may write."""
    path = tmp_path / "there.git"
    path.mkdir()
    Repo(path).git("init", "-q", "--bare")
    return path


def test_a_file_as_long_as_the_disk_in_place_of_a_repository(tmp_path: Path) -> None:
    """A remote's `.git` is a file of a gigabyte of holes, to be read whole."""
    (tmp_path / "there").mkdir()
    with (tmp_path / "there/.git").open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    with pytest.raises(TransferError):
        endpoints.common_dir_of(tmp_path / "there")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 22


@pytest.mark.skipif(os.name == "nt", reason="pipes have no names there")
def test_pipes_in_a_remote_folder(folder: Path, new_repo: NewRepo) -> None:
    """A remote's `commondir` and `config` are pipes, whose reader waits for ever."""
    os.mkfifo(folder / "commondir")
    (folder / "config").unlink()
    os.mkfifo(folder / "config")
    repo = new_repo()
    script = (
        "import sys, pathlib; from git_theta_ext.objects.transfer import endpoints;"
        "from git_theta_ext.git.repository import Repository;"
        "r = Repository.discover(); p = pathlib.Path(sys.argv[1]);"
        "print(endpoints.lfs_folder(r, endpoints.common_dir_of(p)))"
    )
    done = repo.run("timeout", "60", sys.executable, "-c", script, str(folder))
    assert done.stdout.decode().strip() == str(folder.resolve() / "lfs")


def test_settings_of_a_remote_folder(folder: Path, new_repo: NewRepo, tmp_path: Path) -> None:
    """A remote's config includes another file, starts programs, and names a user that is none."""
    marker = tmp_path / "ran"
    more = tmp_path / "more"
    more.write_text(f"[lfs]\n\tstorage = {tmp_path / 'elsewhere'}\n")
    (folder / "config").write_text(
        f"[core]\n\tbare = true\n\tfsmonitor = touch {marker}\n\thooksPath = {tmp_path}\n"
        f"[uploadpack]\n\tpackObjectsHook = touch {marker}\n"
        f'[include]\n\tpath = {more}\n[lfs "customtransfer.x"]\n\tpath = {marker}\n'
    )
    repo = new_repo()
    repo.git("remote", "add", "there", str(folder))
    repository = Repository.discover(repo.path)
    items = put(repository, b"x" * 1000)
    transport.push(repository, "there", str(folder), items)
    assert not marker.exists()
    assert not (tmp_path / "elsewhere").exists()
    assert folders.object_path(folder / "lfs", items[0].oid).is_file()
    with (folder / "config").open("a") as file:
        file.write("[lfs]\n\tstorage = ~nobody-of-this-name/x\n")
    with pytest.raises(TransferError, match="no such user"):
        transport.push(repository, "there", str(folder), put(repository, b"y"))


def test_a_report_on_what_is_there_already(pull: Repo, github: GitHub) -> None:
    """A server says of every object that it has it, so that the check of a pull request passes."""

    def answer(handler: Handler, asked: Asked) -> None:
        if not batch(handler, asked, site):
            handler.answer(404)

    with serve(answer) as site:
        out, folder = report(pull, github, ok=9, THETA_LFS_URL=f"{site.url}/lfs")
        assert "objects=unknown" in (folder / "output").read_text()
        assert "do not exist" in out
        assert not site.secrets  # it is not the one that the token is for
        shutil.rmtree(pull.path / ".git/theta")
        out, folder = report(pull, github, ok=1, THETA_LFS_URL=f"{site.url}/lfs")
        assert "objects=missing" in (folder / "output").read_text()


def test_results_of_evaluations_without_end(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ref of results whose folders hold each other over and over, and files that are none"""
    content = "a" * 64
    repo.write("README", b"a model")
    repo.commit("a commit")
    repo.git("clone", "-q", "--bare", str(repo.path), str(tmp_path / "remote.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    here, there = Repository.discover(repo.path), Repository.discover(tmp_path / "remote.git")
    scores = (Score("rte", "acc", 0.5),)
    result = Result(
        content, "glue", None, None, None, "imported", "Ada", 1, "", "m", "JSON", scores
    )
    Kept(here).add([result])
    tree = there.git("mktree", stdin=b"").decode().strip()
    for _ in range(40):
        rows = "".join(f"040000 tree {tree}\t{name}\n" for name in ("aa", "bb", content, "x"))
        tree = there.git("mktree", stdin=rows.encode()).decode().strip()
    commit = there.git("commit-tree", tree, "-m", "x").decode().strip()
    there.git("update-ref", REF, commit)
    advance(there, {f"aa/{content}/{'b' * 32}.json": b"{}", "aa/x/y": b"z", "README": b"mine"})
    assert travel.publish(here, "origin", str(tmp_path / "remote.git"))
    assert tips(here)[0] == there.resolve(REF)
    assert Kept(here).of([content]) == {content: (result,)}
    listed = here.git("ls-tree", "--name-only", REF, "--", "aa/", "README").decode().split()
    assert set(listed) >= {f"aa/{content}", "README"}
    assert "aa/x" not in listed
    there.git("update-ref", REF, commit)
    advance(here, {f"bb/{'b' * 64}/{'c' * 32}.json": b"{}"})
    advance(there, {f"bb/{'b' * 64}/{'d' * 32}.json": b"{}"})
    here.git("update-ref", "-d", "refs/theta/remotes/origin/evaluations")
    monkeypatch.setattr(travel, "_ENTRIES", 3)
    with pytest.raises(RepositoryError, match="holds more than results"):
        travel.publish(here, "origin", str(there.git_dir))
