# git theta <TAB> in bash: needs the completion that comes with Git.
# Made by: git theta completion bash

_git_theta ()
{
    local verbs="@WORDS@ help" verb="" i word line values=""
    for ((i = 1; i < cword; i++)); do
        if [ "${words[i]}" = theta ]; then verb=${words[i+1]}; break; fi
    done
    case "${words[0]##*/}" in git-theta*) i=0; verb=${words[1]} ;; esac
    if [ "$cword" -le $((i + 1)) ]; then
        __gitcomp "$verbs"
        return
    fi
    if [ "$verb" = help ]; then
        [ "$cword" -eq $((i + 2)) ] && __gitcomp "@WORDS@ @TOPICS@"
        return
    fi
    case " $verbs " in *" $verb "*) ;; *) return ;; esac
    local known=__git_theta_options_${verb//-/_}
    if [ -z "${!known+set}" ]; then
        printf -v "$known" %s "$(git theta completion --of "$verb" 2>/dev/null)"
    fi
    local option takes allowed help options=() free=""
    while IFS= read -r line; do
        IFS='|' read -r option takes allowed help <<<"$line"
        if [ -z "$option" ]; then
            free="$free $allowed"
        else
            options+=("$option")
            if [ -n "$takes" ] && [[ $prev == "$option" || $cur == "$option="* ]]; then
                values=${allowed:--}
            fi
        fi
    done <<<"${!known}"
    case "$cur" in
    --*=*)
        [ "$values" = - ] || [ -z "$values" ] || __gitcomp "$values" "" "${cur#*=}"
        ;;
    *)
        if [ -n "$values" ]; then
            [ "$values" = - ] || __gitcomp "$values"
        elif [[ $cur == -* ]]; then
            __gitcomp "${options[*]}"
        else
            __git_complete_revlist_file
            for word in $free; do
                [[ $word == "$cur"* ]] && COMPREPLY+=("$word ")
            done
        fi
        ;;
    esac
}

if type __git_complete >/dev/null 2>&1; then
    __git_complete git-theta _git_theta
fi
