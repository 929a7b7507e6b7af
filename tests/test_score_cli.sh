#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# bitbyte score: files, lines, records, several models; and its applications: unusual lines, good texts, languages.
set -u
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"
small=(--n_layer 2 --d_model 64 --n_head 2 --d_ff 128 --seq_len 64 --batch_size 16 --grad_accum 1 --steps 150 --device "$device")
expect 0 "$bitbyte" train --data text.txt --out run "${small[@]}"
score() { "$bitbyte" score "$@" --device "$device"; }
mean_bpb() { tail -n 1 "$1" | awk '{print $1}'; }

# ---- whole files: what eval says; pipes, compressed input
head -c 3000 text.txt >part
expect 0 score run part --seq_len 64
says "part"
whole=$(awk '$3 == "part" {print $1}' out)
expect 0 "$bitbyte" eval run part --sliding --seq_len 64 --json --device "$device"
evaluated=$(json_value out bpb)
awk -v a="$whole" -v b="$evaluated" 'BEGIN { exit !(a > b * 0.97 && a < b * 1.03) }' || fail "score says $whole, eval $evaluated"
gzip -k part
score run - --seq_len 64 <part.gz >out 2>err || fail "score -"
[ "$(awk '/standard input/ {print $1}' out)" = "$whole" ] || fail "score of compressed standard input"
expect 0 score run part part.gz --json --seq_len 64
[ "$(perl -MJSON::PP -ne 'my $j = decode_json($_); print "$j->{file} $j->{bytes};"' out)" = "part 3000;part.gz 3000;" ] || fail "score --json"

# ---- odd lines of a log
sed '100s/.*/kernel: Out of memory: killed process 4242/' text.txt >log
expect 0 score run log --lines --sort bpb --top 3
sed -n 2p out | grep -qF "log:100: kernel: Out of memory" || fail "score --lines: the odd line is not the first"
[ "$(wc -l <out)" = 5 ] || fail "score --top 3"
says "all 200 lines"
expect 0 score run log --lines --sort bpb --ascending --top 1
grep -q "Out of memory" out && fail "score --ascending"
expect 0 score run log --lines --json
[ "$(wc -l <out)" = 200 ] || fail "score --lines --json: lines"
sed -n 100p out >line
[ "$(json_value line text)" = "kernel: Out of memory: killed process 4242" ] || fail "score --lines --json: text"
expect 0 score run log --lines --json --context_from previous
[ "$(wc -l <out)" = 200 ] || fail "score --context_from previous"
printf 'a "b",c\r\n\nd' | score run - --lines --csv >out 2>err || fail "score --csv"
grep -q '^"(standard input)",1,7,[0-9.]*,[0-9.]*,"a ""b"",c"$' out || fail "score --csv: quotes"
grep -q '^"(standard input)",3,1,' out || fail "score --csv: the last line"

# ---- a pipe that waits: the rows of the lines that came, once its first bytes tell that it is text
head -n 50 text.txt >lines
mkfifo wait
{
    head -n 40 lines
    printf 'The'
    wait_until "the rows of 40 lines come" grep -qs '^"(standard input)",40,' early
    grep -q '^"(standard input)",41,' early && touch too_early
    tail -n +41 lines | tail -c +4
} >wait &
score run - --lines --csv <wait >early 2>err || fail "score of a pipe that waits: $(cat err)"
wait
[ ! -e too_early ] || fail "score of a pipe that waits: half a line was scored"
[ "$(wc -l <early)" = 51 ] || fail "score of a pipe that waits: $(wc -l <early) rows"
score run - --lines --csv <lines >out 2>err
cmp out early || fail "score of a pipe that waits gives other rows"

# ---- more than a piece of 4 MB, through a pipe: the lines of all pieces; a line longer than a piece; lines give the same sum as their file
expect 0 "$bitbyte" train --data text.txt --out smallest "${tiny[@]}" --n_layer 1 --d_model 8 --n_head 1 --d_ff 8 --steps 1
awk 'BEGIN { for (i = 1; i <= 30000; i++) printf "%d %s\n", i, "the same line of one hundred and fifty bytes, more or less, that says nothing at all, but says it again, and again, and again, and ends here." }' >many
cat many | score smallest - --lines --csv --seq_len 256 >out 2>err || fail "score of a long pipe: $(cat err)"
[ "$(wc -l <out)" = 30001 ] || fail "score of a long pipe: $(wc -l <out) rows"
tail -n 1 out | grep -q '^"(standard input)",30000,.*"30000 the same' || fail "score of a long pipe: the last row is $(tail -n 1 out)"
awk -F, 'NR > 1 && $2 != NR - 1 { exit 1 }' out || fail "score of a long pipe: numbers of lines"
{ tr '\n' ' ' <many; echo; echo last; } | score smallest - --lines --json --seq_len 256 >out 2>err || fail "score of a long line: $(cat err)"
[ "$(wc -l <out)" = 2 ] || fail "score of a long line: $(wc -l <out) rows"
head -n 3000 many >some
expect 0 score smallest some --json --seq_len 256
[ "$(json_value out bytes)" = "$(wc -c <some)" ] || fail "score of a file: bytes"
whole=$(json_value out bpb)
expect 0 score smallest some --lines --context_from previous --json --seq_len 256
perl -MJSON::PP -ne '$j = decode_json($_); $n += $j->{bytes}; $b += $j->{bits}; END { print $b / $n }' out >mean
awk -v a="$whole" -v b="$(cat mean)" 'BEGIN { exit !(a > b * 0.98 && a < b * 1.02) }' || fail "score --context_from previous says $(cat mean), the file $whole"

