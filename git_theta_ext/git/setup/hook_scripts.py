"""The texts of the hooks: files in a hooks folder, and commands in git config (Git 2.54 and newer).

A file's hook runs the hook that was there before, then git-lfs where it is at work and that hook
did not call it, then ours. What stands in git config runs ours alone. Where both stand, the file's
leaves our part to git config (`hooks.runs_from_config`), so that nothing runs twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from git_theta_ext.git import launch

HOOKS = ("pre-push", "post-merge", "post-checkout", "post-rewrite")
COMMIT_SUMMARY = "prepare-commit-msg"
"""The hook that is put in place on request alone."""
MARK = "# git-theta hook"
CHAINED = ".theta-chained"
CONFIGURED = "--configured"
"""First argument of a driver that was started from git config."""

_HEAD = """\
#!/bin/sh
{mark}: put here by `git theta install`, taken away by `git theta uninstall`.
# A hook that was here before is {name}{chained}; it runs first.
"""

_OWN = """\
theta_program={program}
theta_python() {{
  {command} "$@"
}}
theta_here() {{
  :
}}
"""

# In a folder that others share or that is committed, no machine's path may stand: the Python is
# the one of the filter, and who has none only runs what was there before.
_SHARED = """\
set +e
theta_filter=$(git config filter.theta.process)
theta_start=${theta_filter% -m git_theta_ext.drivers.filter}
theta_python() {
  eval "$theta_start" '"$@"'
}
theta_program=$(test "$theta_start" = "$theta_filter" || { eval "set -- $theta_start"; echo "$1"; })
theta_here() {
  test -n "$theta_program" && return
  git grep -q filter=theta HEAD -- .gitattributes '*/.gitattributes' 2>/dev/null && echo >&2 \\
    "git theta: warning: git-theta is not set up here, and does nothing: git theta install"
  return 1
}
"""

_CHAIN = """\
theta_is_chained() {
  test -x "$0.theta-chained"
}
theta_chained() {
  "$0.theta-chained" "$@"
}
"""

# husky 9 starts the files of .husky as `sh -e FILE`, executable or not.
_CHAIN_BY_SH = """\
theta_is_chained() {
  test -f "$0.theta-chained"
}
theta_chained() {
  sh -e "$0.theta-chained" "$@"
}
"""

# The guard: another tool may have chained this very file under a new name, and be chained by it.
_PRE_PUSH = """\
# A hash, for thousands of refs would be longer than a variable of the environment may be.
theta_refs=$(cat)
theta_guard=$(printf '%s|%s' "$*" "$theta_refs" | git hash-object --stdin) || exit
test "$GIT_THETA_IN_PRE_PUSH" = "$theta_guard" && exit 0
export GIT_THETA_IN_PRE_PUSH="$theta_guard"
theta_stdin() {
  test -z "$theta_refs" || printf '%s\\n' "$theta_refs"
}
theta_lfs=
if test -d "$(git rev-parse --git-common-dir)/lfs" || git config lfs.storage >/dev/null; then
  theta_lfs=$(command -v git-lfs)
fi
if theta_is_chained; then
  # Whether the other hook has git-lfs upload is seen, not guessed: it meets this one first.
  theta_seen=$(test -n "$theta_lfs" && mktemp -d 2>/dev/null)
  if test -n "$theta_seen"; then
    cat >"$theta_seen/git-lfs" <<'END'
#!/bin/sh
"$GIT_THETA_LFS" "$@"
theta_status=$?
test "$1 $theta_status" = "pre-push 0" && : >"$GIT_THETA_LFS_SEEN"
exit $theta_status
END
    chmod +x "$theta_seen/git-lfs"
    theta_stdin | GIT_THETA_LFS="$theta_lfs" GIT_THETA_LFS_SEEN="$theta_seen/ran" \\
      PATH="$theta_seen:$PATH" theta_chained "$@"
    theta_status=$?
    test -e "$theta_seen/ran" && theta_lfs=
    rm -rf "$theta_seen"
    test $theta_status = 0 || exit $theta_status
  else
    theta_stdin | theta_chained "$@" || exit
  fi
fi
if test -n "$theta_lfs"; then
  theta_stdin | git lfs pre-push "$@" || exit
fi
theta_here || exit 0
if ! test -x "$theta_program"; then
  echo >&2 "git theta: error: $theta_program is gone, so the objects of checkpoints cannot be sent."
  echo >&2 "  The push was stopped; nothing is lost. Install git-theta-ext again and type:"
  echo >&2 "  git theta install      (or, to do without it: git theta uninstall, or remove $0)"
  exit 1
fi
theta_stdin | theta_python -m git_theta_ext.drivers.pre_push "$@" && exit 0
theta_python -m git_theta_ext.cli.main --version >/dev/null 2>&1 || {
  echo >&2 "git theta: error: git-theta-ext is not installed in $theta_program any more."
  echo >&2 "  The push was stopped; nothing is lost. Install it again and type: git theta install"
  echo >&2 "  (or, to do without it: git theta uninstall, or remove $0)"
}
exit 1
"""

_POST = """\
test "$GIT_THETA_IN_POST_HOOK" = "{name} $*" && exit 0
export GIT_THETA_IN_POST_HOOK="{name} $*"
theta_status=0
if theta_is_chained; then
  theta_chained "$@"
  theta_status=$?
{lfs}fi
theta_here || exit $theta_status
if test -x "$theta_program"; then
  theta_python -m git_theta_ext.drivers.post_hook {name} "$@" </dev/null
