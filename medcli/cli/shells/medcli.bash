# Completion of medcli in bash 4.4 or later. The program itself answers; paths are left to readline.
_medcli_completion() {
    local IFS=$'\n' reply
    mapfile -t reply < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \
        _MEDCLI_COMPLETE=complete_bash "$1" 2>/dev/null)
    COMPREPLY=("${reply[@]:1}")
    case "${reply[0]}" in
        *nospace*) compopt -o nospace ;;
    esac
    # Readline's own file completion (`-o default`) quotes and expands correctly, but only acts while COMPREPLY is
    # empty, so names and files are mixed through `compgen` alone where both fit.
    case "${reply[0]}" in
        *files*)
            if ((${#COMPREPLY[@]})); then
                compopt -o filenames
                mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$2")
            else
                compopt -o default
            fi ;;
        *dirs*)
            if ((${#COMPREPLY[@]})); then
                compopt -o filenames
                mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -d -- "$2")
            else
                compopt -o dirnames
            fi ;;
    esac
}
complete -F _medcli_completion medcli
