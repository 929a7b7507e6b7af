# SPDX-License-Identifier: MIT
# Completion for fish. The program itself says which commands and options there are: --help=complete.
function __bitbyte_commands
    set -l words (commandline -opc)
    command $words[1] --help=complete 2>/dev/null
end
function __bitbyte_options
    set -l words (commandline -opc)
    test (count $words) -ge 2; or return
    command $words[1] $words[2] --help=complete 2>/dev/null | while read -d \t -l name takes help
        printf '%s\t%s\n' $name $help
    end
end
# The choices of the option before the cursor.
function __bitbyte_choices
    set -l words (commandline -opc)
    test (count $words) -ge 3; or return
    set -l previous (string replace -a -- - _ (string replace -r -- '^--' '' $words[-1]))
    command $words[1] $words[2] --help=complete 2>/dev/null | while read -d \t -l name takes help
        test "--$previous" = "$name"; and string match -q '*|*' -- $takes; and string split '|' -- $takes
    end
end
complete -c bitbyte -n '__fish_use_subcommand' -f -a '(__bitbyte_commands)'
complete -c bitbyte -n 'not __fish_use_subcommand; and string match -q -- "-*" (commandline -ct)' -f -a '(__bitbyte_options)'
complete -c bitbyte -n 'not __fish_use_subcommand' -a '(__bitbyte_choices)'
