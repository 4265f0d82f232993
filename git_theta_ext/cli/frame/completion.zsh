#compdef git-theta
#description version checkpoints tensor by tensor
# git theta <TAB> in zsh; in a folder of $fpath, by the name _git-theta.
# Made by: git theta completion zsh

_git-theta () {
  local -a verbs topics options values free fields
  local verb line option known
  verbs=(
@VERBS@
    'help:show the manual page of a command'
  )
  topics=(@TOPICS@)
  if (( CURRENT == 2 )); then
    _describe -t commands 'git theta command' verbs
    return
  fi
  verb=$words[2]
  if [[ $verb == help ]]; then
    _describe -t commands 'git theta command' verbs
    compadd -a topics
    return
  fi
  [[ -n ${(M)verbs:#$verb:*} ]] || return 1
  typeset -gA _git_theta_known
  known=$_git_theta_known[$verb]
  if [[ -z $known ]]; then
    known=$(_call_program options git theta completion --of $verb)
    _git_theta_known[$verb]=$known
  fi
  for line in ${(f)known}; do
    fields=("${(@s:|:)line}")
    option=$fields[1]
    if [[ -z $option ]]; then
      free+=(${=fields[3]})
      continue
    fi
    options+=("${option//:/\\:}:$fields[4]")
    if [[ -n $fields[2] ]]; then
      if [[ $words[CURRENT-1] == $option || $PREFIX == $option=* ]]; then
        [[ $PREFIX == $option=* ]] && compset -P '*='
        values=(${=fields[3]})
        if (( $#values )); then compadd -a values; else _files; fi
        return
      fi
    fi
  done
  if [[ $PREFIX == -* ]]; then
    _describe -o -t options 'option' options
  else
    (( $#free )) && compadd -a free
    _files
    compadd -- ${(f)"$(git for-each-ref --format='%(refname:short)' 2>/dev/null)"}
  fi
}

# Loaded by its name, this file is the function; read by `source`, it only defines it.
if [[ $funcstack[1] == _git-theta ]]; then
  _git-theta "$@"
elif (( $+functions[compdef] )); then
  compdef _git-theta git-theta
fi