else
  echo >&2 "git theta: warning: $theta_program is gone; type: git theta install"
fi
exit $theta_status
"""

_POST_LFS = """\
elif test -d "$(git rev-parse --git-common-dir)/lfs" && command -v git-lfs >/dev/null 2>&1; then
  git lfs {name} "$@"
  theta_status=$?
"""

# A summary that cannot be made must not keep anybody from committing.
_SUMMARY = """\
if theta_is_chained; then
  theta_chained "$@" || exit
fi
theta_here || exit 0
if test -x "$theta_program"; then
  theta_python -m git_theta_ext.cli.main summary --into "$@" </dev/null ||
    echo >&2 "git theta: warning: the message has no summary of checkpoints"
fi
exit 0
"""

# In git config of the user these run in every repository: one that git-theta has nothing to do with
# must neither be slowed down nor, once that Python is gone, be kept from being pushed.
_USED = (
    'test -d "$(git rev-parse --git-common-dir)/theta" || git config theta.storage >/dev/null'
    " || git grep -q filter=theta HEAD -- .gitattributes '*/.gitattributes' 2>/dev/null"
)
_PUSH_COMMAND = (
    "theta() { test -x {program} || {"
    ' echo >&2 "git theta: "{program}" is gone, so no objects of checkpoints can be sent. Type:";'
    ' echo >&2 "  git theta install   (or, to do without: git config --global --remove-section'
    ' hook.theta-pre-push)";'
    " if {used}; then return 1; fi; return 0; };"
    " {command} -m git_theta_ext.drivers.pre_push {configured}"
    ' "$@"; }; theta'
)
_POST_COMMAND = (
    "theta() { if {used}; then test -x {program} &&"
    " {command} -m git_theta_ext.drivers.post_hook {configured} {name}"
    ' "$@" </dev/null; fi; }; theta'
)


def script(name: str, python: Sequence[str]) -> str:
    """The text of a hook in a repository's own folder; `python` is `launch.python_command`'s."""
    command = launch.shell_command(python)
    own = _OWN.format(program=launch.shell_word(python[0]), command=command)
    return _head(name) + own + _CHAIN + _body(name)


def shared_script(name: str, *, by_sh: bool) -> str:
    """The text of a hook in a folder that others use too: the same on every machine.

    `by_sh`: the file is not started itself, but by `sh -e`, as husky 9 does.
    """
    return _head(name) + _SHARED + (_CHAIN_BY_SH if by_sh else _CHAIN) + _body(name)


def configured(python: Sequence[str]) -> dict[str, str]:
    """The settings with which Git 2.54 and newer runs the hooks; a command before its event.

    None is marked as fit to run beside others (`hook.NAME.parallel`), so all hooks of these events
    run one after the other: a user's own hook may look at what is pushed, or stop it.
    """
    settings = {}
    for name in HOOKS:
        text = _PUSH_COMMAND if name == "pre-push" else _POST_COMMAND
        for field, value in (
            ("{used}", _USED),
            ("{configured}", CONFIGURED),
            ("{name}", name),
            ("{command}", launch.shell_command(python)),
            ("{program}", launch.shell_word(python[0])),
        ):
            text = text.replace(field, value)
        settings[f"hook.{friendly_name(name)}.command"] = text
        settings[f"hook.{friendly_name(name)}.event"] = name
    return settings


def friendly_name(name: str) -> str:
    """What a hook of ours is called in git config."""
    return f"theta-{name}"


def by_hand(name: str, python: Sequence[str]) -> str:
    """The one line that a hook of somebody else needs, to do our part."""
    module = "pre_push" if name == "pre-push" else f"post_hook {name}"
    return f'{launch.shell_command(python)} -m git_theta_ext.drivers.{module} "$@"'


def calls_ours(name: str, content: bytes) -> bool:
    """Whether a hook's file does our part: by the line above, or as a script of ours."""
    return _mentions(content, (b"pre_push",) if name == "pre-push" else (b"post_hook",))


def calls_lfs(content: bytes) -> bool:
    """Whether a hook's file seems to call git-lfs."""
    return _mentions(content, (b"git lfs ", b"git-lfs "))


def _mentions(content: bytes, words: Sequence[bytes]) -> bool:
    lines = [line for line in content.splitlines() if not line.lstrip().startswith(b"#")]
    return any(word in line for line in lines for word in words)


def _head(name: str) -> str:
    return _HEAD.format(mark=MARK, name=name, chained=CHAINED)


def _body(name: str) -> str:
    if name == "pre-push":
        return _PRE_PUSH
    if name == COMMIT_SUMMARY:
        return _SUMMARY
    # git-lfs has hooks for checkout and merge, none for rewrites.
    lfs = "" if name == "post-rewrite" else _POST_LFS.replace("{name}", name)
    return _POST.replace("{lfs}", lfs).replace("{name}", name)


def is_ours(content: bytes) -> bool:
    """Whether a hook's file is one of these scripts."""
    return MARK.encode() in content[:200]
