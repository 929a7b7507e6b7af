#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# bitbyte generate: stop texts, samples, prompts, JSON, and conversations through a pipe and on a terminal.
set -u
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"
expect 0 "$bitbyte" train --data text.txt --out run "${tiny[@]}" --steps 30
generate=("$bitbyte" generate run --device "$device" --context_length 400)

# ---- stop texts: cut out of what is generated without them, so that they come; not written, nor what follows
expect 0 "${generate[@]}" --prompt "The " --max_new_bytes 60 --seed 3
cp out whole
for length in 1 2 5; do
    stop=$(head -c $((20 + length)) whole | tail -c $length | xxd -p -c 99 | sed 's/../\\x&/g')
    expect 0 "${generate[@]}" --prompt "The " --max_new_bytes 60 --seed 3 --stop "not here" --stop "$stop"
    [ "$(wc -c <out)" -le 20 ] || fail "generate --stop of $length bytes wrote too much"
    cmp -n "$(wc -c <out)" out whole || fail "generate --stop of $length bytes changed the text"
    head -c $(($(wc -c <out) + length)) whole | tail -c $length >last
    printf '%b' "$stop" | cmp - last || fail "generate --stop of $length bytes ended elsewhere"
done
# one that never becomes whole is written in the end
stop=$(tail -c 3 whole | xxd -p -c 99 | sed 's/../\\x&/g')'\x00'
expect 0 "${generate[@]}" --prompt "The " --max_new_bytes 60 --seed 3 --stop "$stop"
cmp out whole || fail "what might have been a stop text was lost"
expect 2 "${generate[@]}" --stop ''
complains "stop text 1 has 0 bytes"
expect 2 "${generate[@]}" --stop 'a\q'
complains "unknown escape '\\q' in 'a\\q'"
expect 2 "${generate[@]}" --stop '\x1'
complains "unknown escape"
expect 2 "${generate[@]}" --stop
complains "--stop needs a value: TEXT"

# ---- caches: each gives the byte the probability that eval gives it through the same cache, and no two the same
for cache in f32 int8 int6; do
    expect 0 "${generate[@]}" --prompt "The " --max_new_bytes 1 --temperature 0 --kv_cache $cache
    printf 'The ' | cat - out >scored
    expect 0 "${generate[@]}" --prompt "The " --max_new_bytes 1 --temperature 0 --kv_cache $cache --json
    generated=$(json_value out mean_logprob)
    head -c 4 scored >prompt
    expect 0 "$bitbyte" eval run scored --device "$device" --kv_cache $cache --json
    whole=$(json_value out loss)
    expect 0 "$bitbyte" eval run prompt --device "$device" --kv_cache $cache --json
    awk -v generated="$generated" -v whole="$whole" -v prompt="$(json_value out loss)" \
        'BEGIN { d = generated + 4 * whole - 3 * prompt; exit !(d < 1e-5 && d > -1e-5) }' || fail "generate --kv_cache $cache: $generated, not what eval finds"
    echo "$generated" >>caches
done
[ "$(sort -u caches | wc -l)" = 3 ] || fail "generate --kv_cache: two types give the same"

# ---- a text that does not fit: the status of a failure, not that of a wrong option
expect 1 "${generate[@]}" --context_length 100000 --max_new_bytes 90000 --cache_mb 1
complains "the limit is 1.0 MB"

# ---- samples: each is the one that its seed gives alone
for seed in 3 4 5; do
    expect 0 "${generate[@]}" --prompt "The " --max_new_bytes 40 --seed $seed
    cp out alone$seed
done
expect 0 "${generate[@]}" --prompt "The " --max_new_bytes 40 --seed 3 --n 3
for seed in 3 4 5; do
    printf -- '--- sample %d of 3, seed %d ---\n' $((seed - 2)) $seed
    cat alone$seed
    echo
done >expected
cmp out expected || fail "generate --n 3 is not three times --n 1"
# also where each goes past the window and drives the prompt out
for seed in 3 4; do
    expect 0 "${generate[@]}" --context_length 32 --prompt "The " --max_new_bytes 90 --seed $seed
    cp out alone$seed
