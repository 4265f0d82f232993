"""`install` and `uninstall` on real configuration files, and what Git makes of them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import git
import pytest

import git_theta_ext
from git_theta_ext import drivers
from git_theta_ext.git.repository import Repository
from git_theta_ext.git.setup import installation
from tests.scenarios.checkpoints import model, safetensors
from tests.scenarios.repositories import Repo

_KEYS = ["filter.theta.process", "diff.theta.command", "merge.theta.driver"]


def _config(repo: Repo, scope: str = "--global") -> dict[str, str]:
    text = repo.git("config", scope, "--list", "-z", ok=(0, 1))
    pairs = [item.partition("\n") for item in text.split("\0") if item]
    return {name: value for name, _, value in pairs}


@pytest.fixture
def plain(new_repo: Callable[..., Repo]) -> Repo:
    """A repository in which nothing is installed."""
    return new_repo("plain", install=False)


def test_install_writes_absolute_commands(plain: Repo) -> None:
    plain.theta("install")
    config = _config(plain)
    assert config["filter.theta.required"] == "true"
    start = config["filter.theta.process"]
    for name in ("clean", "smudge"):
        assert config[f"filter.theta.{name}"] == f"{start} {name} %f"
    for key, module in zip(_KEYS, ("filter", "diff", "merge"), strict=True):
        words = shlex.split(config[key])
        assert Path(words[0]) == Path(sys.executable)
        assert words[1] == "-I"
        assert f"git_theta_ext.drivers.{module}" in words
    assert config["merge.theta.driver"].endswith(" %O %A %B %L %P")


def test_install_is_idempotent_and_says_so(plain: Repo, sealed: Path) -> None:
    first = plain.theta("install")
    assert "filter.theta.process = " in first
    written = (sealed / ".gitconfig").read_bytes()
    again = plain.theta("install")
    assert "already set up" in again
    assert "filter.theta.process = " not in again
    assert (sealed / ".gitconfig").read_bytes() == written


def test_skip_smudge_is_set_and_taken_back(plain: Repo) -> None:
    plain.theta("install", "--skip-smudge")
    assert plain.git("config", "theta.skipSmudge").strip() == "true"
    assert "theta.skipSmudge = (unset)" in plain.theta("install")
    assert plain.git("config", "theta.skipSmudge", ok=(1,)) == ""


@pytest.mark.parametrize(
    "content",
    [
        "",
        "# mine\n[user]\n\tname = Ada # yes\n[core]\n\tautocrlf=false\n",
        '[filter "lfs"]\n\tprocess = git-lfs filter-process\n[theta]\n\tstorage = /x\n',
    ],
)
def test_uninstall_leaves_the_file_as_it_was(plain: Repo, sealed: Path, content: str) -> None:
    file = sealed / ".gitconfig"
    file.write_text(content)
    plain.theta("install", "--skip-smudge")
    assert file.read_text() != content
    shown = plain.theta("uninstall")
    assert "removed filter.theta.process" in shown
    assert file.read_text() == content
    assert "was not set up" in plain.theta("uninstall")


def test_uninstall_removes_settings_that_are_there_twice(plain: Repo) -> None:
    plain.git("config", "--global", "--add", "filter.theta.process", "old")
    plain.git("config", "--global", "--add", "filter.theta.process", "older")
    plain.theta("install")
    assert plain.git("config", "--get-all", "filter.theta.process").count("\n") == 1
    plain.theta("uninstall")
    assert not [key for key in _config(plain) if "theta" in key]


def test_local_touches_this_repository_only(plain: Repo, sealed: Path) -> None:
    before = (sealed / ".gitconfig").read_bytes()
    plain.theta("install", "--local")
    assert (sealed / ".gitconfig").read_bytes() == before
    assert set(_KEYS) <= set(_config(plain, "--local"))
    assert (plain.path / ".git/hooks/pre-push").exists()
    assert "still set up in the local git config" in plain.theta("uninstall")
    plain.theta("uninstall", "--local")
    assert not [key for key in _config(plain, "--local") if "theta" in key]
    assert not (plain.path / ".git/hooks/pre-push").exists()


def test_local_outside_a_repository_is_refused(sealed: Path, tmp_path: Path) -> None:
    folder = Repo(tmp_path)
    done = folder.run(
        sys.executable, "-m", "git_theta_ext.cli.main", "install", "--local", ok=(10,)
    )
    assert b"inside a repository" in done.stderr


def test_a_file_that_cannot_be_written_is_an_error(plain: Repo, sealed: Path) -> None:
    (sealed / ".gitconfig.lock").write_text("")
    done = plain.run(sys.executable, "-m", "git_theta_ext.cli.main", "install", ok=(10,))
    assert b"git theta: error: git config failed" in done.stderr
    assert not [key for key in _config(plain) if "theta" in key]


def test_it_says_what_works_without_git_lfs(plain: Repo, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    git = subprocess.run(
        ["which", "git"], capture_output=True, check=True, text=True
    ).stdout.strip()
    (programs / "git").symlink_to(git)
    done = plain.run(
        sys.executable, "-m", "git_theta_ext.cli.main", "install", env={"PATH": str(programs)}
    )
    assert b"git-lfs was not found" in done.stderr


def test_is_installed_looks_at_the_settings_in_force(plain: Repo) -> None:
    assert not installation.is_installed(Repository.discover(plain.path))
    plain.theta("install")
    assert installation.is_installed(Repository.discover(plain.path))
    plain.git("config", "diff.theta.command", "'/no such/python' -m x")
    repository = Repository.discover(plain.path)
    assert installation.problems(repository) == [
        "diff.theta.command names a program that does not exist: /no such/python"
    ]
    plain.git("config", "diff.theta.command", "'unbalanced")
    assert not installation.is_installed(Repository.discover(plain.path))


@pytest.fixture(scope="module")
def odd_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that sees this one's packages, in a folder with an awkward name."""
    folder = tmp_path_factory.mktemp("py") / 'it\'s 100%O "odd" $HOME'
    venv.create(folder, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    (packages / "outer.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n"
    )
    return folder / "bin" / "python"


def test_any_path_of_python_survives_git_and_the_shell(plain: Repo, odd_python: Path) -> None:
    plain.run(str(odd_python), "-m", "git_theta_ext.cli.main", "install")
    assert installation.is_installed(Repository.discover(plain.path))
    filter_command = plain.git("config", "filter.theta.process").strip()
    assert shlex.split(filter_command)[0] == str(odd_python)
    # Git itself expands % and runs the shell: the merge driver is started with Git's file names.
    probe = plain.git("config", "merge.theta.driver").split(" -m ")[0]
    code = "import sys; open('started', 'w').write(sys.executable); sys.exit(1)"
    plain.git("config", "merge.theta.driver", f'{probe} -c "{code}" %O')
    (plain.path / ".gitattributes").write_text("f merge=theta\n")
    plain.write("f", b"1\n")
    plain.commit("base")
    plain.git("checkout", "-q", "-b", "other")
    plain.write("f", b"2\n")
    plain.commit("theirs")
    plain.git("checkout", "-q", "main")
    plain.write("f", b"3\n")
    plain.commit("ours")
    plain.git("merge", "other", ok=(1,))
    assert (plain.path / "started").read_text() == str(odd_python)


@pytest.fixture
def bare_python(tmp_path: Path) -> tuple[str, Path, str]:
    """A Python without our package; a folder that holds a copy of it; where its libraries are."""
    folder = tmp_path / "bare"
    venv.create(folder, symlinks=True)
    library = tmp_path / "library"
    ignored = shutil.ignore_patterns("__pycache__", "drivers")
    package = Path(git_theta_ext.__file__).parent
    shutil.copytree(package, library / "git_theta_ext", ignore=ignored)
    drivers_folder = Path(next(iter(drivers.__path__)))
    shutil.copytree(drivers_folder, library / "git_theta_ext" / "drivers")
    return str(folder / "bin" / "python"), library, str(Path(git.__file__).parent.parent)


def test_a_package_on_pythonpath_is_found_without_it(
    plain: Repo, bare_python: tuple[str, Path, str], tmp_path: Path
) -> None:
    """Its folders stand in the command, those that are absolute; what is set later is ignored."""
    python, library, libraries = bare_python
    env = {"PYTHONPATH": os.pathsep.join(["", str(library), ".", libraries])}
    plain.run(python, "-m", "git_theta_ext.cli.main", "install", "--local", env=env)
    words = shlex.split(plain.git("config", "filter.theta.process"))
    assert words[1:3] == ["-I", "-c"]
    assert words[4:-2] == [str(library), libraries]
    trap = b"open('ran', 'w').close()\n"
    for name in ("numpy.py", "runpy.py", "site.py", "git_theta_ext/__init__.py"):
        plain.write(name, trap)
    plain.write(".gitattributes", b"*.safetensors filter=theta diff=theta merge=theta -text\n")
    plain.write("m.safetensors", safetensors(model()))
    plain.git("add", "m.safetensors", env={"PYTHONPATH": ""})
    assert plain.blob(":m.safetensors").startswith(b"git-theta manifest v2\n")
    hook = (plain.path / ".git/hooks/pre-push").read_text()
    assert str(library) in hook
    plain.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    plain.git("commit", "-q", "-m", "m")
    plain.git("push", "-q", str(tmp_path / "remote.git"), "main", env={"PYTHONPATH": ":/x"})
    assert list((tmp_path / "remote.git/lfs/objects").glob("??/??/*"))
    assert not (plain.path / "ran").exists()


def test_a_package_in_the_user_site_is_found_wherever_that_is_later(
    plain: Repo, bare_python: tuple[str, Path, str], sealed: Path
) -> None:
    """`-E` keeps PYTHONUSERBASE in force, and a relative one means the work tree."""
    _, library, libraries = bare_python
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}"
    user = sealed / f".local/lib/python{sys.version_info.major}.{sys.version_info.minor}"
    (user / "site-packages").mkdir(parents=True)
    (user / "site-packages/theta.pth").write_text(f"{library}\n{libraries}\n")
    plain.run(str(base), "-m", "git_theta_ext.cli.main", "install")
    words = shlex.split(plain.git("config", "filter.theta.process"))
    assert words[1:3] == ["-I", "-c"]
    assert words[4] == f"site:{user}/site-packages"
    (plain.path / ".gitattributes").write_text("*.safetensors filter=theta\n")
    inside = f"evil/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    plain.write(f"{inside}/usercustomize.py", b"open('ran', 'w').close()\n")
    plain.write(f"{inside}/x.pth", b"import os; open('ran', 'w').close()\n")
    plain.write("m.safetensors", safetensors(model()))
    plain.git("add", "m.safetensors", env={"PYTHONUSERBASE": "evil"})
    assert plain.blob(":m.safetensors").startswith(b"git-theta manifest v2\n")
    assert not (plain.path / "ran").exists()


