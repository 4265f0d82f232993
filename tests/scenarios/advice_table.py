"""Every command that our texts suggest, and the test that takes it out of the message and runs it.

A line of a text that names a command stands in one of three tables, or `tests/unit/
test_advice_table.py` fails. The lines are as `suggestions.py` reads them.
"""

# ruff: noqa: E501

from __future__ import annotations

RUN: dict[str, dict[str, str]] = {
    "git_theta_ext/cli/verbs/completion.py": {
        "git theta completion bash": "test_documented_examples.test_completion",
    },
    "git_theta_ext/git/revisions.py": {
        "git branch -a": "test_check.test_what_is_suggested",
    },
    "git_theta_ext/cli/verbs/logs.py": {
        "git theta logs lists them": "test_verbs_of_git_lfs.test_an_error_of_ours_is_kept",
    },
    "git_theta_ext/comparison/history.py": {
        "git theta ls-files {revision} lists what it has": "test_advice_reading.test_what_is_not_there",
    },
    "git_theta_ext/cli/verbs/ls_files.py": {
        "git theta ls-files lists what there is": "test_advice_reading.test_what_is_not_there",
    },
    "git_theta_ext/cli/about_files/pathspecs.py": {
        "git theta ls-files": "test_advice_reading.test_pull_of_what_is_not_tracked",
    },
    "git_theta_ext/cli/verbs/check_files.py": {
        "git add FILE": "test_check_files.test_what_should_not_be_committed_is_refused",
        "git add --renormalize FILE": "test_check_files.test_what_should_not_be_committed_is_refused",
        "git theta track FILE && git add .gitattributes && git add --renormalize FILE": "test_check_files.test_what_should_not_be_committed_is_refused",
    },
    "git_theta_ext/cli/verbs/checkout.py": {
        "git theta pull": "test_verbs_of_git_lfs.test_objects_are_fetched_by_pattern_and_checked_out_without_a_network",
    },
    "git_theta_ext/cli/verbs/env.py": {
        "set up: {'yes' if facts['installed'] else 'no (git theta install)'}": "test_verbs_of_git_lfs.test_what_is_in_force_is_shown",
    },
    "git_theta_ext/cli/verbs/review.py": {
        "git config --global web.browser NAME (such as firefox)": "test_verbs_of_git_lfs.test_the_report_is_opened_in_the_browser",
    },
    "git_theta_ext/cli/verbs/diff_filter.py": {
        "git show --color HEAD | git theta diff-filter": "test_readable_diffs.test_a_filter_of_ones_own_stays",
    },
    "git_theta_ext/git/crashes/log.py": {
        "hint: git theta logs last shows it": "test_verbs_of_git_lfs.test_an_error_of_ours_is_kept",
    },
    "git_theta_ext/cli/verbs/am.py": {
        "git status shows how to conclude it, and how to take it back": "test_patches.test_plain_patches_carry_manifests_only",
        "when that is put right: git theta am FILE": "test_patches.test_what_is_suggested_to_who_takes_one",
        "git merge {patch.tip[:12]} takes the commits of the patch as they are": "test_patches.test_what_a_merge_made_itself_is_not_left_out",
        "git theta apply PATCH adds what the patch changes once more": "test_patches.test_as_a_mail_on_a_branch_that_moved_on",
        "stopped at a conflict; when it is settled: git cherry-pick --continue": "test_patches.test_what_is_suggested_to_who_takes_one",
        "to take all back: git cherry-pick --abort": "test_patches.test_what_is_suggested_to_who_takes_one",
    },
    "git_theta_ext/cli/verbs/apply.py": {
        "git theta show PATCH says what it changes": "test_patches.test_what_is_suggested_to_who_applies_one",
        "{printable(path)}: left out; git theta am PATCH takes whole commits": "test_patches.test_what_is_suggested_to_who_applies_one",
    },
    "git_theta_ext/packages/patches/apply.py": {
        "git theta ls-files lists them; then: git theta apply PATCH FILE": "test_patches.test_what_is_suggested_to_who_applies_one",
        "git theta status": "test_patches.test_what_is_suggested_to_who_applies_one",
        "git add FILE, or: git restore FILE then again": "test_patches.test_what_is_suggested_to_who_applies_one",
        "git add --renormalize FILE stores it so": "test_patches.test_what_is_suggested_to_who_applies_one",
    },
    "git_theta_ext/packages/patches/bundle.py": {
        "git fetch FILE takes what is in a bundle": "test_patches.test_what_is_suggested_to_who_takes_one",
    },
    "git_theta_ext/packages/patches/mail.py": {
        "to apply it: git theta am FILE": "test_patches.test_as_a_mail_on_a_branch_that_moved_on",
        "a plain patch: git am FILE": "test_patches.test_what_is_suggested_to_who_takes_one",
    },
    "git_theta_ext/packages/patches/make.py": {
        "git theta format-patch {first}..{last[1:]} -o FILE": "test_patches.test_what_is_suggested_to_who_makes_one",
        "git format-patch makes patches of all else": "test_patches.test_what_is_suggested_to_who_makes_one",
    },
    "git_theta_ext/packages/patches/receive.py": {
        "git fetch brings it, where the remote has it": "test_patches.test_what_is_suggested_to_who_takes_one",
        "git theta apply FILE adds the update to the checkpoint that is here": "test_patches.test_what_is_suggested_to_who_takes_one",
    },
    "git_theta_ext/cli/verbs/cache.py": {
        "git theta cache prune -h": "test_advice_get.test_what_is_suggested",
    },
    "git_theta_ext/packages/cache.py": {
        "git theta cache verify removes what is damaged; then try again": "test_advice_get.test_what_is_suggested",
        "another folder: git config --global {SETTING} FOLDER, or set {VARIABLE}": "test_advice_get.test_what_is_suggested",
    },
    "git_theta_ext/packages/fetched.py": {
        "git theta cache list shows what is there; without --offline it is fetched": "test_advice_get.test_what_is_suggested",
    },
    "git_theta_ext/objects/promised.py": {
        "does Git reach it? git ls-remote URL": "test_partial_clones.test_what_is_not_here_is_said_and_fetched",
        "git fsck": "test_partial_clones.test_what_is_not_here_is_said_and_fetched",
    },
    "git_theta_ext/packages/remote.py": {
        "does Git reach it? git ls-remote URL": "test_advice_get.test_what_is_suggested",
    },
    "git_theta_ext/packages/files.py": {
        "name the file or the folder that you want: git theta get URL@VERSION:PATH": "test_advice_get.test_what_is_suggested",
    },
    "git_theta_ext/packages/reading.py": {
        "git theta get URL@VERSION:PATH has the file as it is": "test_get.test_python",
    },
    "git_theta_ext/packages/placing.py": {
        "a bundle holds no objects of checkpoints. If a server has them, name it: git -c lfs.url=URL theta get …": "test_get_odd.test_a_bundle_and_a_commit",
        "git config --global --add": "test_advice_get.test_what_is_suggested",
        "tell those who published it: where the objects are, git theta push REMOTE --all sends them. What came so far is kept: the same command goes on with it": "test_advice_get.test_what_is_suggested",
    },
    "git_theta_ext/packages/trimming.py": {
        "git theta cache list shows what is there": "test_advice_get.test_what_is_suggested",
    },
    "git_theta_ext/cli/verbs/assemble.py": {
        "to build it: git theta assemble RECIPE": "test_assemble.test_parts_are_used_as_they_are_and_blame_names_them",
    },
    "git_theta_ext/cli/verbs/merge_assembled.py": {
        "{printable(one.path)}: settle {printable(one.recipe)} first, then build it: git theta assemble {name}": "test_assemble.test_two_assemblies_are_merged_by_their_recipe",
    },
    "git_theta_ext/packages/assemble/assembly.py": {
        "git theta assemble RECIPE locks it": "test_assemble.test_nothing_is_lost_and_nothing_is_silent",
    },
    "git_theta_ext/packages/assemble/locked.py": {
        "remove it, then lock the parts anew: git theta assemble RECIPE": "test_assemble.test_nothing_is_lost_and_nothing_is_silent",
        "git theta assemble RECIPE --update {name} takes what it is now": "test_assemble.test_versions_move_when_they_are_told_to",
    },
    "git_theta_ext/packages/assemble/parts.py": {
        "to take what it is now: git theta assemble RECIPE --update {}": "test_assemble.test_versions_move_when_they_are_told_to",
        "git tag": "test_assemble.test_nothing_is_lost_and_nothing_is_silent",
    },
    "git_theta_ext/packages/assemble/written.py": {
        "git theta track FILE then try again": "test_assemble.test_nothing_is_lost_and_nothing_is_silent",
        "commit it first, or write over it: git theta assemble --force RECIPE": "test_assemble.test_nothing_is_lost_and_nothing_is_silent",
    },
    "git_theta_ext/cli/consent.py": {
        "git theta allow (or, this once: --allow-evaluation)": "test_allow.test_it_does_not_run_before_it_was_allowed",
    },
    "git_theta_ext/cli/verbs/evaluate.py": {
        "git theta ls-files": "test_evaluate.test_what_cannot_be_measured_is_said",
        "git theta evaluate --import {printable(args.files[0])} --evaluation NAME": "test_evaluate.test_results_that_somebody_has",
    },
    "git_theta_ext/cli/verbs/modules.py": {
        "git theta ls-files {revision} lists them": "test_by_module.test_a_sharded_model_is_one_and_mistakes_are_said",
    },
    "git_theta_ext/cli/verbs/restore.py": {
        "git theta ls-files lists them": "test_restore_parts.test_what_cannot_be_done_changes_nothing",
    },
    "git_theta_ext/merge/branches/restore.py": {
        "git theta restore OPTIONS FILE": "test_restore_parts.test_tensors_of_a_sharded_model",
        "to take all of it from there: git restore --source REV -- FILE": "test_restore_parts.test_what_cannot_be_done_changes_nothing",
        "git theta resolve FILE": "test_restore_parts.test_what_cannot_be_done_changes_nothing",
    },
    "git_theta_ext/cli/verbs/scores.py": {
        "git theta evaluate": "test_scores.test_what_is_not_there_is_said",
    },
    "git_theta_ext/evaluation/targets.py": {
        "git theta pull FILE": "test_evaluate.test_what_cannot_be_measured_is_said",
    },
    "git_theta_ext/cli/verbs/sync.py": {
        "git theta sync --force replaces and removes them": "test_sync.test_what_somebody_changed_is_named_and_kept",
    },
    "git_theta_ext/packages/locking/bases.py": {
        "let {base.name} be the version that it was made on, or take a version of {adapter} that fits: git theta update {adapter} {base.name}": "test_sync.test_an_adapter_and_its_base",
    },
    "git_theta_ext/packages/locking/lock_file.py": {
        "settle models.toml, then: git checkout --theirs theta.lock && git theta sync": "test_sync.test_two_locks_are_merged",
        "git checkout HEAD -- theta.lock takes the committed one; or remove it: git theta sync then locks the newest versions that are allowed": "test_sync.test_traps",
    },
    "git_theta_ext/packages/locking/resolve.py": {
        "git theta update {row.name} moves both; or say alone = true in one, to have two versions side by side": "test_sync.test_several_entries_of_one_repository",
    },
    "git_theta_ext/packages/locking/sync.py": {
        "git theta sync locks the rest": "test_sync.test_a_folder_is_made_as_locked",
        "git theta update {} takes what it names now": "test_sync.test_a_tag_that_was_moved",
    },
    "git_theta_ext/evaluation/travel.py": {
        "to keep results here: git config {SETTING} false": "test_results_travel.test_a_remote_that_refuses_them_stops_no_push",
    },
    "git_theta_ext/git/repository.py": {
        "cd to one, or make one: git init": "test_not_set_up.test_outside_a_repository_the_folder_is_named",
    },
    "git_theta_ext/cli/verbs/merge_gate.py": {
        "git reset --keep ORIG_HEAD takes the merge back": "test_merge_gate.test_a_hook_that_changes_what_was_judged",
    },
    "git_theta_ext/evaluation/gates/ends.py": {
        "name it: git theta check BRANCH...HEAD": "test_check.test_what_is_suggested",
        "git fetch --unshallow": "test_check.test_what_is_suggested",
    },
    "git_theta_ext/evaluation/gates/rules.py": {
        ": git theta evaluate {version.rev[:10]}": "test_check.test_what_is_suggested",
    },
    "git_theta_ext/git/setup/installation.py": {
        "git theta install (then run the command again)": "test_not_set_up.test_pull_does_not_stage_checkpoints_whole",
    },
    "git_theta_ext/checkpoints/adapters/base.py": {
        "merge it with the tool that made it, then: git add FILE": "test_add_update.test_what_cannot_be_applied_exactly_is_refused_and_nothing_changes",
    },
    "git_theta_ext/checkpoints/adapters/peft.py": {
        "write the merged checkpoint with its own tool, then: git add FILE": "test_add_update.test_what_cannot_be_applied_exactly_is_refused_and_nothing_changes",
    },
    "git_theta_ext/checkpoints/adapters/peft_config.py": {
        "merge it with PEFT (merge_and_unload), save the model, then: git add FILE": "test_add_update.test_what_cannot_be_applied_exactly_is_refused_and_nothing_changes",
    },
    "git_theta_ext/checkpoints/adapters/types/read.py": {
        "merge it with the tool that made it, save the model, then: git add FILE": "test_add_update.test_what_cannot_be_applied_exactly_is_refused_and_nothing_changes",
        "a whole checkpoint is added with: git add FILE": "test_add_update.test_what_cannot_be_applied_exactly_is_refused_and_nothing_changes",
    },
    "git_theta_ext/checkpoints/adapters/types/weighted.py": {
        "apply it alone (git theta add FILE --update ADAPTER), commit, and add the others to that": "test_add_weighted.test_an_adapter_that_has_no_weight_is_applied_alone",
    },
    "git_theta_ext/cli/verbs/export_adapter.py": {
        "git theta export RANGE --to peft -o FOLDER": "test_export_adapter.test_what_cannot_be_exported_is_said",
    },
    "git_theta_ext/packages/adapter/ends.py": {
        "git theta export v1..v2 --to peft -o FOLDER": "test_export_adapter.test_what_cannot_be_exported_is_said",
        "git theta diff {first[:10]} {last[:10]} -- FILE says what happened to it": "test_export_adapter.test_what_cannot_be_exported_is_said",
        "name one: git theta export RANGE": "test_export_adapter.test_what_cannot_be_exported_is_said",
    },
    "git_theta_ext/packages/adapter/ia3.py": {
        "git theta export RANGE --to peft --rank 16 -o FOLDER fits a LoRA": "test_export_adapter.test_scaled_rows_and_columns_come_back_as_ia3",
    },
    "git_theta_ext/packages/adapter/plan.py": {
        "git theta export RANGE --to sparse -o FILE": "test_export_adapter.test_what_cannot_be_exported_is_said",
        "git theta export RANGE --to sparse -o FILE takes every change": "test_export_adapter.test_commits_join_and_what_does_not_fit_is_refused_or_kept_whole",
    },
    "git_theta_ext/core/advice.py": {
        "git rm -q --cached FILE && git add FILE": "test_advice.test_the_other_way_to_store_by_tensor",
        "git add --renormalize :/": "test_advice.test_status_advises_how_to_store_a_plain_blob_by_tensor",
        "git theta track PATTERN, then: {STORE_BY_TENSOR}": "test_advice.test_open_advises_how_to_have_it_stored_by_tensor",
        "git log --oneline -- FILE lists the versions; to take one: git checkout REV -- FILE": "test_advice_objects.test_a_version_that_does_not_fit_together",
        "install the package first: {python} -I -m pip install {place}": "test_advice_setup.test_the_package_is_installed_from_its_source",
        "in the folder of its source, install the package first: {python} -I -m pip install .": "test_advice_setup.test_the_package_is_installed_from_its_source",
        "python -I -m pip install {package}": "test_advice_setup.test_a_package_for_a_part_is_named_as_its_index_does",
    },
    "git_theta_ext/git/attributes.py": {
        "git theta track FILE": "test_advice_setup.test_a_folder_is_tracked_by_what_is_in_it",
        "run git theta track in the folder that holds the checkpoints": "test_advice_setup.test_a_pattern_of_another_folder",
    },
    "git_theta_ext/objects/blocks.py": {
        "git theta fsck --repair fetches it again, where a remote has it": "test_advice_objects.test_building_on_a_damaged_object",
    },
    "git_theta_ext/objects/storing.py": {
        "git config theta.mergeStorage recipe": "test_recipes.test_a_setting_that_is_neither_word_is_refused",
        "git config --unset theta.packBelow": "test_recipes.test_a_setting_that_is_neither_word_is_refused",
    },
    "git_theta_ext/objects/bounds.py": {
        "make room, or keep the manifest in the work tree for now: set GIT_THETA_SKIP_SMUDGE=1 in the environment, repeat the command, and run git theta pull FILE when there is room": "test_advice_objects.test_without_room_the_manifest_is_kept_and_written_later",
        "set GIT_THETA_SKIP_SMUDGE=1 in the environment, repeat the command, then run git theta pull FILE, which writes block by block": "test_advice_objects.test_without_room_the_manifest_is_kept_and_written_later",
        "Git holds all {size(nbytes)} in memory before it writes them; at most {size(available)} are free (git theta pull writes block by block, after GIT_THETA_SKIP_SMUDGE=1)": "test_advice_objects.test_without_room_the_manifest_is_kept_and_written_later",
    },
    "git_theta_ext/checkpoints/smudge.py": {
        "{advice.OTHER_VERSION}, or add the whole file: git add FILE": "test_advice_objects.test_a_version_that_does_not_fit_together",
    },
    "git_theta_ext/cli/verbs/add.py": {
        "git theta add FILE --update A --update B --weights 1,1 adds both changes": "test_add_weighted.test_adapters_are_joined_with_weights",
        "git add FILE adds a checkpoint as it is": "test_cluster.test_where_the_work_cannot_be_done",
        "git add FILE && git commit, then try again": "test_advice_setup.test_an_update_of_what_is_not_committed",
        "{advice.TRACK_FIRST} && git commit, then try again": "test_advice_setup.test_an_update_of_what_is_stored_whole",
        "name all its shards: git theta add MODEL --update ADAPTER": "test_advice_setup.test_a_shard_is_not_the_model",
        "git commit -a, or: git checkout HEAD -- FILE then try again": "test_advice_setup.test_an_update_of_what_is_not_committed",
        "staged; git commit records it": "test_advice_setup.test_an_update_of_what_is_not_committed",
    },
    "git_theta_ext/cli/verbs/allow.py": {
        "git theta allow --list": "test_allow.test_it_is_listed_and_revoked",
    },
    "git_theta_ext/cli/verbs/blame.py": {
        "git theta show VERSION lists them": "test_advice_reading.test_a_tensor_that_is_not_there",
        "git fetch --unshallow": "test_advice.test_a_mark_of_blame_advises_what_takes_it_away",
    },
    "git_theta_ext/cli/verbs/cat.py": {
        "git theta show FILE lists them": "test_advice_reading.test_a_tensor_that_is_not_there",
    },
    "git_theta_ext/cli/verbs/diff.py": {
        "git theta diff --name-only{_compared(args)} lists some": "test_advice_reading.test_diff_of_a_tensor_that_is_not_there",
        "outside a repository: git theta diff FILE FILE": "test_advice_reading.test_diff_outside_of_a_repository",
        "git theta diff REV:FILE REV:FILE compares two files of two revisions": "test_advice_reading.test_diff_of_what_is_neither_a_revision_nor_a_file",
        "git theta diff [REV [REV]] FILE": "test_advice_reading.test_diff_of_what_is_neither_a_revision_nor_a_file",
    },
    "git_theta_ext/cli/verbs/du.py": {
        "git theta du --by-module [REV:]FILE": "test_by_module.test_a_sharded_model_is_one_and_mistakes_are_said",
        "git theta show FILE lists them": "test_advice_reading.test_a_tensor_that_is_not_there",
    },
    "git_theta_ext/cli/verbs/export.py": {
        "git theta show FILE lists them": "test_advice_reading.test_a_tensor_that_is_not_there",
    },
    "git_theta_ext/cli/verbs/release.py": {
        "git theta release REV -o DIR": "test_release.test_what_to_type_instead",
        "git theta release --verify DIR --public-key KEY": "test_release.test_what_to_type_instead",
    },
    "git_theta_ext/cli/verbs/sign.py": {
        "git tag --list": "test_release.test_what_to_type_instead",
        "to publish it: git add {words} && git commit -m 'Sign'": "test_release.test_a_version_is_signed_and_so_are_its_tensors",
    },
    "git_theta_ext/packages/release/write.py": {
        "git tag --list": "test_release.test_what_to_type_instead",
    },
    "git_theta_ext/cli/verbs/fsck.py": {
        "hint: git theta fsck --repair fetches what is missing or wrong": "test_advice_objects.test_fsck",
        "not checked: {which} missing here; git fsck names them": "test_partial_clones.test_what_is_not_here_is_said_and_fetched",
    },
    "git_theta_ext/cli/verbs/install.py": {
        "{name} is yours and stays. To see tensors in git add -p instead of hashes:": "test_readable_diffs.test_a_filter_of_ones_own_stays",
        "git config --{scope} {name} {shlex.quote(f'git theta diff-filter | {value}')}": "test_readable_diffs.test_a_filter_of_ones_own_stays",
        "{plural(count, 'manifest')} in the work tree: git theta pull writes the checkpoints": "test_advice_objects.test_manifests_in_the_work_tree",
    },
    "git_theta_ext/cli/links.py": {
        "cp -L FILE FILE.whole && mv FILE.whole FILE && git add FILE": "test_advice_moving_in.test_a_link_becomes_the_checkpoint",
        "(a whole folder: cp -rL FOLDER COPY makes files of all links in it)": "test_advice_moving_in.test_a_folder_of_links_becomes_files",
    },
    "git_theta_ext/cli/verbs/log.py": {
        "history ends here in this clone: what came before is not known (git fetch --unshallow)": "test_advice_reading.test_the_history_of_a_shallow_clone",
        "git theta show VERSION lists them": "test_advice_reading.test_a_tensor_that_is_not_there",
    },
    "git_theta_ext/cli/main.py": {
        "git theta -h": "test_advice_reading.test_verbs_that_are_none",
        "git theta -h lists the commands": "test_advice_reading.test_verbs_that_are_none",
        "did you mean: git theta {near}": "test_advice_reading.test_verbs_that_are_none",
        "git theta VERB -h shows the options of a command.": "test_advice_reading.test_verbs_that_are_none",
        "git theta help VERB shows its manual page, with the exit codes.": "test_advice_reading.test_verbs_that_are_none",
    },
    "git_theta_ext/cli/verbs/merge.py": {
        "git status shows how to conclude it, and how to take it back": "test_advice_merging.test_a_merge_does_not_begin_before_another_is_concluded",
        "to go on: git theta resolve {place} --strategy {found[0]}": "test_merge_sharded.test_a_conflict_is_resolved_for_the_whole_model",
        "git theta merge {args.other} --tune 'python evaluate.py {checkpoint}'": "test_merge_command.test_tuning_without_a_command_says_how_one_is_given",
        "choose a strategy: git theta merge {args.other} --strategy average": "test_merge_sharded.test_what_collides_is_settled_by_a_strategy",
        "To take it: git theta merge {printable(args.other)} --strategy {best.label}": "test_merge_command.test_tuning_finds_the_length_and_merges_when_told",
    },
    "git_theta_ext/cli/verbs/merge_several.py": {
        "{chosen_by}erge one at a time: git theta merge BRANCH": "test_merge_several.test_what_stays_open_changes_nothing",
        "to conclude it: git commit": "test_merge_several.test_stopping_before_the_commit",
        "to take it back: git merge --abort": "test_merge_several.test_stopping_before_the_commit",
    },
    "git_theta_ext/cli/verbs/mergetool_git.py": {
        "(git config mergetool.keepBackup false leaves none)": "test_mergetool.test_git_picks_it_and_its_last_line_is_true",
    },
    "git_theta_ext/cli/verbs/mergetool.py": {
        "{name}: written; to take it: git add {to_add(settled)}": "test_mergetool.test_settled_with_the_keyboard_alone",
        "git theta mergetool {name}": "test_mergetool.test_leaving_keeps_the_choices_for_the_next_start",
        "; what was written stays; to take it back: git theta resolve {name} --undo": "test_mergetool.test_what_was_written_can_be_taken_back",
    },
    "git_theta_ext/cli/verbs/prune.py": {
        "hint: git theta push {shown} --all": "test_advice_objects.test_prune_of_what_the_remote_lacks",
    },
    "git_theta_ext/cli/pull_request.py": {
        "{path} was committed whole, without git-theta: git theta install --local && {advice.STORE_BY_TENSOR}": "test_pull_request.test_a_checkpoint_committed_whole",
    },
    "git_theta_ext/cli/verbs/receive_check.py": {
        "hint: where they were committed: git theta install --local && git theta migrate import": "test_receive_check.test_what_is_committed_whole_is_refused_on_request",
        "git theta push REMOTE {printable(refs)} uploads them (REMOTE as in your git push); then push again.": "test_receive_check.test_a_push_without_objects_is_refused_and_mended_as_it_says",
        "So that every push does it by itself: git theta install --local": "test_receive_check.test_a_push_without_objects_is_refused_and_mended_as_it_says",
    },
    "git_theta_ext/cli/verbs/resolve.py": {
        "{printable(path)}: nothing is open; to take it: git add {to_add(conflict)}": "test_advice_merging.test_resolve_without_a_strategy_says_how_to_take_it",
        "git theta resolve {name} --strategy ours (or theirs)": "test_advice_sharded.test_other_keys_are_merged_and_a_side_is_asked_for_where_they_collide",
        "git theta resolve {words} --tensor '*' --strategy {choice} settles again what both sides changed; --undo undoes the last resolve": "test_advice_tied.test_another_side_afterwards_is_refused_and_says_how",
        "git theta resolve FILE": "test_advice_sharded.test_what_only_tensors_have_is_refused",
        "{path}: written from the shards; to take it: git add {options}{name}": "test_advice_sharded.test_status_names_what_settles_an_index",
    },
    "git_theta_ext/cli/verbs/show.py": {
        "git theta diff {shlex.quote(f'{named}^')} {shlex.quote(named)} shows what it changed": "test_readable_diffs.test_a_merge_is_told_tensor_by_tensor",
        "git theta show FILE lists them": "test_advice_reading.test_a_tensor_that_is_not_there",
    },
    "git_theta_ext/checkpoints/optimizers/fisher.py": {
        "git theta stats FILE --from OPTIMIZER --order NAMES": "test_merge_stats.test_statistics_from_an_optimizer_are_used",
    },
    "git_theta_ext/cli/verbs/stats.py": {
        "it is not tracked: git theta track --filename FILE": "test_advice_setup.test_statistics_are_tracked_and_added",
        "to use them in merges, on each branch: git add FILE && git commit": "test_advice_setup.test_statistics_are_tracked_and_added",
    },
    "git_theta_ext/cli/leftovers.py": {
        "{name} would be added by git add: {advise(repository, 'to remove it: rm FILE', path)}": "test_advice_status.test_a_backup_of_mergetool_is_named",
        "{name} is in the index: {advise(repository, 'git rm -q --cached FILE', path)}": "test_advice_status.test_a_backup_that_was_added_is_taken_out_again",
    },
    "git_theta_ext/cli/stored_whole.py": {
        "git theta pull, then: {command}": "test_advice_status.test_a_pointer_in_the_work_tree_is_fetched_first",
    },
    "git_theta_ext/cli/restaged.py": {
        "git theta ls-files": "test_moving_over.test_what_cannot_be_moved_is_refused",
        "git theta status": "test_moving_over.test_what_cannot_be_moved_is_refused",
        "git restore --staged FILE (or commit it), then again": "test_moving_over.test_the_tip_of_a_branch_moves_to_version_2",
    },
    "git_theta_ext/cli/verbs/import_hf.py": {
        "nothing is checked out yet: git switch {branch}": "test_documented_examples.test_import_hf",
    },
    "git_theta_ext/cli/migrating/moving_in.py": {
        "git-lfs still has copies: git lfs prune removes those that no branch needs": "test_migrate.test_a_history_moves_in_and_back",
        "new ones are stored by tensor after: git theta track {shown}": "test_migrate.test_a_history_moves_in_and_back",
    },
    "git_theta_ext/cli/migrating/moving_out.py": {
        "git lfs install --skip-repo then try again": "test_documented_examples.test_migrate_and_mirror",
    },
    "git_theta_ext/cli/migrating/info.py": {
        "To move them in: git theta migrate import --dry-run and the same without it": "test_migrate.test_one_commit_on_top_and_a_mirror",
    },
    "git_theta_ext/cli/verbs/mirror.py": {
        "To publish it: git theta mirror --push REMOTE {printable(args.source)} {name}": "test_migrate.test_one_commit_on_top_and_a_mirror",
        "git remote -v": "test_mirror.test_a_mirror_needs_a_remote_and_all_commits",
    },
    "git_theta_ext/migration/mirrors/kept.py": {
        "git fetch --unshallow": "test_mirror.test_a_mirror_needs_a_remote_and_all_commits",
    },
    "git_theta_ext/migration/mirrors/sent.py": {
        "git config {SETTING} main:main-lfs": "test_mirror.test_what_cannot_be_mirrored_stops_no_push",
        "to keep those at the remote, type: git branch -D {printable(target)} (to drop them: --force)": "test_mirror.test_what_cannot_be_mirrored_stops_no_push",
    },
    "drivers/pre_push.py": {
        "git theta mirror --push {remote} {source} {target}": "test_mirror.test_what_cannot_be_mirrored_stops_no_push",
    },
    "git_theta_ext/cli/verbs/migrate.py": {
        "git theta migrate info shows what is here": "test_moving_over.test_what_cannot_be_moved_is_refused",
        "git theta migrate --to-manifest {LATEST}": "test_moving_over.test_what_cannot_be_moved_is_refused",
        'Staged; to record it: git commit -m "Write manifests in version {LATEST}"': "test_moving_over.test_the_tip_of_a_branch_moves_to_version_2",
    },
    "git_theta_ext/cli/verbs/repack.py": {
        'Staged; to record it: git commit -m "Repack"': "test_moving_over.test_scattered_tensors_are_packed_again",
        "Nothing was written; to do it: git theta repack --yes{names}": "test_moving_over.test_scattered_tensors_are_packed_again",
    },
    "git_theta_ext/objects/repack.py": {
        "git theta fsck --repair fetches it again": "test_moving_over.test_what_cannot_be_moved_is_refused",
    },
    "git_theta_ext/cli/verbs/status.py": {
        "{text}; git theta migrate --to-manifest {LATEST} moves them": "test_moving_over.test_the_tip_of_a_branch_moves_to_version_2",
        "git-theta is not set up here: git theta install": "test_advice_setup.test_setting_up_as_status_says",
        "Clients such as JGit would store checkpoints whole here, as earlier versions set it up: git theta install": "test_install.test_settings_of_earlier_versions_serve_git_alone",
        "Jujutsu works here, too: it runs no filter, and records these checkpoints whole; for manifests in this work tree: git theta install --local --skip-smudge (git theta help status)": "test_advice_status.test_a_work_tree_of_jujutsu_is_named_until_it_has_manifests",
        "Smudging is off (theta.skipSmudge or GIT_THETA_SKIP_SMUDGE): checkouts leave manifests; git theta pull writes the checkpoints": "test_advice_objects.test_manifests_in_the_work_tree",
        "Tracked patterns: {names or 'none (git theta track PATTERN)'}": "test_advice_setup.test_setting_up_as_status_says",
        "git theta resolve FILE": "test_advice_sharded.test_a_shard_that_is_gone_on_one_side",
        "conflicts: git theta resolve FILE --strategy S, then git add {options}FILE": "test_advice_merging.test_a_conflict",
        "missing objects: git theta fetch": "test_advice_objects.test_status_of_missing_objects",
        "manifests in the work tree: git theta pull writes the checkpoints": "test_advice_objects.test_manifests_in_the_work_tree",
    },
    "git_theta_ext/cli/verbs/track.py": {
        "git theta track '*.safetensors'": "test_not_set_up.test_an_empty_pattern_is_called_so",
        "git lfs untrack PATTERN removes it": "test_advice_moving_in.test_what_git_lfs_tracked_before_can_be_untracked",
        "Now run: git add .gitattributes": "test_advice_moving_in.test_track_advises_what_stages_the_patterns",
        "run git theta track in the folder that holds the checkpoints": "test_advice_setup.test_a_pattern_of_another_folder",
        "git theta track FILE": "test_advice_setup.test_a_folder_is_tracked_by_what_is_in_it",
    },
    "git_theta_ext/cli/transfers.py": {
        "git remote add origin URL": "test_advice_objects.test_a_push_where_there_is_no_remote",
    },
    "git_theta_ext/cli/verbs/uninstall.py": {
        "checkpoints as plain blobs: git theta untrack PATTERN; git add --renormalize .; git commit": "test_advice_setup.test_taking_it_away",
    },
    "git_theta_ext/cli/verbs/untrack.py": {
        "Now run: git add .gitattributes": "test_advice_moving_in.test_track_advises_what_stages_the_patterns",
        "To store the files by git-lfs, whose line counts again: git add --renormalize .": "test_advice_moving_in.test_untrack_gives_the_pattern_back_to_git_lfs",
        "To store the files themselves in Git again: git add --renormalize .": "test_advice.test_untrack_advises_how_to_store_the_file_itself_again",
    },
    "git_theta_ext/checkpoints/contents.py": {
        "git lfs fetch --all": "test_advice_reading.test_what_git_lfs_has_elsewhere_is_fetched_for_blame",
    },
    "git_theta_ext/comparison/files.py": {
        "to compare two versions of a model: git theta diff REV REV -- PATH": "test_advice_reading.test_diff_of_two_versions_of_a_sharded_model",
    },
    "git_theta_ext/checkpoints/converted.py": {
        "git lfs fetch --all then begin again, after: git merge --abort (or the like)": "test_advice_moving_in.test_it_is_merged_once_its_objects_are_here",
    },
    "git_theta_ext/cli/demo/story.py": {
        "In your own repository: git theta install; git theta track '*.safetensors'; git add, commit, push as ever.": "test_advice_setup.test_the_demo_ends_with_what_to_type",
    },
    "git_theta_ext/objects/transfer/endpoints.py": {
        "git config --show-origin --get-regexp url shows where it is set": "test_advice_objects.test_a_url_that_is_not_used",
        "git remote -v (is the disk mounted?)": "test_advice_objects.test_a_remote_that_is_not_mounted",
    },
    "git_theta_ext/git/setup/hook_scripts.py": {
        'echo >&2 " git theta install (or, to do without it: git theta uninstall, or remove $0)"': "test_hooks.test_a_python_that_is_gone_stops_a_push_and_warns_elsewhere",
        'echo >&2 " The push was stopped; nothing is lost. Install it again and type: git theta install"': "test_hooks.test_a_python_that_is_gone_stops_a_push_and_warns_elsewhere",
        'echo >&2 " (or, to do without it: git theta uninstall, or remove $0)"': "test_hooks.test_a_python_that_is_gone_stops_a_push_and_warns_elsewhere",
        'echo >&2 "git theta: warning: $theta_program is gone; type: git theta install"': "test_hooks.test_a_python_that_is_gone_stops_a_push_and_warns_elsewhere",
    },
    "git_theta_ext/git/setup/hooks.py": {
        "cannot write the hook {folder / name}: {error.strerror or error}; without it, push checkpoints with: git theta push": "test_advice_setup.test_a_hook_that_cannot_be_written_leaves_the_push_to_a_command",
        "without it, push the objects of checkpoints with: git theta push": "test_advice_setup.test_a_hook_that_cannot_be_written_leaves_the_push_to_a_command",
        "the hooks in {place} stay: git theta uninstall --hooks removes them": "test_advice_setup.test_hooks_of_a_shared_folder_are_taken_away",
        "chmod +x {launch.shell_word(str(path))}": "test_advice_setup.test_a_hook_that_is_not_there_or_does_not_run",
        "git theta install --local": "test_advice_setup.test_a_hook_that_is_not_there_or_does_not_run",
        "git theta install (with Git 2.54 or newer this is enough)": "test_hooks_elsewhere.test_a_push_carries_the_objects_or_every_add_says_what_to_type",
        "git theta install --hooks (adds the hooks to that folder; those there run first)": "test_advice_setup.test_hooks_of_a_shared_folder_are_taken_away",
        "{_why(repository, folder)} and git theta does not change that folder unless told to: git theta install --hooks. Or add to each file:": "test_advice_setup.test_hooks_of_a_shared_folder_are_taken_away",
    },
    "git_theta_ext/objects/left_behind.py": {
        "git theta push {' '.join(words)}": "test_left_behind.test_a_push_to_a_folder_is_found_and_mended",
    },
    "git_theta_ext/objects/transfer/lfsconfig.py": {
        "to use another one: git config lfs.url URL": "test_advice_setup.test_a_server_that_lfsconfig_names",
        "if it is right: git config --add {TRUSTED} {self.url}": "test_advice_setup.test_a_server_that_lfsconfig_names",
    },
    "git_theta_ext/manifest/text.py": {
        "in a merge: git theta resolve FILE": "test_merge_resolve.test_a_text_merge_with_markers_is_resolved_from_the_index",
    },
    "git_theta_ext/git/operations.py": {
        "git branch -a": "test_advice_merging.test_a_branch_that_is_none",
    },
    "git_theta_ext/merge/conflicts/explain.py": {
        "… and {len(found) - MAX_LINES} more: git theta status": "test_advice_merging.test_what_is_open_is_listed_to_the_end",
        "git theta resolve {word(where_git_was_started(model))}": "test_advice_sharded.test_the_printed_command_merges_what_moved",
    },
    "git_theta_ext/merge/conflicts/hints.py": {
        "git add {options}{name}": "test_advice_merging.test_a_conflict",
        "git theta resolve {name} --strategy {names[0]}{others}": "test_advice_merging.test_a_conflict",
        "once {CONFIG} is settled and added: git theta resolve {name} --strategy average": "test_merge_adapters.test_both_changed_the_rank",
    },
    "git_theta_ext/merge/combine/growth.py": {
        "git add FILE, then run the command again": "test_merge_adapters.test_changes_of_the_configuration_are_not_written_over",
    },
    "git_theta_ext/merge/branches/octopus.py": {
        "git branch -a": "test_advice_merging.test_a_branch_that_is_none",
        "merge these branches one at a time: git theta merge BRANCH": "test_advice_sharded.test_several_branches_of_which_one_moved_tensors",
        "merge it by itself first: git theta merge {name}": "test_merge_several.test_what_stays_open_changes_nothing",
    },
    "git_theta_ext/merge/decide/scaling.py": {
        "rank=grow also changes {CONFIG}, and only git theta resolve and git theta merge do that": "test_merge_adapters.test_the_driver_leaves_it_to_a_verb_and_says_to_which",
    },
    "git_theta_ext/merge/conflicts/resolve.py": {
        "git status shows what is": "test_advice_merging.test_resolve_without_a_strategy_says_how_to_take_it",
        "to keep it: git add {sparse}{name} to delete it: git rm {sparse}{name}": "test_advice_merging.test_deleted_on_one_side",
        "to delete it: git rm {add_options(repository)}{name}": "test_advice_merging.test_status_of_what_is_not_on_both_sides",
        "to settle all shards of the model together: git theta resolve MODEL": "test_advice_sharded.test_a_shard_that_is_gone_on_one_side",
    },
    "git_theta_ext/merge/branches/models.py": {
        "git status shows what is": "test_advice_sharded.test_nothing_of_the_model_is_in_conflict",
        "to settle all shards of the model together: git theta resolve MODEL": "test_advice_sharded.test_a_shard_whose_tensor_moved_is_not_settled_by_itself",
    },
    "git_theta_ext/merge/conflicts/shard_index.py": {
        "correct it by hand, then: git add FILE": "test_advice_sharded.test_a_text_that_is_no_index",
        "git theta resolve FILE": "test_advice_sharded.test_status_names_what_settles_an_index",
    },
    "git_theta_ext/objects/transfer/pointers.py": {
        "To silence this: git config {SETTING} false": "test_pointer_ref.test_a_refusal_is_told_once_and_stops_nothing",
    },
    "git_theta_ext/objects/prune.py": {
        "if it is not shared: git -c theta.storage= theta prune after moving the store to .git/theta": "test_advice_objects.test_prune_of_a_store_that_may_be_shared",
        "git theta fsck tells more": "test_advice_objects.test_prune_beside_a_manifest_that_is_damaged",
    },
    "git_theta_ext/objects/store/store.py": {
        "git theta fetch (or: git theta fsck, to see what else is missing)": "test_advice_objects.test_reading_what_is_not_here",
        "remove that file, then: git theta fetch": "test_advice_objects.test_an_object_that_is_damaged",
    },
    "git_theta_ext/objects/transfer/missing.py": {
        "or, as a file, there: git theta format-patch REV -o FILE then here: git theta am FILE": "test_patches.test_plain_patches_carry_manifests_only",
        "where the objects are, type: git theta push REMOTE --all then here: git theta fetch REMOTE": "test_advice_objects.test_what_no_remote_has",
        "put right what it says, then type: git theta fetch": "test_advice_objects.test_a_remote_that_is_not_mounted",
    },
    "git_theta_ext/objects/transfer/folders.py": {
        "remove that file, then: git theta fetch": "test_advice_objects.test_an_object_that_is_damaged",
    },
    "git_theta_ext/git/work_tree.py": {
        "remove the link, or put a folder in its place: rm FILE": "test_advice_setup.test_a_link_in_the_way",
    },
    "git_theta_ext/api/runs/side_tree.py": {
        "git theta track PATTERN, commit .gitattributes, then start a new run": "test_runs.test_a_large_file_that_is_not_tracked",
    },
    "git_theta_ext/checkpoints/write.py": {
        "git theta track PATTERN, commit .gitattributes, then try again": "test_advice_objects.test_a_checkpoint_that_is_committed_from_python_must_be_tracked",
    },
    "drivers/diff.py": {
        "git-theta-diff is started by Git; see: git theta help install": "test_advice_reading.test_a_driver_that_is_started_by_hand",
    },
    "drivers/filter.py": {
        "git-theta-filter is started by Git; see: git theta help install": "test_advice_reading.test_a_driver_that_is_started_by_hand",
    },
    "drivers/filter_commands.py": {
        "Git may have removed files of the work tree: git status lists them; to have them again,": "test_advice_objects.test_files_that_a_failed_checkout_removed",
        "once the cause is mended: git restore FILE (after git clone: git checkout -f)": "test_advice_objects.test_files_that_a_failed_checkout_removed",
        "hint: git theta resolve {name} --strategy S (git theta help resolve)": "test_advice_merging.test_markers_of_a_merge_as_text",
        "git lfs pull brings the file itself": "test_advice_setup.test_a_pointer_that_is_staged_by_mistake",
        "if it was cut short or damaged, write it again; then: git add FILE": "test_advice_setup.test_a_damaged_checkpoint_is_written_again",
        "hint: git theta pull writes the checkpoints": "test_advice_objects.test_manifests_in_the_work_tree",
    },
    "drivers/left_open.py": {
        "hint: to settle {it} before you commit: git checkout -m -- {name}": "test_merge_resolve.test_who_adds_what_is_open_is_told_and_can_settle_it_after_all",
        "then: git theta resolve {name} --strategy S": "test_merge_resolve.test_who_adds_what_is_open_is_told_and_can_settle_it_after_all",
    },
    "drivers/merge.py": {
        "{what}: git theta assemble {check}{word(where_git_was_started(recipe))}": "test_assemble.test_two_assemblies_are_merged_by_their_recipe",
        "when that is mended, to merge it: git theta resolve {name}": "test_advice_merging.test_what_could_not_be_merged_is_merged_later",
        "git-theta-merge is started by Git; see: git theta help install": "test_advice_reading.test_a_driver_that_is_started_by_hand",
    },
    "drivers/post_hook.py": {
        "Manifests were left in place of checkpoints. To write the checkpoints, type: git theta pull": "test_hooks.test_manifests_that_a_hook_could_not_replace",
    },
}
"""Module -> what it suggests -> the test, of those under `tests/git`."""

