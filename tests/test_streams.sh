#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Unusual standard input, output and error: closed, nonblocking, with CRLF lines, a terminal without color.
set -u
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

# Closed descriptors: no message lands in a file that the program writes, and the work is done.
"$bitbyte" pack text.txt --out_dir closed <&- >&- 2>&- || fail "pack with closed descriptors"
cmp text.txt closed/shard_00000.bin || fail "pack with closed descriptors wrote something else into its shard"
for closed in '<&-' '>&-' '2>&-'; do
    eval "\"\$bitbyte\" pack absent text.txt --out_dir closed --overwrite 3>&1 $closed" >out 2>err || fail "pack $closed"
    cmp text.txt closed/shard_00000.bin || fail "pack $closed wrote something else into its shard"
done
"$bitbyte" train --data text.txt --out run --steps 2 --save_every 1 "${tiny[@]}" <&- >&- 2>&- || fail "train with closed descriptors"
expect 0 "$bitbyte" info --verify run
says ": good, "
generate=("$bitbyte" generate run --threads 1 --device "$device" --temperature 0 --max_new_bytes 20)

# Descriptors that do not block: nonblocking FD COMMAND… sets the flag; a small pipe is full at once.
nonblocking() { perl -e 'use Fcntl; my $fd = shift; open(my $f, "+<&=", $fd) or die $!; fcntl($f, 1031, 4096);
    fcntl($f, F_SETFL, fcntl($f, F_GETFL, 0) | O_NONBLOCK) or die $!; exec @ARGV or die $!' "$@"; }
"$bitbyte" help train >wanted || fail "help train"
nonblocking 1 "$bitbyte" help train 2>err | { sleep 0.3; cat; } >out
[ "${PIPESTATUS[0]}" = 0 ] || fail "help to standard output that does not block"
cmp out wanted || fail "output that does not block lost something"
{ nonblocking 2 "$bitbyte" pack $(seq 1 300) --out_dir nothing 2>&1 >/dev/null | { sleep 0.3; cat; } >err; }
[ "$(grep -c 'skipped [0-9]*: cannot' err)" = 300 ] || fail "standard error that does not block lost messages"
{ sleep 0.3; cat text.txt; } | nonblocking 0 "$bitbyte" pack - --out_dir waited >out 2>err || fail "pack from standard input that does not block"
cmp text.txt waited/shard_00000.bin || fail "standard input that does not block lost something"
"${generate[@]}" --prompt 'The ' >wanted 2>err || fail "generate"
{ sleep 0.3; printf 'The '; } | nonblocking 0 "${generate[@]}" --prompt - >out 2>err || fail "generate --prompt - that does not block"
cmp out wanted || fail "a prompt from standard input that does not block"
{ sleep 0.3; cat text.txt; } | nonblocking 0 "$bitbyte" eval run - --threads 1 --device "$device" >out 2>err ||
    fail "eval - that does not block"
head -c 20000 /dev/urandom >random
compress=(compress -q --model run --threads 1 --device "$device")
{ sleep 0.3; cat random; } | nonblocking 0 "$bitbyte" "${compress[@]}" >random.bby 2>err || fail "compress from standard input that does not block"
nonblocking 1 "$bitbyte" "${compress[@]}" -d -c random.bby 2>err | { sleep 0.3; cat; } >out
cmp out random || fail "decompress to standard output that does not block"
{ sleep 0.3; printf 'The \n/quit\n'; } | nonblocking 0 "${generate[@]}" --interactive >out 2>err || fail "lines from an input that does not block"
echo >>wanted
cmp out wanted || fail "an answer to an input that does not block"

# Lines that end in CR LF.
printf 'The \n/help\n' | "${generate[@]}" --interactive >wanted 2>err || fail "generate --interactive"
printf 'The \r\n/help\r\n/quit\r\nThe ' | "${generate[@]}" --interactive >out 2>err || fail "generate --interactive with CRLF"
cmp out wanted || fail "lines with CRLF are taken otherwise"
printf '/quit\r' | "${generate[@]}" --interactive >out 2>err || fail "/quit and CR"
[ ! -s err ] || fail "/quit and CR is no command"

# The prompt is dim on a terminal, unless the environment wants no escape sequences.
if command -v script >/dev/null; then
    shown() { env -u NO_COLOR "$@" script -qec "${generate[*]} --prompt The" /dev/null </dev/null 2>&1; }
    shown TERM=xterm | grep -q $'\033\\[2m' || fail "the prompt is not dim on a terminal"
    shown TERM=xterm NO_COLOR= | grep -q $'\033\\[2m' || fail "an empty NO_COLOR means nothing"
    shown TERM=xterm NO_COLOR=1 | grep -q $'\033' && fail "NO_COLOR: an escape sequence"
    shown TERM=dumb | grep -q $'\033' && fail "TERM=dumb: an escape sequence"
else
    echo "skipped: dim prompts (no script from util-linux)"
fi
echo "standard streams are taken as they are"
