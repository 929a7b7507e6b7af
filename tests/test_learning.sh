#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# bench/learning: the table's figures compared with sums done by hand, with numbers from a fake program; with the real one, runs
# that are stopped or killed and continue, and a variant that fails; and the texts.
set -u
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=tests/program_helpers.sh
. "$source_dir/tests/program_helpers.sh"
command -v python3 >/dev/null || { echo "skipped: no python3"; exit 77; }
export PYTHONDONTWRITEBYTECODE=1
experiments=(python3 "$source_dir/bench/learning/experiments.py")
row() { grep -F -- "$1" out | tail -n 1; } # the last table's row

# ---- texts: records stay whole
texts=(python3 "$source_dir/bench/learning/texts.py" texts)
for ((i = 0; i < 100; i++)); do printf 'First line %d.\nSecond line.\n\n' "$i"; done >plays.txt
for ((i = 0; i < 100; i++)); do printf '{"title": "x", "story": "Story %d\\nends."}\n' "$i"; done >stories.jsonl
expect 0 "${texts[@]}" --only syslog --text plays=plays.txt --text stories=stories.jsonl --field story
[ "$(sha256sum <texts/syslog.train)" = "6ea035fa9e491b581018bd793a2487c785461f1800898d8dc9133c7bf8ac66ea  -" ] || fail "texts.py: the log is another one: $(sha256sum <texts/syslog.train)"
[ "$(head -n 1 texts/plays.held_out)" = "First line 96." ] && [ "$(head -n 1 texts/stories.held_out)" = "Story 96" ] ||
    fail "texts.py: a held-out part does not begin with a record"
cat texts/plays.train texts/plays.held_out | cmp - plays.txt || fail "texts.py: a text is not the sum of its parts"
[ "$(json_value texts/texts.json plays | json_value /dev/stdin made_from)" = plays.txt ] || fail "texts.json"
expect 1 "${texts[@]}" --none --text stories=stories.jsonl --field tale
complains "stories.jsonl:1: expected a JSON object with a text 'tale'"

# ---- the table. A stand-in for training: 10 ms a step, 20 ms where --wd is given; the scores stand in a table.
cat >stand_in <<'SH'
#!/bin/bash
while [ $# -gt 0 ]; do
    case $1 in --seed) seed=$2 ;; --steps) steps=$2 ;; --wd) wd=$2 ;; --data) data=$2 ;; --out) mkdir -p "$2" ;; esac
    shift
done
echo '{"event":"start","step":0}'
for ((i = 1; i <= steps; i++)); do
    ms=$((i * (${#wd} > 0 ? 20 : 10)))
    printf '{"event":"step","step":%d,"total_steps":%d,"bpb":3.5,"bytes":%d,"elapsed_s":%d.%03d}\n' \
        $i "$steps" $((i * 64)) $((ms / 1000)) $((ms % 1000))
done
case $(basename "$data" .train):$seed:${wd-no} in
    plays:1:no) bpb=2.0 ;; plays:2:no) bpb=2.1 ;; plays:3:no) bpb=2.3 ;; plays:1:0) bpb=1.9 ;; plays:2:0) bpb=2.05 ;; plays:3:0) bpb=2.15 ;;
    stories:[123]:no) bpb=3.$seed ;; stories:[123]:0) bpb=3.${seed}2 ;;
esac
printf '{"event":"validation","step":%d,"val_bpb":%s}\n{"event":"done","step":%d}\n' "$steps" "$bpb" "$steps"
SH
chmod +x stand_in
cat >table.json <<'JSON'
{"about": "nothing", "texts": ["plays", "stories"], "seeds": [1, 2, 3], "options": "--steps 20 --lr 1", "variants": {"old": "", "new": "--wd 0"}}
JSON
table=("${experiments[@]}" table.json --texts texts --out table --bitbyte ./stand_in)
expect 0 "${table[@]}" --dry-run
says "12 runs, 12 to do"
says "train --data texts/plays.train --val_data texts/plays.held_out"
[ ! -e table/results.jsonl ] || fail "--dry-run wrote results"
expect 0 "${table[@]}" --only new --text plays
row "| new |" | grep -qF "| new | 3 | 20 | 2.0333 ± 0.0726 | – | 3.5000 ± 0.0000 | 0.4 | 3,200 |" || fail "a table of the second variant alone"
expect 0 "${table[@]}"
[ "$(grep -cF '"key"' table/results.jsonl)" = 12 ] || fail "not one line for each of 12 runs"
# 2.0, 2.1, 2.3: mean 2.1333, variance 0.02333, its root over the root of 3 is 0.0882. Differences -0.1, -0.05, -0.15: -0.1, 0.05 / 1.732.
says "| old | 3 | 20 | 2.1333 ± 0.0882 | first | 3.5000 ± 0.0000 | 0.2 | 6,400 |"
says "| new | 3 | 20 | 2.0333 ± 0.0726 | -0.1000 ± 0.0289 |"
says "| new | 3 | 20 | 3.2200 ± 0.0577 | +0.0200 ± 0.0000 |"
# All six: mean -0.04, squares of what is left 0.0266, over 5 and over 6: 0.000887.
row "| new |" | grep -qF "| new | 6 | 20 | 2.6267 | -0.0400 ± 0.0298 |" || fail "the table of all texts: $(row "| new |")"
cp out whole
expect 0 "${table[@]}" --table
cmp out whole || fail "--table prints another table"
# At equal time the slower one gets half the steps, and the first one's runs are those that there are.
expect 0 "${table[@]}" --equal time --dry-run
says "steps are not known before speeds are measured: old, new"
expect 0 "${table[@]}" --equal time
says "Equal time"
row "| new |" | grep -qF "| new | 6 | 10 |" || fail "equal time: not half the steps: $(row "| new |")"
grep -q "not equal" out && fail "equal time: said to be unequal"
[ "$(grep -cF '"bpb"' table/results.jsonl)" = 18 ] || fail "equal time: not 6 more runs"
expect 0 "${experiments[@]}" table.json --texts texts --out table --bitbyte /bin/true --equal time
[ ! -s err ] || fail "what is finished is run again at equal time"
says "results of 2 builds of bitbyte"
sed -i 's/"--wd 0"/"--wd 0 --steps 10"/' table.json
expect 0 "${table[@]}"
says "not equal bytes: new had -50.0% of bytes beside old"