done
expect 0 "${generate[@]}" --context_length 32 --prompt "The " --max_new_bytes 90 --seed 3 --n 2 --json --metrics_json metrics.json
perl -MJSON::PP -e 'local $/; my $j = decode_json(<STDIN>);
    for my $s (@{$j->{samples}}) {
        open my $f, "<:raw", "alone$s->{seed}"; my $alone = <$f>; my $text = $s->{text};
        utf8::encode($text); $text = pack "H*", $s->{hex} if defined $s->{hex};
        die "sample of seed $s->{seed}" unless $text eq $alone && $s->{text_bytes} == 90 && $s->{context_restarts} > 0 && $s->{stop} == -1;
    }
    die "samples" unless @{$j->{samples}} == 2 && $j->{new_bytes} == 180 && $j->{min_p} == 0 && exists $j->{accepted}' <out ||
    fail "generate --json"
json_value metrics.json samples | grep -q '"text"' && fail "--metrics_json holds the texts"
[ "$(json_value metrics.json new_bytes)" = 180 ] || fail "generate --metrics_json: all samples' bytes"
# bytes that are no UTF-8
expect 0 "${generate[@]}" --temperature 50 --max_new_bytes 64 --json
json_value out samples | grep -qE '"hex":"([0-9a-f]{2}){64}"' || fail "generate --json: bytes that are no UTF-8"
expect 2 "${generate[@]}" --n 0
complains "from 1 to 10000"

# ---- the sampler's options do something, and the same each time
for option in "--min_p 1" "--top_k 1" "--temperature 0" "--top_p 0.000001"; do
    # shellcheck disable=SC2086
    expect 0 "${generate[@]}" --prompt "The " --max_new_bytes 30 $option
    [ -f likeliest ] || cp out likeliest
    cmp out likeliest || fail "generate $option is not the likeliest text"
done
expect 0 "${generate[@]}" --prompt "The " --max_new_bytes 30 --temperature 0 --repetition_penalty 3 --repetition_window 20
cmp -s out likeliest && fail "--repetition_penalty changes nothing"
[ "$(fold -w 1 out | sort | uniq | wc -l)" -gt "$(fold -w 1 likeliest | sort | uniq | wc -l)" ] ||
    fail "--repetition_penalty does not make bytes rarer"
expect 2 "${generate[@]}" --repetition_penalty 0
complains "above 0"
expect 2 "${generate[@]}" --min_p 2
complains "from 0 to 1"

# ---- guesses change no byte
expect 0 "${generate[@]}" --prompt "The " --max_new_bytes 300 --temperature 0.2 --speculate off
cp out plain
for speculate in auto always; do
    expect 0 "${generate[@]}" --prompt "The " --max_new_bytes 300 --temperature 0.2 --speculate $speculate --metrics
    cmp out plain || fail "generate --speculate $speculate changes the text"
    complains "guessed "
done
expect 0 "${generate[@]}" --prompt "The " --max_new_bytes 300 --temperature 0.2 --speculate always --draft "${generate[2]}"
cmp out plain || fail "generate --draft changes the text"
expect 1 "${generate[@]}" --draft nowhere.safetensors
complains "nowhere.safetensors"
expect 2 "${generate[@]}" --draft "${generate[2]}" --speculate off
complains "omit one of them"

# ---- prompts: standard input, every byte of it; longer than the window
printf 'The \0\xff\n' >binary
"${generate[@]}" --prompt_file binary --max_new_bytes 40 --seed 3 >from_file 2>err || fail "generate --prompt_file"
"${generate[@]}" --prompt - --max_new_bytes 40 --seed 3 <binary >out 2>err || fail "generate --prompt -"
cmp out from_file || fail "generate --prompt - differs from the file"
"${generate[@]}" - --max_new_bytes 40 --seed 3 <binary >out 2>err || fail "generate -"
cmp out from_file || fail "generate - differs from the file"
"${generate[@]}" --prompt - --echo --max_new_bytes 0 <binary >out 2>err || fail "generate --echo"
cmp out binary || fail "the prompt is not echoed byte for byte"
"${generate[@]}" --prompt - --max_new_bytes 20 <text.txt >out 2>err || fail "a prompt longer than the window"
[ "$(wc -c <out)" = 20 ] || fail "a prompt longer than the window: bytes"

