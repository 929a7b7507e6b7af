#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shell completions and manual pages, which are generated from the option tables.
set -u
completions=$(cd "$(dirname "$0")/../completions" && pwd)
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"
mkdir bin
ln -s "$bitbyte" bin/bitbyte
PATH=$tmp/bin:$PATH

# Every command: a line for each option of its help, and a page without an error of man's.
expect 0 bitbyte --help=complete
cut -f 1 out >commands
grep -qx serve commands && [ "$(wc -l <commands)" -ge 10 ] || fail "the commands: $(cat commands)"
while read -r command; do
    "$bitbyte" help "$command" | grep -oE '^  (-[A-Za-z], )?--[a-z0-9_]+' | grep -oE -- '--.*' | sort >in_help
    "$bitbyte" "$command" --help=complete | cut -f 1 | sort >in_completion
    cmp in_help in_completion || fail "$command: the completion has other options than the help"
    "$bitbyte" "$command" --help=complete | awk -F '\t' 'NF != 3 || $2 == "" || $3 == "" { exit 1 }' || fail "$command: not three columns"
    expect 0 "$bitbyte" "$command" --help=man
    if command -v man >/dev/null && command -v groff >/dev/null; then
        LC_ALL=C.UTF-8 MANWIDTH=100 man --warnings -l out >page 2>warnings || fail "man cannot show bitbyte-$command(1)"
        [ ! -s warnings ] || fail "bitbyte-$command(1): $(cat warnings)"
        while read -r option; do grep -qF -- "${option}" page || fail "bitbyte-$command(1) lacks $option"; done <in_help
    fi
done <commands
expect 0 bitbyte --help=man
expect 2 bitbyte --help=html
expect 2 bitbyte eval --help=html

# bash: what the TAB key offers after these words
complete_words() {
    bash -c '. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _bitbyte 2>/dev/null; printf "%s\n" "${COMPREPLY[@]}"' "$completions/bitbyte.bash" "$@"
}
offers() {
    local want=$1
    shift
    complete_words "$@" | grep -qxF -- "$want" || fail "bash does not offer $want after: $* but $(complete_words "$@" | tr '\n' ' ')"
}
offers train bitbyte tr
offers --sample_every bitbyte train --sam
offers muon bitbyte train --optim ""
offers val_bpb bitbyte report run --plot v
offers text.txt bitbyte train --data te
offers text.txt bitbyte eval run te
offers eval bitbyte help ev
[ "$(complete_words bitbyte train --steps 1)" = "" ] || fail "bash offers a number"
offers exact bitbyte train --reduce e
if command -v zsh >/dev/null; then zsh -n "$completions/_bitbyte" || fail "zsh cannot read its completion"; fi
if command -v fish >/dev/null; then
    fish -n "$completions/bitbyte.fish" || fail "fish cannot read its completion"
    fish_offers() { fish -c "source '$completions/bitbyte.fish'; complete -C '$2'" 2>/dev/null | cut -f 1 | grep -qxF -- "$1" || fail "fish does not offer $1 after: $2"; }
    fish_offers train "bitbyte tr"
    fish_offers --sample_every "bitbyte train --sam"
    fish_offers muon "bitbyte train --optim m"
fi
echo "passed"