# ---- what can't be
expect 1 "${table[@]}" --only newer
complains "table.json: variants: expected one of old, new, found 'newer'"
sed 's/--lr 1/--out x/' table.json >wrong.json
expect 1 "${experiments[@]}" wrong.json --texts texts --out table
complains "wrong.json: options: --out is for bench/learning/experiments.py to give"
sed 's/"texts"/"text"/' table.json >wrong.json
expect 1 "${experiments[@]}" wrong.json --texts texts --out table
complains "wrong.json: expected about, texts, seeds, options, variants, seconds, found 'text'"
expect 1 "${experiments[@]}" table.json --texts missing --out table
complains "missing/plays.train: no such text"

# ---- the configurations that are here: they can be read, and the program knows their options
"$bitbyte" help train >help
for name in kjv shakespeare python tinystories russian; do : >"texts/$name.train"; : >"texts/$name.held_out"; done
for config in "$source_dir"/bench/learning/*.json; do
    expect 0 "${experiments[@]}" "$config" --texts texts --out table --bitbyte "$bitbyte" --dry-run
    says " to do"
    for option in $(grep -oE -- '--[a-z_]+' "$config" | sort -u); do
        grep -qE "^  $option( |\$)" help || fail "$config: bitbyte train has no $option"
    done
done

# ---- training. The program is stopped half-way, and the script with it: by Ctrl-C's signal once, then by one that no program can handle.
# The lines cut off here are those that a crash leaves.
cat >train.json <<JSON
{"texts": ["plays"], "seeds": [1], "options": "${tiny[*]:0:14} --steps 20 --lr 3e-3", "variants": {"good": "", "hot": "--lr 1e9", "wild": "--ste wild", "warm": "--lr 1e-2"}}
JSON
cat >half_way <<SH
#!/bin/bash
echo "\$*" >>calls
"$bitbyte" "\$@" --stop_at "\$(cat stop_at)" --device "$device"
status=\$?
if grep -q . signal; then kill -"\$(cat signal)" \$PPID; exit 130; fi
exit \$status
SH
chmod +x half_way
train=("${experiments[@]}" train.json --texts texts --bitbyte ./half_way)
echo 0 >stop_at
: >signal
expect 1 "${train[@]}" --out undisturbed
says "| good | 1 | 20 |"
says "failed: hot, plays, seed 1: exit status 1: bitbyte train: 10 steps in a row were skipped"
says "failed: wild, plays, seed 1: exit status 2: bitbyte train: --ste: expected identity or clipped, found 'wild'"
says "| warm | 1 | 20 |"
[ "$(find undisturbed -name '*.log' | wc -l)" = 2 ] && [ "$(find undisturbed -mindepth 1 -type d | wc -l)" = 0 ] ||
    fail "what is left of finished runs: $(ls undisturbed)"
for kind in INT:130 KILL:137; do
    : >calls
    echo 8 >stop_at
    echo "${kind%:*}" >signal
    expect "${kind#*:}" "${train[@]}" --out "$kind"
    [ -s "$kind/results.jsonl" ] && fail "$kind: a result of a run that was stopped"
    printf '{"key": "0123' >>"$kind/results.jsonl"
    echo 0 >stop_at
    : >signal
    expect 1 "${train[@]}" --out "$kind"
    complains "results.jsonl:1: no result, passed over"
    sed -n 2p calls | grep -q -- "--resume" || fail "$kind: the run did not go on: $(cat calls)"
    for variant in good warm; do
        score() { perl -MJSON::PP -ne 'my $r = eval { decode_json($_) } or next; print "$r->{steps} $r->{bytes} $r->{bpb} $r->{train_bpb}"
            if $r->{variant} eq "'$variant'"' "$1/results.jsonl"; }
        [ -n "$(score "$kind")" ] && [ "$(score "$kind")" = "$(score undisturbed)" ] ||
            fail "$kind: $variant differs from a run that was not stopped: $(score "$kind"), $(score undisturbed)"
    done
done
: >calls
expect 1 "${train[@]}" --out undisturbed
[ ! -s calls ] || fail "what is finished is run again: $(cat calls)"
expect 1 "${train[@]}" --out undisturbed --retry
[ "$(wc -l <calls)" = 2 ] || fail "--retry: not the two that failed: $(cat calls)"
echo "passed"