# ---- a corpus by quality: records, and one that is none
{
    printf '{"text": "%s", "n": 1}\n' "$(sed -n 50p text.txt)"
    printf '{"text": "x9$$ kk;; QQ zz 0x00 ## !! xyzzy", "n": 2}\n{"other": 1}\n'
    printf '{"text": "%s", "n": 3}\n' "$(sed -n 51p text.txt)"
} >corpus.jsonl
expect 0 score run corpus.jsonl --jsonl text --sort bpb --json
complains "corpus.jsonl:3: no text under \"text\""
[ "$(perl -MJSON::PP -ne 'print decode_json($_)->{line}' out | head -c 1)" = 2 ] || fail "score --jsonl: the worst is not the first"

# ---- languages apart
for ((i = 0; i < 200; i++)); do printf 'Die Zeile %d sagt, dass %d und %d nicht gleich sind.\n' "$i" $((i * 7)) $((i * 7 + 1)); done >german.txt
expect 0 "$bitbyte" train --data german.txt --out german "${small[@]}"
printf 'The line says that it is the same.\nDie Zeile sagt, dass sie gleich ist.\n' >letters
expect 0 score --model run --model german letters --lines --diff
sed -n 2p out | grep -qE '^ *[0-9.]+ +[0-9.]+ +-[0-9.]+ .*\[run\]$' || fail "the English line is not taken as English"
sed -n 3p out | grep -qE '^ *[0-9.]+ +[0-9.]+ +\+[0-9.]+ .*\[german\]$' || fail "the German line is not taken as German"
expect 0 score --model run --model german letters --lines --json
[ "$(perl -MJSON::PP -ne 'print decode_json($_)->{best}, ";"' out)" = "run;german;" ] || fail "score --json: best"

# ---- bytes and pages
printf 'The <b>\xff\xc3\xa9' >bytes
expect 0 score run bytes --per_byte --html page.html
[ "$(grep -c 0x out)" = 10 ] || fail "score --per_byte"
grep -qE 'title="[0-9.]+ bits, rank [0-9]+">&lt;</span>' page.html || fail "score --html: escapes"
grep -qF '>\xff</span>' page.html || fail "score --html: bytes that are no UTF-8"
grep -qF '>é</span>' page.html || fail "score --html: characters"
expect 0 score run bytes --per_byte --json
[ "$(json_value out byte_ranks | tr -cd , | wc -c)" = 9 ] || fail "score --per_byte --json"
# several models: the bytes shown are the first one's
expect 0 score run bytes --per_byte --json
json_value out byte_bits >alone
expect 0 score --model run --model german bytes --per_byte --json
json_value out byte_bits | cmp - alone || fail "score --per_byte of two models shows the second one's"
# a page appears whole or not at all
cp page.html page.before
expect 1 score run bytes nowhere --html page.html
cmp page.html page.before || fail "score --html: an error replaced the page"
expect 2 score run bytes page.html --html page.html
complains "an input of this command"
cmp page.html page.before || fail "score --html overwrote its input"
mkfifo silent
exec 9<>silent
rm early
"$bitbyte" score run bytes - --lines --html page.html --device "$device" <silent >early 2>err &
pid=$!
wait_until "the first file is scored" test -s early
kill -TERM $pid
status=0
wait $pid || status=$?
[ $status = 143 ] || fail "exit status $status after SIGTERM to score"
exec 9>&-
cmp page.html page.before || fail "score --html: a signal replaced the page"
[ -z "$(find . -name '*.partial')" ] || fail "score --html: a temporary file is left"

expect 2 score run
complains "nothing to score"
expect 2 score run part --diff
complains "--model A --model B"
expect 2 score run part --lines --jsonl text
expect 1 score run nowhere
complains "nowhere"
echo "passed"