@pytest.mark.parametrize("flags", ["-P", "-E -P", "-I -c 'import x' rel -m y; x"])
def test_settings_that_start_python_otherwise_are_told(plain: Repo, flags: str) -> None:
    plain.theta("install")
    command = plain.git("config", "filter.theta.process").strip()
    plain.git("config", "--global", "filter.theta.process", command.replace("-I", flags))
    (problem,) = installation.problems(Repository.discover(plain.path))
    assert "files of a work tree could be run" in problem
    assert "git theta install" in plain.theta("status")
    plain.theta("install")
    assert installation.problems(Repository.discover(plain.path)) == []


def test_settings_of_earlier_versions_serve_git_alone(plain: Repo) -> None:
    plain.theta("install")
    assert "JGit" not in plain.theta("status")
    plain.git("config", "--global", "--unset", "filter.theta.clean")
    assert installation.problems(Repository.discover(plain.path)) == []
    assert "git theta install" in plain.theta("status")
    plain.git("config", "--global", "filter.theta.clean", "/gone/python -I -m x clean %f")
    assert "filter.theta.clean names a program that does not exist" in plain.theta("status")
    plain.theta("install")
    assert installation.problems(Repository.discover(plain.path)) == []
    assert "JGit" not in plain.theta("status")


def test_a_percent_sign_of_the_path_is_no_placeholder() -> None:
    command = installation.settings(["/a%f/%%b/%c", "-I"])["filter.theta.clean"]
    expanded = command.replace("%%", "%").replace("%f", "FILE")
    assert shlex.split(expanded)[0] == "/a%f/%%b/%c"
    assert shlex.split(command.replace("%f", "FILE"))[-1] == "FILE"
    assert shlex.split(command)[0] == "/a%f/%%b/%c"


