#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# docs/FORMAT.md and the files agree: each key and tensor in a file is on the page, each on the page is in a file, and what the page
# says is always present is in every file.
set -uo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$(dirname "${BASH_SOURCE[0]}")/program_helpers.sh"

# Files with every key: a pack with validation data, a skipped input and a file that is left out; checkpoints of each optimizer; a packed file; a run of
# two ranks.
mkdir folder
printf 'no text' >folder/a.bin
expect 0 "$bitbyte" pack text.txt missing.txt folder --out_dir data --val_frac 0.3
train=("$bitbyte" train --data data --val_data data/val_00000.bin --val_every 2 --log_every 1 --steps 2 "${tiny[@]}")
expect 0 "${train[@]}" --out runs/adamw8bit --d_model 64 --optim adamw8bit
expect 0 "${train[@]}" --out runs/muon --sample_every 1
expect 0 "${train[@]}" --out runs/plus --arch plus --ngram_bits 6
expect 0 "${train[@]}" --out runs/dense --dense
expect 0 "${train[@]}" --out runs/adamw --optim adamw --spike_skip 6 --patience 2
expect 0 "$bitbyte" export runs/adamw8bit --out packed.safetensors --chat_template '{role}: {content};'
ranks=missing
if ("$bitbyte" train --ddp --data missing 2>&1 || true) | grep -qF "without MPI" || ! command -v mpirun >/dev/null; then
    echo "without MPI: the keys of several ranks are not checked"
else
    ranks=runs/ranks
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    expect 0 env ASAN_OPTIONS=detect_leaks=0 mpirun --oversubscribe --bind-to none -np 2 "${train[@]}" --ddp --out $ranks
fi
"$bitbyte" help train >help.txt || fail "bitbyte help train"

cat >check.pl <<'PERL'
use strict; use warnings; use JSON::PP;
my ($page, $ranks) = @ARGV;
my $bad = 0;
sub complain { print STDERR "@_\n"; $bad = 1 }
sub slurp { my ($path) = @_; open my $f, '<', $path or die "$path: $!\n"; local $/; <$f> }