NAMED: dict[str, list[str]] = {
    "git_theta_ext/cli/verbs/completion.py": [
        "print what completes git theta commands in bash, zsh or fish",
        "Print the script with which a shell completes the commands and options of git theta. An installed wheel has it where the shell looks; this is for all other places.",
    ],
    "git_theta_ext/cli/verbs/log.py": [
        "show all that changed with the numbers of its values, as git theta diff does",
    ],
    "git_theta_ext/cli/verbs/summary.py": [
        "Say what changed in checkpoints in a few lines of plain text: what is staged, or between two revisions (REV: between its first parent and it). git theta install --commit-summary puts it into the message of each commit that is edited.",
        "print JSON, as git theta diff does",
    ],
    "git_theta_ext/cli/verbs/checkout.py": [
        "Write the checkpoints wherever the work tree holds a manifest and all objects are here. Nothing is fetched: git theta pull does that, too. With --to, write one side of a conflict to another file.",
    ],
    "git_theta_ext/cli/verbs/env.py": [
        "Show where this repository keeps its objects, which server each remote's objects come from and go to, and the settings and variables in force. Passwords in URLs are left out. The versions of all that is used: git theta version.",
    ],
    "git_theta_ext/cli/verbs/locks.py": ["default: as for git theta push"],
    "git_theta_ext/cli/verbs/pointer.py": [
        "Write the manifest that git add would make of a file to standard output; nothing is stored. With --manifest or --stdin, compare it with a manifest: they are alike if both stand for the same bytes, whatever updates these are made of. With --check, say whether a text is a manifest.",
    ],
    "git_theta_ext/cli/verbs/review.py": [
        "git difftool --tool=theta shows one file at a time: leave out --dir-diff",
        "Write what git theta diff finds as one HTML page and open it in the browser that web.browser in git config names, else the system's. main...HEAD shows what a branch brings. The page needs no network.",
        "as for git theta diff: up to two revisions, A..B or A...B; then files",
    ],
    "git_theta_ext/packages/placing.py": [
        "git config --add",
    ],
    "git_theta_ext/cli/verbs/am.py": [
        "Take the commits that git theta format-patch wrote, with their objects. Where HEAD is what they were made on, they are the same commits, with the same ids; where it has moved on, they are applied on top of it, as git cherry-pick does.",
    ],
    "git_theta_ext/cli/verbs/apply.py": ["staged; git commit records it"],
    "git_theta_ext/cli/verbs/format_patch.py": [
        "Write a patch: a bundle of Git with commits, and with the objects of their checkpoints that the receiver lacks. git theta show, am and apply read it.",
    ],
    "git_theta_ext/cli/verbs/show.py": [
        "Without TENSOR, list the tensors of a version with dtype, shape and how each is stored. With TENSOR, show each tensor that matches with the numbers of its values. Of a merge, show for each tensor which side it is as in, or how the merge made it. Of a patch that git theta format-patch wrote, show what it does, tensor by tensor.",
    ],
    "git_theta_ext/packages/patches/bundle.py": [
        "# v2 git bundle",
        "# v3 git bundle",
        "it is a bundle, but no patch of git theta",
    ],
    "git_theta_ext/packages/patches/mail.py": ["it is a mail without a patch of git theta"],
    "git_theta_ext/packages/patches/make.py": ["git theta patch"],
    "git_theta_ext/packages/cache.py": [
        "git -c uploadpack.allowFilter=true -c uploadpack.allowAnySHA1InWant=true upload-pack",
    ],
    "git_theta_ext/cli/verbs/outdated.py": [
        "Show the locked version of each model, the newest that models.toml allows, and the newest of all. Exits with 1 if git theta update would move one.",
    ],
    "git_theta_ext/packages/locking/lock_file.py": [
        "# What git theta sync got for models.toml. Commit it; git theta update moves it.",
        "it is not as git theta writes it",
        "its first lines are not as git theta writes them",
    ],
    "git_theta_ext/packages/locking/project.py": [
        "another git theta is at work here: waiting for it",
    ],
    "git_theta_ext/cli/verbs/assemble.py": [
        "added, with its recipe and lock; git commit records it",
    ],
    "git_theta_ext/packages/assemble/locked.py": [
        "# Written by git theta assemble. What moves it: git theta help assemble",
    ],
    "git_theta_ext/evaluation/report/tables.py": [
        "† imported from files, not measured by git theta",
    ],
    "git_theta_ext/packages/release/card.py": [
        "<!-- git-theta release: begin (written by git theta release; do not edit) -->",
    ],
    "git_theta_ext/packages/release/versions.py": [
        "whoever publishes it signs it by git theta sign",
    ],
    "git_theta_ext/packages/release/verify.py": [
        "take all of it, or ask for a signature by git theta sign",
    ],
    "git_theta_ext/cli/migrating/moving_in.py": ["git theta migrate import"],
    "git_theta_ext/cli/migrating/from_git_theta.py": [
        "git theta migrate import --from-git-theta",
    ],
    "git_theta_ext/cli/verbs/import_hf.py": ["git theta import-hf {model.name}"],
    "git_theta_ext/cli/verbs/import_dvc.py": ["git theta import-dvc"],
    "git_theta_ext/cli/migrating/moving_out.py": ["git theta migrate export --to {args.to}"],
    "git_theta_ext/cli/migrating/options.py": [
        "git-theta was not set up: did `git theta install --local` for this repository.",
    ],
    "git_theta_ext/cli/verbs/mirror.py": [
        "Rewrite SOURCE, as git theta migrate export does, into the branch TARGET, for hosts and programs that know only git-lfs. Only commits that TARGET does not have yet are rewritten. SOURCE stays as it is.",
    ],
    "git_theta_ext/migration/mirrors/kept.py": ["git theta mirror {source}"],
    "git_theta_ext/migration/mirrors/sent.py": [
        "git theta mirror: back",
        "git theta mirror: from the remote",
    ],
    "git_theta_ext/git/object_pipes.py": [
        "git ended while it was asked for object {oid}",
    ],
    "git_theta_ext/migration/steps.py": ["git theta migrate import --no-rewrite"],
    "git_theta_ext/cli/verbs/migrate.py": [
        "Rewrite history as git lfs migrate does, into manifests (import) or out of them (export). With --to-manifest: stage the manifests of the current branch's tip in another version of their text; no history is rewritten then.",
        "also join small objects, as git theta repack --yes does",
    ],
    "git_theta_ext/cli/verbs/fetch.py": [
        "git fetch brings them, too, from now on",
        "also of branches and tags of the last days (settings as for git lfs fetch)",
    ],
    "git_theta_ext/cli/verbs/scores.py": [
        "Show the versions of a checkpoint, each with what was measured of it, what it stores, and, as HTML, plots of both. Runs nothing: git theta evaluate measures.",
    ],
    "git_theta_ext/evaluation/kept.py": [
        "git fast-import made no commit",
    ],
    "git_theta_ext/evaluation/gates/machines.py": ["git theta check"],
    "git_theta_ext/cli/leftovers.py": [
        "{printable(path)}{length}, a backup of git mergetool,",
    ],
    "git_theta_ext/cli/verbs/mergetool_git.py": [
        "which git add ignores here",
    ],
    "git_theta_ext/merge/conflicts/board.py": [
        "{self.left} open: git mergetool marks a whole file as merged, so nothing is written until all is settled; w again leaves, and keeps your choices for the next start",
    ],
    "git_theta_ext/cli/verbs/add.py": [
        "Add files as git add does, their blocks encoded by a cluster if --on or theta.executor names one. With --update: apply an adapter of PEFT (LoRA, IA3 and more), a sparse update or differences, to the checkpoint that HEAD has, write the updated checkpoint into the work tree, and stage it. The store keeps the adapter's own factors.",
        "files and folders, as for git add; with --update one tracked checkpoint, committed and unchanged; of a sharded model, its index or a pattern of its shards",
    ],
    "git_theta_ext/cli/where.py": [
        "where blocks are worked on: dask://HOST:PORT of the scheduler of a Dask cluster that sees the same files, or here (default: theta.executor in git config, else here)",
    ],
    "git_theta_ext/cli/verbs/allow.py": [
        "Show the commands that .theta.toml names, for git theta evaluate and for git theta merge --tune, and let them run from now on. A command that changes must be allowed again.",
        "git theta merge --tune",
        "git theta evaluate --evaluation {one.name}",
    ],
    "git_theta_ext/cli/verbs/demo.py": [
        "Train a small network, then version, fine-tune, diff, merge, push and clone it with real git commands, each printed as typed. Needs no network connection; nothing outside a temporary folder is touched, and that is removed at the end.",
    ],
    "git_theta_ext/cli/verbs/export.py": [
        "Write the tensors of a version, or some of them, to a file, without a checkout and without torch. For the very bytes that were committed, use git archive or git worktree. With A..B: write what changed between two versions as an adapter.",
    ],
    "git_theta_ext/cli/verbs/export_adapter.py": [
        "corrections.safetensors, {size(done.corrections)}: with it git theta add --update gives the commit exactly",
        "--exact adds what git theta add --update needs to give the commit exactly: {size(done.lacking)}",
    ],
    "git_theta_ext/cli/verbs/install.py": [
        "have git log, show and diff show readable lines instead of hashes when they page",
        "Write the filter, diff and merge drivers into git config. Run once per user.",
        "leave manifests in the work tree on checkout; `git theta pull` writes checkpoints",
    ],
    "git_theta_ext/cli/main.py": [
        "print what completes git theta commands in bash, zsh or fish",
        "git theta",
        "{printable(verb)} is not a git theta command",
        "usage: git theta [-h] [--version] VERB ...",
        "Everyday work needs none of them: git add, commit, diff, merge, push do it.",
    ],
    "git_theta_ext/cli/verbs/merge.py": [
        "Run git merge with a strategy for the tensors that both sides changed. With --plan, only show what would be done. With --tune, evaluate candidates and merge with the best. With --gate, merge only what the gates accept.",
        "no checkpoint was changed on both sides: git merge needs no strategy",
    ],
    "git_theta_ext/cli/verbs/mergetool.py": [
        "{name}: written; git mergetool adds it now",
        "Show the tensors that both sides changed, try strategies, see how far the result is from each side, and accept it. git mergetool --tool=theta starts this.",
    ],
    "git_theta_ext/cli/verbs/pull.py": [
        "Download the objects of the checkpoints in the index and write the checkpoints wherever the work tree holds a manifest, as after a clone without smudge. No commits are fetched or merged: git pull does that.",
    ],
    "git_theta_ext/cli/verbs/push.py": [
        "Upload the objects that the checkpoints in the history of HEAD, or of the revisions, need. `git push` does this by itself; use this to fill a new or damaged remote. No branch or tag moves. Results of evaluations are sent, too.",
        "; git fetch brings those of others from now on",
    ],
    "git_theta_ext/cli/verbs/resolve.py": [
        "Settle the tensors that both sides changed, all or some of them, with a merge strategy; as often as needed. The result is written into the work tree; git add stages it. Without a strategy: list what is open.",
    ],
    "git_theta_ext/cli/verbs/status.py": [
        "Set up in the {report['scopes'][-1]} git config.",
    ],
    "git_theta_ext/cli/verbs/track.py": [
        "git-theta was not set up: did `git theta install --local` for this repository.",
    ],
    "git_theta_ext/cli/verbs/uninstall.py": [
        "{name} still starts git theta diff-filter: that is yours to change",
        "Remove the drivers from git config and the hooks from this repository.",
        "It is still set up in the {scope} git config: git theta uninstall{option}",
    ],
    "git_theta_ext/cli/verbs/untrack.py": [
        "as git theta track lists it",
    ],
    "git_theta_ext/cli/demo/story.py": [
        "Kept in {printable(str(root))}; its git config is home/.gitconfig.",
        "5. Two people change different tensors, and git merges them",
        "{size(raw)} file, .git grew by {size(grown)} ({grown / raw})",
    ],
    "git_theta_ext/objects/transfer/endpoints.py": [
        "{shown}, from {self.named.where if self.named else 'git config'} {self.setting}",
    ],
    "git_theta_ext/git/process.py": [
        "cannot start git {arguments[0]} in {cwd}",
        "git {_verb(arguments)} failed: {os.fsdecode(errors).strip()}",
        "git was not found on PATH",
        "git {arguments[0]} failed: {text}",
    ],
    "git_theta_ext/git/setup/hook_scripts.py": [
        "{mark}: put here by `git theta install`, taken away by `git theta uninstall`.",
        "theta_filter=$(git config filter.theta.process)",
        "git grep -q filter=theta HEAD -- .gitattributes '*/.gitattributes' 2>/dev/null && echo >&2 \\",
        '"git theta: warning: git-theta is not set up here, and does nothing: git theta install"',
        'theta_guard=$(printf \'%s|%s\' "$*" "$theta_refs" | git hash-object --stdin) || exit',
        'if test -d "$(git rev-parse --git-common-dir)/lfs" || git config lfs.storage >/dev/null; then',
        'chmod +x "$theta_seen/git-lfs"',
        'rm -rf "$theta_seen"',
        'theta_stdin | git lfs pre-push "$@" || exit',
        'elif test -d "$(git rev-parse --git-common-dir)/lfs" && command -v git-lfs >/dev/null 2>&1; then',
        'git lfs {name} "$@"',
        "test -d \"$(git rev-parse --git-common-dir)/theta\" || git config theta.storage >/dev/null || git grep -q filter=theta HEAD -- .gitattributes '*/.gitattributes' 2>/dev/null",
    ],
    "git_theta_ext/cli/verbs/restore.py": [
        "Give some tensors of a checkpoint in the work tree (or, with --staged, in the index) the values that they have in another version; all others stay as they are. The file is written anew, whole or not at all. What was changed in these tensors and not committed is lost, as with git restore.",
    ],
    "git_theta_ext/git/setup/hooks.py": [
        "{path} is not executable, so Git does not run it, and git push leaves the objects of checkpoints behind",
        "{_why(repository, folder)} and its pre-push hook does not call git theta, so git push leaves the objects of checkpoints behind",
    ],
    "git_theta_ext/git/setup/installation.py": [
        '{…} | eval "$(git var GIT_PAGER)"',
        "git theta diff-filter",
        "the {scope} git config",
        "is the file that `git config --global -e` opens writable?",
    ],
    "git_theta_ext/objects/left_behind.py": [
        "{count} of checkpoints that {self.ref} needs {what}: it was pushed without git theta's pre-push hook, and others cannot check it out",
    ],
    "git_theta_ext/objects/transfer/lfs.py": [
        "git lfs fetch failed: {said}",
        "git lfs push to {endpoint.remote} failed: {said}",
        "is not a git command",
        "git lfs logs last",
        "git config theta.transferTimeout is {value}, not a number of seconds",
    ],
    "git_theta_ext/merge/strategies/policy.py": [
        "git config {name}",
    ],
    "git_theta_ext/objects/transfer/pointers.py": [
        "git fast-import made no commit",
    ],
    "git_theta_ext/git/repository.py": [
        "fatal: not a git repository (or any",
        "git config {name} is {value}, not true or false",
    ],
    "drivers/diff.py": [
        "diff --git a/{printable(path.lstrip('/'))} b/{printable(new_path.lstrip('/'))}",
    ],
    "drivers/pre_push.py": [
        "; git fetch brings those of others from now on",
        "is not a git command",
    ],
}
"""Module -> lines that name a command and suggest none."""

