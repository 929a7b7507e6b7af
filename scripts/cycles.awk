# SPDX-License-Identifier: MIT
# Prints the cycles among files of a room: awk -f cycles.awk FILES. For scripts/check-layers.
#
# A unit is foo.c with foo.h. It uses another one when it includes its header, or names a function or table that the other's .c file
# defines, whichever header declares it: six files around one header are as much a cycle as two headers that include each other.
# For each cycle: a line "cycle ROOM UNIT UNIT …", then lines "  UNIT uses UNIT: WHAT", one round of it.
function unit_of(path) { sub(/\.[^.\/]*$/, "", path); return path }
function room_of(unit, part, n) { n = split(unit, part, "/"); return part[1] != "src" ? part[1] : part[2] == "ops" && n > 3 ? "ops/" part[3] : part[2] }
function base(unit) { sub(/.*\//, "", unit); return unit }
function add(from, to, what) {
    if (from == to || room_of(from) != room_of(to) || (from, to) in why) return
    why[from, to] = what
    targets[from] = targets[from] " " to
}
# The shortest way from `start` back to it, printed edge by edge.
function print_round(start, queue, count, at, parts, n, i, came, path, steps) {
    queue[count = 1] = start
    for (at = 1; at <= count; at++) {
        n = split(targets[queue[at]], parts, " ")
        for (i = 1; i <= n; i++) {
            if (!(parts[i] in came)) { came[parts[i]] = queue[at]; queue[++count] = parts[i] }
            if (parts[i] != start) continue
            for (path[steps = 1] = start; steps == 1 || path[steps] != start; steps++) path[steps + 1] = came[path[steps]]
            for (; steps > 1; steps--)
                printf "  %s uses %s: %s\n", base(path[steps]), base(path[steps - 1]), why[path[steps], path[steps - 1]]
            return
        }
    }
}
FNR == 1 {
    unit = unit_of(FILENAME); header = FILENAME ~ /\.h$/; comment = 0; pending = ""
    files[FILENAME] = 1
    if (!(unit in seen)) { seen[unit] = 1; units[++unit_count] = unit }
}
{
    line = $0
    if (match(line, /^[ \t]*#[ \t]*include[ \t]*"[^"]+"/)) {
        sub(/^[^"]*"/, "", line); sub(/".*/, "", line)
        includer[++include_count] = FILENAME; included[include_count] = line
        next
    }
    if (comment) { if (!match(line, /\*\//)) next; line = substr(line, RSTART + 2); comment = 0 }
    while (match(line, /\/\*/)) {
        before = substr(line, 1, RSTART - 1); rest = substr(line, RSTART + 2)
        comment = !match(rest, /\*\//)
        line = before (comment ? "" : " " substr(rest, RSTART + 2))
    }
    sub(/\/\/.*/, "", line)
    if (header) next
    # A definition begins in the first column and comes to a "{" before any ";".
    if (pending == "" && line ~ /^[A-Za-z_]/ && line !~ /^(static|typedef|extern|struct|enum|union)[^A-Za-z0-9_]/) {
        rest = line
        while (pending == "" && match(rest, /bb_[A-Za-z0-9_]+/)) {
            name = substr(rest, RSTART, RLENGTH); rest = substr(rest, RSTART + RLENGTH)
            if (rest ~ /^\(/ || rest ~ /^(\[[^]]*\])* *=/) pending = name
        }
    }
    if (pending != "" && match(line, /[;{]/)) {
        if (substr(line, RSTART, 1) == "{" && !(pending in defined_by)) defined_by[pending] = unit
        pending = ""
    }
    for (rest = line; match(rest, /bb_[A-Za-z0-9_]+/); rest = substr(rest, RSTART + RLENGTH)) {
        name = substr(rest, RSTART, RLENGTH)
        if (!((unit, name) in named)) { named[unit, name] = 1; name_unit[++name_count] = unit; name_text[name_count] = name }
    }
}
END {
    for (i = 1; i <= include_count; i++) {
        directory = includer[i]; sub(/[^\/]*$/, "", directory)
        target = (directory included[i]) in files ? directory included[i] : "src/" included[i]
        if (target in files) add(unit_of(includer[i]), unit_of(target), included[i])
    }
    for (i = 1; i <= name_count; i++) if (name_text[i] in defined_by) add(name_unit[i], defined_by[name_text[i]], name_text[i])
    for (i = 1; i <= unit_count; i++) { # what each unit reaches
        count = split(targets[units[i]], queue, " ")
        for (at = 1; at <= count; at++) {
            if ((units[i], queue[at]) in reaches) continue
            reaches[units[i], queue[at]] = 1
            more = split(targets[queue[at]], parts, " ")
            for (j = 1; j <= more; j++) queue[++count] = parts[j]
        }
    }
    for (i = 1; i <= unit_count; i++) {
        if (!((units[i], units[i]) in reaches) || units[i] in printed) continue
        text = base(units[i])
        for (j = i + 1; j <= unit_count; j++)
            if ((units[i], units[j]) in reaches && (units[j], units[i]) in reaches) { text = text " " base(units[j]); printed[units[j]] = 1 }
        print "cycle " room_of(units[i]) " " text
        print_round(units[i])
    }
}
