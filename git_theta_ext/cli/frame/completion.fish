# git theta <TAB> in fish.
# Made by: git theta completion fish

function __git_theta_verb
    set -l words (commandline -opc)
    test (count $words) -ge 2; and echo $words[2]
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
    set -l words (commandline -opc)
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
    set -l verb (__git_theta_verb)
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

complete -c git-theta -f -n '__git_theta_at verb' -a help -d 'show a manual page'
@VERBS@
complete -c git-theta -f -n '__git_theta_at help' -a '@WORDS@ @TOPICS@'
complete -c git-theta -f -n '__git_theta_at values' -a '(__git_theta_values)'
complete -c git-theta -n '__git_theta_at rest' -a '(__git_theta_options) (__git_theta_refs)'