EVIL = ("", ".", ":/x", "/x:", "/x::/y")


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "env",
    [*({"PYTHONPATH": value} for value in EVIL), {"PYTHONUSERBASE": "."}, {"PYTHONHOME": "."},
     {"PYTHONSTARTUP": "git_theta_ext/__init__.py", "PYTHONINSPECT": "1"},
     {"PYTHONSAFEPATH": ""}, {"PYTHONPLATLIBDIR": "."}, {"PYTHONPYCACHEPREFIX": "."}],
    ids=str,
)  # fmt: skip
def test_no_variable_of_python_has_a_work_tree_run(
    repo: Repo, tmp_path: Path, env: dict[str, str]
) -> None:
    code = f"open({str(tmp_path / 'ran')!r}, 'a').write(__file__)\n".encode()
    for name in ("git_theta_ext/__init__.py", "sitecustomize.py", "usercustomize.py", "runpy.py",
                 "encodings/__init__.py", "lib/python3.11/site-packages/x.pth"):  # fmt: skip
        repo.write(name, code if name.endswith(".py") else b"import os; " + code)
    repo.write("m.safetensors", safetensors(model()))
    repo.git("add", "-A", env=env)
    repo.git("commit", "-q", "-m", "m", env=env)
    repo.git("checkout", "-q", "-b", "other", env=env)
    repo.git("diff", "HEAD~1", "--", "m.safetensors", env=env)
    repo.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    repo.git("push", "-q", str(tmp_path / "remote.git"), "main", env=env)
    assert list((tmp_path / "remote.git/lfs/objects").glob("??/??/*"))
    assert not (tmp_path / "ran").exists()