# ---- a file of prompts: each line's text is the one that its options give alone, in order; a stopped run goes on
for seed in 1 2 3 4 5 6; do
    expect 0 "${generate[@]}" --prompt "The $seed" --seed $seed --max_new_bytes $((seed % 2 ? 60 : 9)) --json
    json_value out samples | perl -MJSON::PP -e 'local $/; my $s = decode_json(<STDIN>)->[0]; print $s->{hex} // unpack("H*", do { my $t = $s->{text}; utf8::encode($t); $t }), "\n"'
    printf '{"prompt": "The %d", "id": "text %d", "seed": %d, "max_new_bytes": %d}\n\n' $seed $seed $seed $((seed % 2 ? 60 : 9)) >&3
done 3>prompts.jsonl >expected
results() {
    perl -MJSON::PP -ne 'my $j = decode_json($_); my $t = $j->{text}; utf8::encode($t); print $j->{hex} // unpack("H*", $t), "\n"' "$1"
}
for parallel in 1 3 16; do
    expect 0 "${generate[@]}" --prompts prompts.jsonl --parallel $parallel
    results out | cmp - expected || fail "generate --prompts --parallel $parallel"
done
[ "$(perl -MJSON::PP -ne 'my $j = decode_json($_); print "$j->{line} $j->{id};"' out)" = "1 text 1;3 text 2;5 text 3;7 text 4;9 text 5;11 text 6;" ] ||
    fail "generate --prompts: lines and ids"
"${generate[@]}" --prompts - --out all.jsonl --cache_mb 1 <prompts.jsonl 2>err || fail "generate --prompts -"
head -c $(($(head -n 3 all.jsonl | wc -c) + 5)) all.jsonl >part.jsonl
expect 0 "${generate[@]}" --prompts prompts.jsonl --out part.jsonl
complains "has 3 results"
cmp part.jsonl all.jsonl || fail "generate --prompts --out goes on wrongly"
printf '%s\n' '{"prompt_hex": "546865", "stop": ["e", "t"]}' '{"prompt": 3}' '{"prompt": "x", "temprature": 1}' '{"prompt": "x", "top_p": 0}' '[' >bad.jsonl
expect 1 "${generate[@]}" --prompts bad.jsonl
complains "4 lines failed"
for part in '"line":2,"error":"prompt: expected a string"' "unknown key 'temprature'" '"line":4,"error":"top_p 0' '"line":5,"error":"expected a JSON object'; do says "$part"; done
head -n 1 prompts.jsonl >short.jsonl
for hex in +1 ' 1' 0x 1g 123; do printf '{"prompt_hex": "%s"}\n' "$hex"; done >bad.jsonl
expect 1 "${generate[@]}" --prompts bad.jsonl
[ "$(grep -c 'expected pairs of hexadecimal digits' out)" = 5 ] || fail "generate --prompts takes what is not hexadecimal"
expect 1 "${generate[@]}" --prompts .
complains ".: cannot read it: "
expect 1 "${generate[@]}" --prompts short.jsonl --out part.jsonl
complains "name another file"
expect 2 "${generate[@]}" --prompts prompts.jsonl --out prompts.jsonl
complains "is an input of this command"
expect 2 "${generate[@]}" --prompts prompts.jsonl --prompt x
expect 2 "${generate[@]}" --out x
complains "--out needs --prompts"

