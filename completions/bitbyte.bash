# SPDX-License-Identifier: MIT
# Completion for bash. The program itself says which commands and options there are: --help=complete.
_bitbyte() {
    local program=${COMP_WORDS[0]} cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}
    local name takes help words=
    COMPREPLY=()
    if [ "$COMP_CWORD" = 1 ]; then
        while IFS=$'\t' read -r name help; do words+=" $name"; done < <("$program" --help=complete 2>/dev/null)
        mapfile -t COMPREPLY < <(compgen -W "$words help --version" -- "$cur")
        return
    fi
    if [ "$command" = help ]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$program" --help=complete 2>/dev/null | cut -f 1)" -- "$cur")
        return
    fi
    while IFS=$'\t' read -r name takes help; do
        words+=" $name"
        [ "${name#--}" = "$(printf %s "${previous#--}" | tr - _)" ] && [ "${previous#--}" != "$previous" ] || continue
        case $takes in
            flag) ;;
            file) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); compopt -o filenames 2>/dev/null; return ;;
            value) return ;;
            *) mapfile -t COMPREPLY < <(compgen -W "${takes//|/ }" -- "$cur"); return ;;
        esac
    done < <("$program" "$command" --help=complete 2>/dev/null)
    case $cur in
        -*) mapfile -t COMPREPLY < <(compgen -W "$words --help" -- "$cur") ;;
        *) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); compopt -o filenames 2>/dev/null ;;
    esac
}
complete -F _bitbyte bitbyte
