# git theta <TAB> in fish.
# Made by: git theta completion fish

# What stands after `git-theta`, or after `git … theta`; fails where this is another command.
function __git_theta_words
    set -l words (commandline -opc)
    set -l program (string replace -r '^.*/' '' -- $words[1])
    set -e words[1]
    if test "$program" != git-theta
        while string match -q -- '-*' "$words[1]"
            contains -- $words[1] -C -c --git-dir --work-tree --namespace --exec-path
            and set -e words[1]
            set -e words[1]
        end
        test "$words[1]" = theta
        or return 1
        set -e words[1]
    end
    printf '%s\n' $words
    return 0
end

function __git_theta_verb
    set -l words (__git_theta_words)
    and printf '%s\n' $words[1]
end

function __git_theta_known
    set -l verb (__git_theta_verb)
    set -l known __git_theta_options_(string replace -a -- - _ $verb)
    if not set -q $known
        set -g $known (git theta completion --of $verb 2>/dev/null)
    end
    string join \n -- $$known
end

function __git_theta_values
    set -l words (__git_theta_words)
    for line in (__git_theta_known)
        set -l fields (string split -m 3 '|' -- $line)
        if test -n "$fields[2]" -a "$words[-1]" = "$fields[1]"
            string split -n ' ' -- $fields[3]
        end
    end
end

function __git_theta_options
    set -l current (commandline -ct)
    for line in (__git_theta_known)
        set -l fields (string split -m 3 '|' -- $line)
        if test -z "$fields[1]"
            string split -n ' ' -- $fields[3]
        else if string match -q -- '-*' "$current"
            printf '%s\t%s\n' $fields[1] $fields[4]
            if string match -q -- '--*' $fields[1]
                for value in (string split -n ' ' -- $fields[3])
                    printf '%s=%s\n' $fields[1] $value
                end
            end
        end
    end
end

function __git_theta_refs
    git for-each-ref --format='%(refname:short)' 2>/dev/null
end

function __git_theta_at
    set -l words (__git_theta_words)
    or return 1
    set -l verb $words[1]
    switch "$argv[1]"
        case verb
            test -z "$verb"
        case help
            test "$verb" = help
        case values
            test -n "$verb" -a "$verb" != help; and count (__git_theta_values) >/dev/null
        case rest
            test -n "$verb" -a "$verb" != help; and not count (__git_theta_values) >/dev/null
    end
end

# Read by `source`, it also serves `git theta` in a fish whose own completion of git hands no
# command over, as 3.6.
for program in git-theta git
    complete -c $program -f -n '__git_theta_at verb' -a help -d 'show a manual page'
@VERBS@
    complete -c $program -f -n '__git_theta_at help' -a '@WORDS@ @TOPICS@'
    complete -c $program -f -n '__git_theta_at values' -a '(__git_theta_values)'
    complete -c $program -n '__git_theta_at rest' -a '(__git_theta_options) (__git_theta_refs)'
end
