#compdef kai
# Completion of kai for zsh: source <(kai completion zsh), or keep this as `_kai` in a directory of $fpath.

_kai() {
    local command=${(Q)words[1]} how
    local -a answer values told suffix
    # The answer is data, each record ended by a NUL: nothing of it is expanded or run.
    answer=("${(@0)$(command -- "$command" __complete zsh "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null </dev/null)}")
    how=$answer[1]
    local -i at
    for ((at = 2; at < $#answer; at += 2)); do
        values+=("$answer[at]")
        told+=("${answer[at]}${answer[at+1]:+  -- ${answer[at+1]}}")
    done
    case $how in
        files) _files ;;
        dirs) _files -/ ;;
        nospace) compadd -V kai -S '' -d told -- "${values[@]}" ;;
        *) compadd -V kai -d told -- "${values[@]}" ;;
    esac
}

if [[ $funcstack[1] == _kai ]]; then
    _kai "$@"
else
    compdef _kai kai
fi
