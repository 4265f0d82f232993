"""Patches: made in one repository, read anywhere, taken or applied in another."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from git_theta_ext.git.repository import Repository
from git_theta_ext.manifest.text import parse_manifest
from git_theta_ext.packages.patches import applied
from tests.scenarios.adapters import adapter, lora
from tests.scenarios.advised import advised, do, only, take
from tests.scenarios.checkpoints import NAME, changed, model, safetensors
from tests.scenarios.repositories import Repo

QUERY = "encoder.layer.0.attention.query.weight"
HEAD = "head.weight"
NewRepo = Callable[..., Repo]


def lora_on(repo: Repo, branch: str = "rte") -> bytes:
    """A branch with one commit, a LoRA on the queries; the checkpoint that it makes."""
    repo.git("switch", "-q", "-c", branch)
    repo.theta("add", NAME, "--update", adapter(repo, lora()))
    repo.git("commit", "-q", "-m", "Learn RTE")
    return (repo.path / NAME).read_bytes()


def based(repo: Repo) -> None:
    """The version that both have; its commit is the same wherever it is made."""
    repo.write(NAME, safetensors(model()))
    repo.commit("A base")


def started(repo: Repo) -> None:
    """A base, and a branch with a LoRA on it, which is a patch, too."""
    based(repo)
    lora_on(repo)
    repo.git("switch", "-q", "-")
    repo.theta("format-patch", "HEAD..rte", "-o", "../rte.patch")
    repo.write(".git/rte.patch", (repo.path.parent / "rte.patch").read_bytes())


def sender(new_repo: NewRepo) -> Repo:
    repo = new_repo("sender")
    repo.once(lambda: started(repo))
    return repo


def patch_of(repo: Repo) -> str:
    return str(repo.path / ".git/rte.patch")


def copied(new_repo: NewRepo, name: str) -> Repo:
    """A repository that has the base, and no remote."""
    repo = new_repo(name)
    repo.once(lambda: based(repo))
    return repo


def other_model(new_repo: NewRepo, tensors: dict[str, Any], name: str = "other") -> Repo:
    """A repository of its own that began with the same checkpoint and has moved on."""
    repo = new_repo(name)
    repo.write(NAME, safetensors(model()))
    repo.commit("Begin with a copy")
    repo.write(NAME, safetensors(tensors))
    repo.commit("Train")
    return repo


def at(repo: Repo, revision: str) -> dict[str, Any]:
    """The tensors of a version."""
    repo.theta("export", f"{revision}:{NAME}", "-o", str(repo.path.parent / "out.safetensors"))
    return loaded(repo, "../out.safetensors")


def loaded(repo: Repo, name: str = NAME) -> dict[str, Any]:
    """The tensors of a file, bfloat16 too."""
    data = (repo.path / name).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    types = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "I64": np.int64}
    found = {}
    for key, one in json.loads(data[8:start]).items():
        first, last = one["data_offsets"]
        values = np.frombuffer(data[start + first : start + last], types[one["dtype"]])
        found[key] = values.reshape(one["shape"])
    return found


def kinds(repo: Repo, name: str, spec: str = f":{NAME}") -> list[str]:
    entry = parse_manifest(repo.blob(spec)).by_name()[name]
    return [link.kind for link in entry.blocks[0].chain]


def snapshot(repo: Repo) -> dict[str, str]:
    """Everything of a repository that a refusal must leave as it is: all but empty locks."""
    ours = (".git/theta/verified", ".git/theta/lock", ".git/theta-applied.lock")
    found = {}
    for path in sorted(repo.path.rglob("*")):
        kept = path.relative_to(repo.path).as_posix()
        if path.is_file() and not kept.startswith(ours):
            found[kept] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_a_patch_is_shown_anywhere_and_gives_the_same_commits(
    new_repo: NewRepo, tmp_path: Path
) -> None:
    repo = sender(new_repo)
    place = patch_of(repo)
    nowhere = Repo(tmp_path / "nowhere")
    nowhere.path.mkdir()
    shown = nowhere.theta("show", place)
    assert "Learn RTE" in shown
    assert "3 of 14 tensors changed" in shown
    assert re.search(rf"{QUERY} +F32 \[64, 64\] +low-rank rank=4 .* norm \d", shown)
    told = json.loads(nowhere.theta("show", "--json", place))
    first = next(one for one in told["files"][0]["tensors"] if one["name"] == QUERY)
    tip = repo.git("rev-parse", "rte").strip()
    with_lora = (repo.git("show", f"rte:{NAME}"), tip)
    assert told["tip"] == tip

    receiver = copied(new_repo, "receiver")
    old = loaded(receiver)[QUERY].astype(np.float64)
    said = receiver.theta("am", place)
    assert "the same commits as in the patch" in said
    assert receiver.git("rev-parse", "HEAD").strip() == tip
    assert receiver.status() == ""
    assert receiver.git("show", f"HEAD:{NAME}") == with_lora[0]
    length = float(np.linalg.norm(loaded(receiver)[QUERY].astype(np.float64) - old))
    assert first["norm"] == pytest.approx(length, rel=1e-4)
    assert receiver.theta("fsck").endswith("0 problems\n")
    # Git's own store has commits and manifests, and none of our objects.
    sizes = receiver.git("cat-file", "--batch-all-objects", "--batch-check").split()[2::3]
    assert max(map(int, sizes)) < 8000
    assert "HEAD has them already" in receiver.theta("am", place)
    # And to Git it is a bundle.
    another = copied(new_repo, "another")
    another.git("bundle", "verify", place)
    another.git("fetch", "-q", place)
    assert another.git("rev-parse", "FETCH_HEAD").strip() == tip
    assert another.git("fsck", "--strict", "--no-dangling").strip() == ""


def test_a_patch_holds_little_more_than_the_update(new_repo: NewRepo) -> None:
    """Each version has packs of its own, so that none drags others along."""
    repo = new_repo()
    random = np.random.default_rng(5)
    tensors: dict[str, Any] = {
        f"layers.{n}.weight": random.normal(0, 0.02, (96, 96)).astype(np.float32) for n in range(40)
    }
    repo.write(NAME, safetensors(tensors))
    repo.commit("base")
    repo.git("branch", "start")
    for version in range(2):
        for name, value in list(tensors.items()):
            flat = value.copy().ravel()
            flat[random.choice(flat.size, 400, replace=False)] += np.float32(0.01)
            tensors[name] = flat.reshape(96, 96)
        repo.write(NAME, safetensors(tensors))
        repo.commit(f"version {version}")
    place = repo.path.parent / "sparse.patch"
    repo.theta("format-patch", "HEAD~1..HEAD", "-o", str(place))
    versions = [parse_manifest(repo.blob(f"HEAD~{n}:{NAME}")) for n in (1, 0)]
    places = [{ref.place: ref.nbytes for ref in one.objects()} for one in versions]
    stored = sum(size for ref, size in places[1].items() if ref not in places[0])
    assert place.stat().st_size <= 1.1 * stored
    # What the receiver has is named by --base: then both versions travel.
    command = ("format-patch", "HEAD~1", "--base", "start", "-o", str(place), "--json")
    refused = repo.run("git", "theta", *command, ok=(2,)).stderr.decode()
    assert "sparse.patch is there already" in refused
    (repo.path / "empty.patch").touch()
    shown = repo.run("git", "theta", "show", "empty.patch", ok=(3,)).stderr.decode()
    assert "empty.patch: it is empty: no patch" in shown
    assert "replace it with --force" in refused
    told = json.loads(repo.theta(*command, "--force"))
    assert told["object_bytes"] > 1.8 * stored
    assert told["needs"] == [repo.git("rev-parse", "start").strip()]


def test_as_a_mail_on_a_branch_that_moved_on(new_repo: NewRepo) -> None:
    repo = sender(new_repo)
    place = str(repo.path.parent / "rte.eml")
    repo.theta("format-patch", "HEAD..rte", "-o", place, "--mail")
    text = Path(place).read_text("utf-8")
    assert text.startswith("From ")
    assert "Subject: [PATCH] Learn RTE" in text
    assert f"  {QUERY}" in text  # as people read it
    # Saved by a mail program: with other headers before it, and its line ends.
    Path(place).write_bytes(
        b"Received: from somewhere\r\n" + text.partition("\n")[2].replace("\n", "\r\n").encode()
    )
    receiver = copied(new_repo, "receiver")
    tensors = {**model(), QUERY: changed(model()[QUERY])}
    receiver.write(NAME, safetensors(tensors))
    receiver.commit("Train here")
    assert "to apply it: git theta am FILE" in text
    said = receiver.theta("am", place)
    assert "1 commit applied on top of HEAD, which had moved on" in said
    assert receiver.git("log", "--format=%s", "-2").split("\n")[:2] == ["Learn RTE", "Train here"]
    assert receiver.status() == ""
    value, base = loaded(receiver), model()
    with_lora = np.asarray(at(repo, "rte")[QUERY])
    wanted = tensors[QUERY].astype(np.float64) + (with_lora.astype(np.float64) - base[QUERY])
    np.testing.assert_allclose(value[QUERY], wanted, rtol=0, atol=1e-7)
    head = receiver.git("rev-parse", "HEAD")
    refused = receiver.run("git", "theta", "am", place, ok=(10,)).stderr.decode()
    assert "applied on HEAD before, such as 'Learn RTE'" in refused
    assert receiver.git("rev-parse", "HEAD") == head
    do(receiver, only(refused, "theta apply"), PATCH=place)
    assert receiver.status() == f"M  {NAME}\n"


def test_what_a_merge_made_itself_is_not_left_out(new_repo: NewRepo) -> None:
    repo = sender(new_repo)
    base = repo.git("rev-parse", "HEAD").strip()
    repo.write("README.md", b"one")
    repo.commit("Say one", "README.md")
    repo.git("merge", "-q", "--no-commit", "rte")
    clean = repo.git("commit-tree", repo.git("write-tree").strip(), "-p", "HEAD", "-p", "rte",
                     "-m", "Merge").strip()  # fmt: skip
    repo.write(NAME, safetensors({**loaded(repo), HEAD: changed(model()[HEAD])}))
    repo.git("commit", "-q", "-a", "-m", "Merge, and train the head")
    for tip, name in (("HEAD", "own"), (clean, "clean")):
        repo.git("branch", name, tip)
        repo.theta("format-patch", f"{base}..{name}", "-o", f"../{name}.patch")
    receiver = copied(new_repo, "receiver")
    receiver.write("other.txt", b"moved on")
    receiver.commit("Move on", "other.txt")
    refused = receiver.run("git", "theta", "am", "../own.patch", ok=(10,)).stderr.decode()
    assert f"made changes of its own, which picking its parents would lose: {NAME}" in refused
    assert receiver.git("log", "-1", "--format=%s") == "Move on\n"
    receiver.git("branch", "before")
    do(receiver, only(refused, "git merge").replace("git ", "git -c core.editor=true ", 1))
    assert (receiver.path / NAME).read_bytes() == (repo.path / NAME).read_bytes()
    receiver.git("reset", "-q", "--hard", "before")
    assert "1 merge commit left out" in receiver.theta("am", "../clean.patch")
    assert (receiver.path / NAME).read_bytes() != (repo.path / NAME).read_bytes()
    assert loaded(receiver)[QUERY].tobytes() == loaded(repo)[QUERY].tobytes()


def test_it_is_added_to_another_fine_tune_and_taken_back(new_repo: NewRepo) -> None:
    repo = sender(new_repo)
    place = patch_of(repo)
    theirs, base = at(repo, "rte"), model()
    tensors: dict[str, Any] = {name: changed(value) for name, value in base.items()}
    untouched = "encoder.layer.2.attention.query.weight"
    tensors[untouched] = base[untouched]
    tensors["encoder.layer.1.attention.query.weight"] = base[QUERY].astype(ml_dtypes.bfloat16)
    del tensors[HEAD]
    other = other_model(new_repo, tensors)
    before = snapshot(other)
    refused = other.run("git", "theta", "am", place, ok=(6,)).stderr.decode()
    assert "which is not here" in refused
    assert "of its base are not those of HEAD" in refused
    assert snapshot(other) == before

    said = other.theta("apply", place, "-n")
    assert snapshot(other) == before
    assert re.search(rf"{QUERY}: 100 % .* \(cosine -?0\.\d\d, lengths 1 : ", said)
    bytes_before = (other.path / NAME).read_bytes()
    said = other.theta("apply", place)
    assert other.status() == f"M  {NAME}\n"
    value = loaded(other)
    wanted = tensors[QUERY].astype(np.float64) + theirs[QUERY].astype(np.float64) - base[QUERY]
    np.testing.assert_allclose(value[QUERY], wanted, rtol=0, atol=3e-8)
    # Factors stay factors, and what nobody else changed is what the patch has, to the bit.
    assert kinds(other, QUERY)[-1] == "low-rank"
    assert value[untouched].tobytes() == theirs[untouched].tobytes()
    # A task vector of another dtype is cast.
    cast = value["encoder.layer.1.attention.query.weight"]
    assert cast.dtype == ml_dtypes.bfloat16
    assert other.theta("fsck").endswith("0 problems\n")

    other.git("commit", "-q", "-m", "Learn RTE, too")
    taken = other.theta("apply", "-R", place)
    assert "to the byte" in taken
    assert (other.path / NAME).read_bytes() == bytes_before
    assert other.git("rev-parse", f":{NAME}") == other.git("rev-parse", f"HEAD~1:{NAME}")


def test_what_does_not_fit_is_listed_and_the_rest_applied(new_repo: NewRepo) -> None:
    repo = sender(new_repo)
    place = patch_of(repo)
    theirs, base = at(repo, "rte"), model()
    tensors = {f"model.{name}": value for name, value in base.items()}
    tensors[f"model.{QUERY}"] = base[QUERY][:32]  # of another shape
    del tensors["model.encoder.layer.1.attention.query.weight"]
    other = new_repo("other")
    other.write("renamed.safetensors", safetensors(tensors))
    other.commit("Begin with a copy under other names")
    nothing = other.run("git", "theta", "apply", place, ok=(6,)).stderr.decode()
    assert "nothing of" in nothing
    assert f"{QUERY}: no tensor of this name is here" in nothing
    done = other.run(
        "git", "theta", "apply", place, "--map", "*=model.*", "--scale", "0.5", ok=(1,)
    )
    said = done.stdout.decode()
    assert "renamed.safetensors: 1 tensor changed" in said
    assert "left out: 2 parts" in said
    assert f"model.{QUERY}: it is F32 [32, 64] here, F32 [64, 64] there" in said
    name = "encoder.layer.2.attention.query.weight"
    value = loaded(other, "renamed.safetensors")[f"model.{name}"]
    half = base[name] + (theirs[name].astype(np.float64) - base[name]) / 2
    np.testing.assert_allclose(value, half, rtol=0, atol=1e-8)
    entry = parse_manifest(other.blob(":renamed.safetensors")).by_name()[f"model.{name}"]
    assert entry.blocks[0].chain[-1].kind == "low-rank"


def test_a_base_is_found_by_its_content(new_repo: NewRepo) -> None:
    """Here the base was a training step: the same bytes, in other objects, and not in HEAD."""
    repo = sender(new_repo)
    place = patch_of(repo)
    base = model()
    other = new_repo("other")
    for name, tensors in (
        ("before", {key: changed(value, seed=7) for key, value in base.items()}),
        ("the base", base),
        ("after", {key: changed(value, seed=8) for key, value in base.items()}),
    ):
        other.write(NAME, safetensors(tensors))
        other.commit(name)
    assert kinds(other, QUERY, f"HEAD~1:{NAME}") == ["dense", "delta"]
    ours = kinds(other, QUERY)
    other.theta("apply", place)
    wanted = loaded(other)[QUERY]
    other.git("commit", "-q", "-m", "Learn RTE")
    assert other.theta("fsck").endswith("0 problems\n")
    assert kinds(other, QUERY) == [*ours, "low-rank"]
    # On the base itself the tensor becomes what the patch has.
    other.git("checkout", "-q", "HEAD~2")
    other.theta("apply", place)
    assert loaded(other)[QUERY].tobytes() == at(repo, "rte")[QUERY].tobytes()
    assert loaded(other)[QUERY].tobytes() != wanted.tobytes()

    stranger = new_repo("stranger")
    stranger.write(NAME, safetensors({key: changed(value) for key, value in base.items()}))
    stranger.commit("Nobody knows the base here")
    before = snapshot(stranger)
    refused = stranger.run("git", "theta", "apply", place, ok=(6,)).stderr.decode()
    assert f"{QUERY}: it is made from a version of the tensor that is nowhere here" in refused
    assert snapshot(stranger) == before


def test_what_is_taken_back_is_what_is_asked_for(new_repo: NewRepo) -> None:
    repo = sender(new_repo)
    place = patch_of(repo)
    receiver = copied(new_repo, "receiver")
    with applied.alone(Repository.discover(receiver.path)):
        busy = receiver.run("git", "theta", "apply", place, ok=(10,)).stderr.decode()
    assert "a patch is being applied to this work tree" in busy
    assert receiver.theta("apply", "--scale", "0", place).endswith("nothing was changed\n")
    assert receiver.status() == ""
    receiver.theta("apply", place)
    assert receiver.theta("apply", place).endswith("nothing was changed\n")
    receiver.theta("apply", "-R", "--scale", "0.25", place)
    part, base, new = (
        one[QUERY].astype("f8") for one in (loaded(receiver), model(), at(repo, "rte"))
    )
    np.testing.assert_allclose(part, base + 0.75 * (new - base), rtol=0, atol=1e-7)
    receiver.git("restore", "-q", "--staged", "--worktree", NAME)
    receiver.theta("apply", place)
    assert "to the byte" in receiver.theta("apply", "-R", place)
    assert receiver.status() == ""
    assert "nothing of this update" in receiver.theta("apply", "-R", place)
    repo.git("switch", "-q", "-c", "moved", "rte")
    repo.git("mv", NAME, "moved.safetensors")
    repo.git("commit", "-q", "-m", "Move it")
    repo.theta("format-patch", "rte~1..moved", "-o", "../moved.patch")
    repo.run("git", "theta", "format-patch", "rte~1..moved", "-o", "-", ok=(2,))
    said = receiver.run("git", "theta", "apply", "../moved.patch", ok=(1,)).stdout.decode()
    assert f"{NAME}: keeps its name; in the patch it becomes moved.safetensors" in said


def test_it_is_taken_back_by_a_merge_where_tensors_changed_since(new_repo: NewRepo) -> None:
    repo = sender(new_repo)
    place = patch_of(repo)
    receiver = copied(new_repo, "receiver")
    receiver.theta("am", place)
    tensors = loaded(receiver)
    tensors[QUERY] = changed(tensors[QUERY])
    tensors[HEAD] = changed(tensors[HEAD])
    receiver.write(NAME, safetensors(tensors))
    receiver.commit("Train on")
    left = receiver.run(
        "git", "theta", "apply", "-R", place, "--strategy", "conflict", ok=(1,)
    ).stdout.decode()
    assert "left out: 1 part" in left
    assert f"{QUERY}: both sides changed" in left
    value, base = loaded(receiver), model()
    assert value[QUERY].tobytes() == tensors[QUERY].tobytes()
    untouched = "encoder.layer.1.attention.query.weight"
    assert value[untouched].tobytes() == base[untouched].tobytes()
    receiver.git("reset", "-q", "--hard")
    receiver.theta("apply", "-R", place)
    moved = tensors[QUERY].astype(np.float64) - at(repo, "rte")[QUERY]
    np.testing.assert_allclose(loaded(receiver)[QUERY], base[QUERY] + moved, rtol=0, atol=1e-7)
    assert loaded(receiver)[HEAD].tobytes() == tensors[HEAD].tobytes()


def test_cherry_pick_from_an_unrelated_history_goes_by_content(new_repo: NewRepo) -> None:
    repo = sender(new_repo)
    tensors: dict[str, Any] = {key: changed(value) for key, value in model().items()}
    other = other_model(new_repo, tensors)
    other.git("checkout", "-q", "--orphan", "own")
    other.git("commit", "-q", "-m", "A history of its own")
    store = str(repo.path.parent / "store.git")
    repo.git("init", "-q", "--bare", store)
    repo.git("push", "-q", store, "--all")
    other.git("remote", "add", "fork", store)
    other.git("fetch", "-q", "fork")
    assert other.run("git", "merge-base", "HEAD", "fork/rte", ok=(1,)).stdout == b""
    other.git("cherry-pick", "fork/rte")
    base = model()
    wanted = tensors[QUERY].astype(np.float64) + at(repo, "rte")[QUERY] - base[QUERY]
    np.testing.assert_allclose(loaded(other)[QUERY], wanted, rtol=0, atol=1e-7)
    assert other.status() == ""


def test_plain_patches_carry_manifests_only(new_repo: NewRepo) -> None:
    repo = sender(new_repo)
    plain = repo.path.parent / "plain.patch"
    plain.write_text(repo.git("format-patch", "--stdout", "HEAD..rte"))
    receiver = copied(new_repo, "receiver")
    said = receiver.run("git", "am", str(plain), ok=(128,)).stderr.decode()
    assert "there: git theta format-patch REV -o FILE   then here: git theta am FILE" in said
    place = str(repo.path.parent / "rte.patch")
    repo.git("switch", "-q", "rte")
    repo.theta("format-patch", "HEAD~1", "-o", place, "--force")
    refused = receiver.run("git", "theta", "am", place, ok=(10,)).stderr.decode()
    assert "am or pick is not concluded" in refused
    assert "am --abort" in do(receiver, only(refused))
    receiver.git("am", "--abort")
    receiver.git("restore", NAME)
    receiver.run("git", "am", str(plain), env={"GIT_THETA_SKIP_SMUDGE": "1"})
    head = receiver.git("rev-parse", "HEAD")
    assert (receiver.path / NAME).read_bytes().startswith(b"git-theta manifest")
    said = receiver.theta("am", place)
    assert "HEAD has them already" in said
    assert receiver.git("rev-parse", "HEAD") == head
    assert loaded(receiver)[QUERY].tobytes() == loaded(repo)[QUERY].tobytes()
    assert receiver.status() == ""


def test_what_is_suggested_to_who_makes_one(new_repo: NewRepo) -> None:
    repo = sender(new_repo)
    command = take(repo, "git", "theta", "format-patch", "HEAD...rte", "-o", "x", has="..")
    do(repo, command, FILE="../rte.patch")
    assert "Learn RTE" in repo.theta("show", "../rte.patch")
    repo.write("README.md", b"about it")
    repo.commit("Say what it is", "README.md")
    command = take(
        repo, "git", "theta", "format-patch", "HEAD~1", "-o", "x", has="git format-patch"
    )
    assert "0001-Say-what-it-is.patch" in do(repo, f"{command} HEAD~1")


def test_what_is_suggested_to_who_takes_one(new_repo: NewRepo) -> None:
    repo = sender(new_repo)
    place = patch_of(repo)
    receiver = copied(new_repo, "receiver")
    repo.git("bundle", "create", "../plain.bundle", "rte")
    do(
        receiver,
        take(receiver, "git", "theta", "am", "../plain.bundle"),
        FILE="../plain.bundle rte",
    )
    assert receiver.git("rev-parse", "FETCH_HEAD") == repo.git("rev-parse", "rte")
    (repo.path.parent / "plain.eml").write_text(
        "From x\nX-Mailer: git-theta\n" + repo.git("format-patch", "--stdout", "HEAD..rte")
    )
    assert take(receiver, "git", "theta", "am", "../plain.eml") == "git am FILE"

    tensors = {**model(), QUERY: changed(model()[QUERY])}
    receiver.write(NAME, safetensors(tensors))
    again = take(receiver, "git", "theta", "am", place)
    receiver.git("commit", "-q", "-a", "-m", "Train here")
    receiver.git("config", "theta.rebase.strategy", "conflict")
    stopped = receiver.run("git", "theta", "am", place, ok=(1,)).stdout.decode()
    carry_on, back = advised(stopped)[-2:]
    do(receiver, back)
    assert receiver.status() == ""
    stopped = do(receiver, again, FILE=place, ok=(1,))
    receiver.theta("resolve", NAME, "--strategy", "reapply")
    receiver.git("add", NAME)
    receiver.git("-c", "core.editor=true", *carry_on.split()[1:])
    assert receiver.git("log", "-1", "--format=%s") == "Learn RTE\n"

    other = other_model(new_repo, tensors)
    said = other.run("git", "theta", "am", place, ok=(6,)).stderr.decode()
    do(other, only(said, "theta apply"), FILE=place)
    assert other.status() == f"M  {NAME}\n"
    other.git("reset", "-q", "--hard")
    other.git("remote", "add", "origin", str(repo.path))
    do(other, only(said, "git fetch"))
    assert "1 commit" in other.theta("am", place)


def test_what_is_suggested_to_who_applies_one(new_repo: NewRepo) -> None:
    repo = sender(new_repo)
    repo.git("switch", "-q", "rte")
    repo.write("README.md", b"about it")
    repo.commit("Say what it is", "README.md")
    repo.git("switch", "-q", "-")
    place = str(repo.path.parent / "both.patch")
    repo.theta("format-patch", "HEAD..rte", "-o", place)
    receiver = copied(new_repo, "receiver")
    other = new_repo("other")
    for name in ("one.safetensors", "two.safetensors"):
        other.write(name, safetensors(model()))
    other.commit("Begin with two copies")
    said = other.run("git", "theta", "apply", place, ok=(2,)).stderr.decode()
    assert "two.safetensors" in do(other, advised(said)[0])
    said = other.run("git", "theta", "apply", place, "two.safetensors").stdout.decode()
    assert "README.md: left out" in said
    assert other.status() == "M  two.safetensors\n"

    changed_here = {**model(), QUERY: changed(model()[QUERY])}
    receiver.write(NAME, safetensors(changed_here))
    command = take(receiver, "git", "theta", "apply", place, has="git add")
    do(receiver, command)
    do(receiver, f"git restore {NAME}")
    said = receiver.run("git", "theta", "apply", place, ok=(1,)).stdout.decode()
    do(receiver, only(said, "theta am"), PATCH="--help")
    receiver.git("commit", "-q", "-m", "Apply it")
    receiver.git("config", "theta.merge.strategy", "conflict")
    receiver.git("switch", "-q", "-c", "side", "HEAD~1")
    receiver.write(NAME, safetensors(changed_here))
    receiver.commit("Train here")
    receiver.run("git", "merge", "-", ok=(1,))
    command = take(receiver, "git", "theta", "apply", place)
    assert "in conflict" in do(receiver, command) or NAME in do(receiver, command)
    receiver.git("merge", "--abort")

    stranger = new_repo("stranger")
    trained = {key: changed(value) for key, value in model().items()}
    stranger.write(NAME, safetensors(trained))
    plain = ("filter.theta.clean=", "filter.theta.process=", "filter.theta.required=false")
    stranger.git(*(word for one in plain for word in ("-c", one)), "add", NAME)
    command = take(stranger, "git", "theta", "apply", place)
    do(stranger, command)
    command = take(stranger, "git", "theta", "apply", place, has="show")
    assert "Learn RTE" in do(stranger, command, PATCH=place)
