# Completion of kai for bash (4.4 or later): source <(kai completion bash)

_kai() {
    local IFS=$' \t\n' how
    local -a answer=()
    # The answer is data, each record ended by a NUL: nothing of it is expanded or run.
    mapfile -d '' -t answer < <(
        command -- "$1" __complete bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null </dev/null
    )
    how=${answer[0]-}
    COMPREPLY=("${answer[@]:1}")
    compopt -o nosort
    case $how in
        nospace) compopt -o nospace ;;
        files) compopt -o default ;;
        dirs) compopt -o dirnames ;;
    esac
}

complete -F _kai kai
