#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Ways to watch a run: samples, metrics.csv, TensorBoard event files, --on_metrics; and bitbyte report.
set -u
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

train=("$bitbyte" train --data text.txt "${tiny[@]}" --steps 30 --log_every 5 --save_every 10 --val_data text.txt --val_every 10 --val_batches 2
    --val_seq_len 16 --lr 3e-3)
expect 0 "${train[@]}" --out plain
# shellcheck disable=SC2016
expect 0 "${train[@]}" --out run --sample_every 10 --sample_prompt 'The <b>&"' --tensorboard --metrics_csv --on_metrics 'cat >lines; echo "said by the command"'
complains "said by the command"
cmp plain/step-00000030.safetensors run/step-00000030.safetensors || fail "samples and metrics changed the training"
says 'step 10  sample: The <b>&"'
for step in 10 20 30; do
    sample=run/samples/step-000000$step.txt
    [ "$(head -c 9 "$sample")" = 'The <b>&"' ] && [ "$(wc -c <"$sample")" = 265 ] || fail "$sample"
done
[ "$(grep -c '"sample"' run/metrics.jsonl)" = 3 ] || fail "three samples in metrics.jsonl"

# metrics.csv: as metrics.jsonl has it
[ "$(head -n 1 run/metrics.csv)" = "step,loss,bpb,lr,seq_len,grad_norm,bytes,bytes_per_s,skipped,skipped_micro,val_bpb" ] || fail "the head of metrics.csv"
perl -MJSON::PP -e 'open F, "run/metrics.jsonl"; my @lines = grep { !exists $_->{sample} } map { decode_json($_) } <F>;
    open C, "run/metrics.csv"; my @keys = split /,|\n/, <C>;
    while (<C>) { chomp; my @v = split /,/, $_, -1; my $j = shift @lines; @v == @keys or die "columns: $_\n";
        for (0 .. $#keys) { my $want = $j->{$keys[$_]} // ""; $v[$_] eq $want or abs($v[$_] - $want) < 1e-7 * abs($want) or die "$keys[$_]: $v[$_], not $want\n" } }
    @lines and die "lines are missing\n"' || fail "metrics.csv is not what metrics.jsonl says"

# --on_metrics: every line is an event
[ "$(json_lines lines | sort | uniq -c | tr -s ' \n' ' ')" = " 3 sample 3 saved 6 step 3 validation " ] || fail "--on_metrics got $(json_lines lines | sort | uniq -c | tr '\n' ' ')"
expect 0 "${train[@]}" --out early --on_metrics 'read -r line; exit 3'
says "warning: the command of --on_metrics ended with status 3"
cmp plain/step-00000030.safetensors early/step-00000030.safetensors || fail "a command that ended changed the training"
SECONDS=0
expect 0 "${train[@]}" --out stuck --on_metrics 'sleep 3' # reads nothing
[ "$SECONDS" -lt 60 ] || fail "a command that does not read held the run up"

# TensorBoard: records whose checksums are right, and what they say
events() { perl "$here/tfrecord.pl" "$@" || fail "an event file is damaged"; }
events run/events.out.tfevents.* >seen
grep -qx '0 version brain.Event:2' seen || fail "the version of the event file"
perl -MJSON::PP -e 'open S, "seen"; my %seen = map { /^(\d+) scalar (\S+) (\S+)/ ? ("$1 $2" => $3) : () } <S>;
    open F, "run/metrics.jsonl"; for (map { decode_json($_) } <F>) { my $j = $_;
        my %want = defined $j->{val_bpb} ? ("validation/bpb" => $j->{val_bpb}) : defined $j->{loss} ? map { ("train/$_" => $j->{$_}) } qw(loss bpb lr grad_norm skipped) : ();
        for (keys %want) { my $v = delete $seen{"$j->{step} $_"} // die "$j->{step} $_ is missing\n"; abs($v - $want{$_}) <= 1e-6 * abs($want{$_}) or die "$_: $v\n" } }
    delete @seen{grep m{train/bytes}, keys %seen}; %seen and die "too much: ", join(" ", keys %seen), "\n"' || fail "scalars are not what metrics.jsonl says"
[ "$(grep -c ' text sample ' seen)" = 3 ] && [ "$(grep -c ' histogram weights/' seen)" = 54 ] || fail "three samples, three times 18 histograms"
grep -qE '^10 histogram weights/blocks.0.attn.q_proj.weight 1024$' seen || fail "the histogram of a weight"
grep -qx '0 hparam n_layer 2' seen && grep -qx '0 hparam optim muon' seen || fail "hyperparameters"

# a resumed run: files go on, without what was not saved
expect 0 "${train[@]}" --out halves --stop_at 15 --tensorboard --metrics_csv --sample_every 10
cp halves/metrics.csv half.csv
printf '20,9,9,9,9,9,9,9,9,9,\n' >>halves/metrics.csv
touch halves/metrics.csv.tmp.1 # of a process that was killed
sleep 1.1 # the name of an event file has the second
expect 0 "$bitbyte" train --resume halves --threads 1
cut -d , -f 1-7,9- halves/metrics.csv | grep -v ',9,9,' | cmp - <(cut -d , -f 1-7,9- run/metrics.csv) || fail "metrics.csv of a resumed run"
grep -q '^20,9,9' halves/metrics.csv && fail "a line of a step that was not saved stayed"
[ ! -e halves/metrics.csv.tmp.1 ] || fail "a temporary file stays"
# from another run's checkpoint: the one that was here is over
cp -r run replaced
expect 0 "$bitbyte" train --resume plain/step-00000020.safetensors --out replaced --allow_overwrite --metrics_csv --threads 1
[ "$(sed -n 2p replaced/metrics.csv | cut -d , -f 1)" = 25 ] || fail "metrics.csv goes on with that of another run: $(cat replaced/metrics.csv)"
mkdir -p blocked/metrics.csv
expect 0 "${train[@]}" --out blocked --steps 2 --metrics_csv
says "warning: blocked/metrics.csv: cannot write"
[ -z "$(find blocked -name '*.tmp.*')" ] || fail "a failed metrics.csv leaves its temporary file"
events "$(find halves -name 'events.out.*' | sort | tail -n 1)" >seen
grep -qx '16 start 1' seen || fail "TensorBoard is not told where the run goes on"
expect 0 "${train[@]}" --out unused --sample_prompt x
complains "--sample_prompt has no effect: it requires --sample_every"

# ---- report
expect 0 "$bitbyte" report run plain --out report.html
says "report.html: 2 runs"
grep -qE '<script|https?://[^w]|src=|href=' report.html && fail "the page needs something outside it"
for word in "Training loss" "Validation, bits per byte" "Learning rate" "Gradient norm" "Bytes per second" "30 of 30" \
    'The &lt;b&gt;&amp;&quot;' 'blocks.1.mlp.down.weight' 'class="minus"'; do
    grep -qF -- "$word" report.html || fail "the page does not say: $word"
done
grep -qF '<b>&"' report.html && fail "a sample is not escaped"
grep -q 'NaN\|nan\|inf' report.html && fail "a coordinate is no number"
expect 0 "$bitbyte" report run plain --format svg --plot val_bpb --log_y --x time
cp out plot.svg
perl -0ne 'my @open; while (m{<(/?)([a-z]+)[^<>]*?(/?)>}g) { next if $3; if ($1) { pop(@open) eq $2 or die "tags\n" } else { push @open, $2 } } die "tags\n" if @open' plot.svg ||
    fail "the SVG's tags do not match"
[ "$(grep -o 'class="curve"' plot.svg | wc -l)" = 2 ] || fail "two curves"
grep -q 'var(' plot.svg && fail "the SVG has variables, which only browsers know"
if command -v rsvg-convert >/dev/null; then
    expect 0 "$bitbyte" report run plain --format png --plot val_bpb -o plot.png
    [ "$(head -c 4 plot.png | tail -c 3)" = PNG ] || fail "no PNG"
    "$bitbyte" report run plain --format png --plot val_bpb | cmp - plot.png || fail "standard output has another PNG"
    # in colours: programs other than browsers know less of CSS
    perl -MCompress::Zlib -0777 -ne 'my ($w, $h) = unpack "x16NN"; my ($at, $data) = (8, ""); while ($at < length) { my ($n, $kind) = unpack "x$at Na4"; $data .= substr $_, $at + 8, $n if $kind eq "IDAT"; $at += 12 + $n }
        my $rows = uncompress $data; my %seen; $seen{$_}++ for unpack "(a1)*", $rows; die "bytes of pixels: @{[scalar keys %seen]}\n" if keys %seen < 150' plot.png || fail "a PNG of few colours"
fi
PATH=/nonexistent "$bitbyte" report run --format png -o absent.png >out 2>err && fail "a PNG without rsvg-convert"
complains "librsvg2-bin"
compgen -G 'absent.png*' && fail "a PNG that could not be made leaves a file"
expect 0 "$bitbyte" report run --format csv --plot memory_mb --smooth 0
[ "$(awk -F, 'NR > 1 && $5 > 1' out | wc -l)" = 6 ] || fail "memory, in report --format csv: $(cat out)"
expect 0 "$bitbyte" report run --format csv --plot val_bpb --smooth 0
[ "$(cut -d , -f 1,2,3,5 out | sed 's/\.[0-9]*$//')" = "$(printf 'run,step,bytes,val_bpb\n"run",10,640,%s\n"run",20,1280,%s\n"run",30,1920,%s' \
    $(perl -MJSON::PP -ne '$v = decode_json($_)->{val_bpb}; print int($v), "\n" if $v' run/metrics.jsonl))" ] || fail "report --format csv: $(cat out)"
expect 1 "$bitbyte" report nothing
complains "nothing/metrics.jsonl: No such file"
expect 2 "$bitbyte" report run --out run/config.json
expect 2 "$bitbyte" report run --format pdf
complains "expected html, svg, png or csv"
expect 0 "$bitbyte" report run --format csv --log_y
complains "--log_y has no effect"

# what a broken or young run leaves
mkdir young odd
: >young/metrics.jsonl
printf '{"step":1,"loss":null,"bpb":null,"lr":0.1,"bytes":64,"bytes_per_s":0,"grad_norm":null,"skipped":1}\nnot JSON\n{"step":2,"loss":2' >odd/metrics.jsonl
for format in html svg csv; do expect 0 "$bitbyte" report young odd --format "$format" --log_y --out "odd.$format"; done
grep -q 'NaN\|nan\|inf' odd.html odd.svg && fail "a run without values has a coordinate that is no number"
echo "passed"