def test_hooks_of_earlier_versions_are_rewritten(repo: Repo) -> None:
    hook = repo.path / ".git/hooks/pre-push"
    hook.write_text(hook.read_text().replace("-I", "-P"))
    repo.write("m.safetensors", safetensors(model()))
    repo.git("add", "m.safetensors")
    assert "-P" not in hook.read_text()


def test_a_package_that_only_the_current_folder_offers_is_refused(
    plain: Repo, bare_python: tuple[str, Path, str]
) -> None:
    python, library, libraries = bare_python
    here = Repo(library)
    env = {"PYTHONPATH": libraries}
    done = here.run(python, "-m", "git_theta_ext.cli.main", "install", env=env, ok=(2,))
    assert b"cannot import git_theta_ext from another folder" in done.stderr
    assert b"-m pip install ." in done.stderr  # its source is not beside this copy
    assert not [key for key in _config(plain) if "theta" in key]


def test_nothing_of_the_work_tree_is_imported(repo: Repo) -> None:
    """Git starts the filter in the top of the work tree: files there must not shadow modules."""
    names = ["numpy", "git", "pygit2", "zstandard", "json", "site", "sitecustomize", "pcodec"]
    trap = f"open({str(repo.path / 'executed')!r}, 'a').write(__name__)\n"
    for name in names:
        repo.write(f"{name}.py", trap.encode())
    repo.write("git_theta_ext/__init__.py", trap.encode())
    repo.write("drivers/__init__.py", trap.encode())
    repo.write("model.safetensors", b"\x08\0\0\0\0\0\0\0{}      ")
    repo.git("add", "model.safetensors")
    assert repo.blob(":model.safetensors").startswith(b"git-theta manifest v2\n")
    os.unlink(repo.path / "model.safetensors")
    repo.git("checkout", "--", "model.safetensors")
    assert not (repo.path / "executed").exists()


def test_the_trap_of_that_test_does_catch(repo: Repo) -> None:
    """The negative control: with the folder on the path, a shadowing module is executed."""
    repo.write("numpy.py", f"open({str(repo.path / 'executed')!r}, 'w')\n".encode())
    command = repo.git("config", "filter.theta.process").strip()
    words = shlex.split(command)
    open_path = [word for word in words if word not in ("-I",)]
    repo.git("config", "filter.theta.process", shlex.join(open_path))
    repo.write("model.safetensors", b"\x08\0\0\0\0\0\0\0{}      ")
    repo.git("add", "model.safetensors", ok=(0, 128))
    assert (repo.path / "executed").exists()


def test_version_tells_what_is_in_force(plain: Repo) -> None:
    facts = json.loads(plain.theta("version", "--json"))
    assert facts["git-theta-ext"]
    assert facts["git"].startswith("git version ")
    assert facts["libraries"]["numpy"]
    assert facts["config"]["filter.theta.process"] is None
    plain.theta("install")
    facts = json.loads(plain.theta("version", "--json"))
    assert "git_theta_ext.drivers.filter" in facts["config"]["filter.theta.process"]
    assert f"python: {facts['python']}\n" in plain.theta("version")


def test_installing_after_a_clone_says_how_to_get_the_checkpoints(
    repo: Repo, tmp_path: Path
) -> None:
    repo.write("m.safetensors", safetensors(model()))
    repo.commit()
    repo.git("clone", "-q", str(repo.path), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    assert "1 manifest in the work tree: git theta pull" in clone.theta("install", "--local")
    clone.theta("pull")
    assert (clone.path / "m.safetensors").read_bytes() == safetensors(model())
    assert clone.status() == ""
    assert "manifest" not in clone.theta("install", "--local")