# ---- a conversation by a pipe
conversation() { "${generate[@]}" --interactive --max_new_bytes 20 --temperature 0 "$@" >out 2>err; }
conversation <<<"The " || fail "generate --interactive"
expect 0 "${generate[@]}" --prompt "The " --max_new_bytes 20 --temperature 0
first=$(cat out)
printf 'The \n//x\n\n' | conversation --line_prefix '<' --line_suffix '>' --prompt 'P' || fail "generate --interactive with a prompt"
cp out dialogue
# the same by hand: each answer is part of the text
expect 0 "${generate[@]}" --prompt "P<The >" --max_new_bytes 20 --temperature 0
cp out answers
printf 'P<The >%s</x>' "$(cat answers)" >so_far
expect 0 "${generate[@]}" --prompt_file so_far --max_new_bytes 40 --temperature 0
{ cat answers; echo; head -c 20 out; echo; tail -c 20 out; echo; } | tr -s '\n' >expected
tr -s '\n' <dialogue | cmp - expected || fail "generate --interactive does not go on from what was said"
printf 'The \n/again\n/reset\nThe \n/nonsense\n/quit\nThe \n' | conversation || fail "generate --interactive with commands"
[ "$(grep -cF -- "$(head -n 1 <<<"$first")" out)" = 3 ] || fail "/again and /reset"
complains "unknown command /nonsense"
complains "/again"
conversation </dev/null || fail "generate --interactive without a line"
[ ! -s out ] || fail "generate --interactive without a line wrote something"
echo /again | conversation || fail "/again before anything"
complains "no answer to replace yet"
expect 2 "${generate[@]}" --interactive --n 2
complains "/again"
expect 2 "${generate[@]}" --interactive --prompt -
complains "standard input"
expect 2 "${generate[@]}" --line_prefix x
complains "--interactive"

# ---- and on a terminal: edited lines, history, Ctrl-C, Ctrl-D
if ! command -v script >/dev/null; then
    echo "skipped: conversations on a terminal (no script from util-linux)"
    echo "passed"
    exit 0
fi
export TERM=xterm
# type_in COMMAND: what comes on descriptor 3 is typed; the screen is in typescript.
start_typing() {
    rm -f keys typescript
    mkfifo keys
    script -qefc "$1" typescript <keys >/dev/null 2>&1 &
    typist=$!
    exec 3>keys
}
end_typing() {
    exec 3>&-
    status=0
    wait $typist || status=$?
}
prompts() { tr '\r' '\n' <typescript | grep -ca '^> '; }
more_prompts() { [ "$(prompts)" -gt "$1" ]; }
streamed() { [ "$(wc -c <typescript)" -gt $((size + 300)) ]; }
start_typing "${generate[*]} --interactive --temperature 0 --max_new_bytes 20"
wait_until "the conversation begins" grep -qa -e '/help lists commands' -e 'needs libedit' typescript
if grep -qa 'needs libedit' typescript; then
    end_typing
    [ $status = 1 ] || fail "exit status $status without libedit"
    echo "skipped: the line editor (this build has no libedit)"
    echo "passed"
    exit 0
fi
wait_for typescript "> "
printf 'Thx\177e \r' >&3 # a key taken back
line=$(head -n 1 <<<"$first")
wait_for typescript "$line"
printf 'half a line\003' >&3 # Ctrl-C: away with the line, not with the program
wait_for typescript '^C'
count=$(prompts)
printf '/reset\r' >&3
wait_until "a prompt after /reset" more_prompts "$count"
printf '\033[A\033[A\r' >&3 # the line before the last
answers() { [ "$(grep -caF -- "$line" typescript)" -ge 2 ]; }
wait_until "history: the first line again gives the first answer" answers
printf '\004' >&3 # Ctrl-D
end_typing
[ $status = 0 ] || fail "exit status $status after Ctrl-D"

start_typing "${generate[*]} --interactive --max_new_bytes 1000000000"
wait_for typescript "> "
count=$(prompts)
size=$(wc -c <typescript)
printf 'The \r' >&3
wait_until "an answer is streamed" streamed
printf '\003' >&3 # stops the answer
wait_until "a prompt after the answer" more_prompts "$count"
printf '/help\r' >&3
wait_for typescript "clear the text"
printf '/quit\r' >&3
end_typing
[ $status = 0 ] || fail "exit status $status after an answer that was stopped"
echo "passed"