# The tables of the page, by the heading that they stand under: the rows' names, and what the column `present` says.
my (%tables, $heading, @columns);
for (split /\n/, slurp($page)) {
    if (/^#+ (.*)/) { ($heading = $1) =~ s/`//g; @columns = () }
    elsif (!/^\|/) { @columns = () }
    elsif (/^\|[-|]+$/) { next }
    else {
        my @cells = map { s/^\s+|\s+$//gr } split /\|/, s/^\|//r;
        if (!@columns) { @columns = @cells; next }
        my %row; @row{@columns} = @cells;
        $tables{$heading}{$_} = $row{present} // $row{required} // '' for $cells[0] =~ /`([^`]+)`/g;
    }
}

# keys OBJECT: its keys and those below: a.b, and a[].b in arrays of objects.
sub keys_of {
    my ($v, $prefix, $found) = @_;
    if (ref $v eq 'HASH') {
        for (keys %$v) { my $key = $prefix eq '' ? $_ : "$prefix.$_"; $found->{$key}++; keys_of($v->{$_}, $key, $found) }
    } elsif (ref $v eq 'ARRAY') { keys_of($_, "${prefix}[]", $found) for @$v }
    return $found;
}
# A name on the page as a pattern: {i} is a number, NAME a tensor's name, a final .* any key.
sub pattern {
    my $p = quotemeta $_[0];
    $p =~ s/\\\{i\\\}/\\d+/g; $p =~ s/NAME/[a-z][\\w.]*/; $p =~ s/\\\.\\\*$/\\.[^.]+/;
    return qr/^$p$/;
}
# compare HEADING, [FILE, {key: 1}]…: the table and the files' keys, both ways; what is always present is in each file.
sub compare {
    my ($heading, @files) = @_;
    my $table = $tables{$heading};
    return complain("FORMAT.md has no table under '$heading'") unless $table && %$table;
    my %patterns = map { $_ => pattern($_) } keys %$table;
    my %seen;
    for (@files) {
        my ($file, $keys) = @$_;
        for my $key (sort keys %$keys) {
            my @rows = grep { $key =~ $patterns{$_} } keys %patterns;
            complain("$file: '$key' is not in FORMAT.md under '$heading'") unless @rows;
            $seen{$_} = 1 for @rows;
        }
        for my $row (sort keys %$table) {
            next unless $table->{$row} =~ /^(always|yes)/ && $row !~ /\[\]/;
            complain("$file: '$row' is missing, and FORMAT.md has it as always present under '$heading'")
                unless grep { $_ =~ $patterns{$row} } keys %$keys;
        }
    }
    for my $row (sort keys %$table) {
        next if $seen{$row} || ($table->{$row} =~ /several ranks/ && !-d $ranks);
        next if $table->{$row} =~ /fp16/; # of cards: tests/cuda/program.sh
        complain("FORMAT.md has '$row' under '$heading', and no file has it");
    }
}
sub header {
    my ($path) = @_;
    open my $f, '<:raw', $path or die "$path: $!\n";
    read $f, my $size, 8; read $f, my $text, unpack 'Q<', $size;
    my $header = decode_json($text);
    return (delete $header->{__metadata__}, $header);
}

my @runs = grep { -d } 'runs/adamw8bit', 'runs/adamw', 'runs/muon', 'runs/plus', 'runs/dense', $ranks;
my (@metadata, @configuration, @state, @data, @results, @plain, @moments, @run_config, @metrics, @options);
for my $path ((map { sort glob "$_/step-*.safetensors" } @runs), 'packed.safetensors') {
    my ($meta, $tensors) = header($path);
    push @metadata, [$path, keys_of($meta, '', {})];
    push @configuration, [$path, keys_of(decode_json($meta->{config}), '', {})];
    push @state, [$path, keys_of(decode_json($meta->{training_state}), '', {})] if $meta->{training_state};
    push @data, [$path, keys_of(decode_json($meta->{data}), '', {})] if $meta->{data};
    push @results, keys %{decode_json($meta->{run_config})} if $meta->{run_config};
    my %model = map { $_ => 1 } grep { !/^opt\./ } keys %$tensors;
    my %optimizer = map { $_ => 1 } grep { /^opt\./ } keys %$tensors;
    delete @model{grep { /_scale$/ } keys %model} if $path =~ /^packed/;
    push @plain, [$path, \%model];
    push @moments, [$path, \%optimizer] if %optimizer;
}
compare('Metadata', @metadata);
compare('Configuration', @configuration);
compare('training_state', @state);
compare('data', @data);
compare('Tensors', @plain);
compare('Optimizer tensors', @moments);
complain("no checkpoint has a run_config") unless @results;
for my $key (@results) { complain("run_config: '$key' is not an option of train") unless slurp('help.txt') =~ /^  --$key\b/m }
for my $run (@runs) {
    my $keys = keys_of(decode_json(slurp("$run/config.json")), '', {});
    my %options = map { $_ => 1 } slurp('help.txt') =~ /^  (?:-\w, )?--([a-z_]\w*)/mg;
    for (sort keys %options) { complain("$run/config.json: the option '$_' is missing") unless $_ eq 'help' || delete $keys->{$_} }
    push @run_config, ["$run/config.json", $keys];
    my $n = 0;
    push @metrics, map { ["$run/metrics.jsonl:" . ++$n, keys_of(decode_json($_), '', {})] } split /\n/, slurp("$run/metrics.jsonl");
}
compare('config.json', @run_config);
compare('metrics.jsonl', @metrics);
# A line has every key of its kind.
for (@metrics) {
    my ($line, $keys) = @$_;
    my $kind = $keys->{sample} ? 'sample' : $keys->{val_bpb} ? 'validation' : 'logged step';
    for my $row (keys %{$tables{'metrics.jsonl'}}) {
        my $present = $tables{'metrics.jsonl'}{$row};
        next unless $present =~ /^$kind/ && ($present !~ /several ranks/ || $line =~ /^\Q$ranks\E/);
        next if $present =~ /fp16/;
        next if $present =~ /--patience/ && $line !~ m{^runs/adamw/};
        complain("$line: '$row' is missing") unless $keys->{$row};
    }
}
compare('manifest.json', ['data/manifest.json', keys_of(decode_json(slurp('data/manifest.json')), '', {})]);
my $rows = 0; $rows += keys %$_ for values %tables;
print "$rows names on the page\n";
exit $bad;
PERL
perl check.pl "$source_dir/docs/FORMAT.md" $ranks 2>err || fail "docs/FORMAT.md and the files differ"
# The check itself: a key taken off the page, and one that no file has.
for change in 's/^\| `skipped_in_a_row`.*\n//m' 's/^\| `wait_share`.*\n//m' 's/^\| `duplicates`.*\n//m' 's/^\| `opt\.m8\.NAME`/| `opt.m7.NAME`/m' \
    's/^(\| `samples`)/| `seed` | integer | always | x |\n$1/m' 's/^(\| `val_bytes`)/| `tes_bytes` | integer | sometimes | x |\n$1/m'; do
    [ "$change $ranks" = 's/^\| `wait_share`.*\n//m missing' ] && continue
    perl -0pe "$change" "$source_dir/docs/FORMAT.md" >changed.md
    cmp -s changed.md "$source_dir/docs/FORMAT.md" && fail "the page has nothing that $change changes"
    perl check.pl changed.md $ranks >/dev/null 2>err && fail "the check does not see $change"
done
exit 0
