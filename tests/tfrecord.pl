# SPDX-License-Identifier: MIT
# Reads TensorBoard event files without TensorBoard: checks each record's length and CRC-32C, decodes the fields that bitbyte writes, and
# prints a line for each event: STEP KIND TAG VALUE. perl tfrecord.pl FILE…
use strict;
use warnings;

sub crc32c { # bit by bit, reflected polynomial 0x82F63B78
    my $crc = 0xFFFFFFFF;
    for my $byte (unpack 'C*', $_[0]) {
        $crc ^= $byte;
        $crc = $crc & 1 ? $crc >> 1 ^ 0x82F63B78 : $crc >> 1 for 1 .. 8;
    }
    return $crc ^ 0xFFFFFFFF;
}
sub masked { my $crc = crc32c($_[0]); return (($crc >> 15 | $crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF }
die "CRC-32C of '123456789'\n" unless crc32c('123456789') == 0xE3069283;

sub varint {
    my ($data, $at) = @_;
    my ($value, $shift) = (0, 0);
    while (1) {
        my $byte = ord substr $$data, $$at++, 1;
        $value |= ($byte & 0x7F) << $shift;
        return $value if $byte < 0x80;
        $shift += 7;
    }
}
sub fields { # message -> list of [number, value]
    my ($data) = @_;
    my ($at, @fields) = (0);
    while ($at < length $data) {
        my $key = varint(\$data, \$at);
        my ($number, $type) = ($key >> 3, $key & 7);
        my $value;
        if ($type == 0) { $value = varint(\$data, \$at) }
        elsif ($type == 1) { $value = unpack 'd<', substr $data, $at, 8; $at += 8 }
        elsif ($type == 5) { $value = unpack 'f<', substr $data, $at, 4; $at += 4 }
        elsif ($type == 2) { my $size = varint(\$data, \$at); die "a field ends after its message\n" if $at + $size > length $data;
            $value = substr $data, $at, $size; $at += $size }
        else { die "wire type $type\n" }
        push @fields, [$number, $value];
    }
    return @fields;
}
sub field { my ($message, $number) = @_; for (fields($message)) { return $_->[1] if $_->[0] == $number } return undef }

for my $path (@ARGV) {
    open my $file, '<:raw', $path or die "$path: $!\n";
    local $/;
    my $data = <$file>;
    my $at = 0;
    while ($at < length $data) {
        my ($length, $head) = unpack 'Q<L<', substr $data, $at, 12;
        my $event = substr $data, $at + 12, $length;
        die "$path: byte $at: CRC of the length\n" unless $head == masked(substr $data, $at, 8);
        die "$path: byte $at: CRC of the record\n" unless unpack('L<', substr $data, $at + 12 + $length, 4) == masked($event);
        $at += 16 + $length;
        die "$path: no time\n" unless field($event, 1) > 1e9;
        my $step = field($event, 2) // 0;
        print "$step version ", field($event, 3), "\n" if defined field($event, 3);
        print "$step start ", field(field($event, 7), 1), "\n" if defined field($event, 7);
        my $summary = field($event, 5) // next;
        my $value = field($summary, 1);
        my $tag = field($value, 1);
        if (defined field($value, 2)) { printf "%d scalar %s %.9g\n", $step, $tag, field($value, 2) }
        elsif (my $histogram = field($value, 5)) {
            my $counts = 0;
            $counts += $_ for unpack 'd<*', field($histogram, 7);
            die "$path: $tag: buckets\n" unless length(field($histogram, 6)) == length(field($histogram, 7));
            die "$path: $tag: $counts in buckets\n" unless $counts == field($histogram, 3);
            printf "%d histogram %s %d\n", $step, $tag, field($histogram, 3);
        } elsif (my $tensor = field($value, 8)) {
            my $text = field($tensor, 8);
            $text =~ s/[\x00-\x1f]/ /g;
            print "$step text $tag $text\n";
        } else {
            my $info = field(field(field(field($value, 9), 1), 2), 3);
            for (fields($info)) {
                next unless $_->[0] == 1;
                my ($key, $option) = (field($_->[1], 1), (fields(field($_->[1], 2)))[0][1]);
                print "$step hparam $key $option\n";
            }
        }
    }
}