NOT_RUN: dict[str, str] = {
    "where they are, type: git lfs push --all REMOTE then here: git lfs fetch --all": "is about another machine, and git-lfs alone",
    "is the disk sound, and does nobody else write there? then: git theta sync": "needs a disk that loses what is written; the command itself runs in test_sync",
    "those who publish it say so with: git theta release --adapter BASE@VERSION; to do without the check, leave out base = {one.base}": "is about somebody else's repository",
    "when that is mended: git theta assemble {name}": "needs a part that goes away in the midst of a merge; the command itself runs in test_assemble",
    "write it from this machine alone: git theta pull --on here": "needs a file system that loses what is written; the command itself runs in test_cluster",
    "install git-theta-ext there, in the same versions as here (git theta version)": "is about another machine",
    "merge them one at a time: git theta merge BRANCH": "needs a Git older than 2.38; the command itself runs in test_what_stays_open_changes_nothing",
    "the model's shards are written too; to take them: git add {to_add(conflict)}": "the words of resolve, which test_merge_sharded runs; under git mergetool the same function makes them",
    "it cannot be merged into the weights: track its own folder beside the model, with git add": "a folder is added as any file is",
    "name one shard alone: git theta add SHARD --update ADAPTER": "two shards with different tensors of one name: no writer makes them; `git theta add SHARD` itself runs in test_a_shard_is_not_the_model",
    "The server says that it has {plural(len(gone), 'object')} that it does not send, or sends damaged: {_names(gone)}. Anyone who has them can run: git theta push --no-cache": "the job of a pull request cannot run it; `git theta push` runs in test_a_hook_that_cannot_be_written_leaves_the_push_to_a_command",
    "{plural(len(absent), 'object')} ({total}) missing on the server: {_names(absent)}. Anyone who has them can run: git theta push": "the job of a pull request cannot run it; `git theta push` runs in test_a_hook_that_cannot_be_written_leaves_the_push_to_a_command",
    "git theta help receive-check": "prints help, as every verb does in test_every_verb_has_help",
    "git theta help stats shows what it needs": "prints help, as every verb does in test_every_verb_has_help",
    "ask the owner of the repository; or, to send the objects elsewhere: git config remote.{printable(endpoint.remote)}.lfsurl URL": "needs a folder of another user; the setting it names counts in test_transport",
    'theta() { test -x {program} || { echo >&2 "git theta: "{program}" is gone, so no objects of checkpoints can be sent. Type:"; echo >&2 " git theta install (or, to do without: git config --global --remove-section hook.theta-pre-push)"; if {used}; then return 1; fi; return 0; }; {command} -m git_theta_ext.drivers.pre_push {configured} "$@"; }; theta': "the text of a hook in git config; its sentences are those of the file's, which are run",
    "does it wait for a password? try: git lfs fetch (to wait longer: git config theta.transferTimeout SECONDS, 0 for ever)": "needs a server that asks on a terminal",
    "correct the shards on that branch first; git theta show COMMIT:FILE lists one": "needs hand-made shards that contradict each other",
    "pip install --upgrade git-theta-ext": "installs from the network",
    "python -I -m pip install 'git-theta-ext[sign]'": "installs from the network",
    "put the file itself in its place: rm {FILE}": "a link in the place of .theta.toml is removed by rm as anywhere",
    "name another file; where a commit has this one, rename it: git mv FILE NEW": "names that only Windows cannot write; git mv is run where they can be",
}
"""What is suggested and run by no test in its own situation -> why."""
