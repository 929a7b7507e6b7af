#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares ways to train: runs every variant of a configuration file with every seed on every text, scores each model on the text's
held-out part, and prints a table with standard errors. Needs only Python's standard library.

  bench/learning/texts.py texts                                         # makes the texts, once
  bench/learning/experiments.py bench/learning/optimizer.json --texts texts --out results --threads 2
  bench/learning/experiments.py bench/learning/optimizer.json --texts texts --out results --table      # what there is so far

A configuration is JSON:

  {"about":    "what the question is",
   "texts":    ["kjv", "python"],                     files NAME.train and NAME.held_out in the folder of --texts
   "seeds":    [1, 2, 3],
   "options":  "--steps 600 --n_layer 4 --lr 3e-3",   options of bitbyte train that all variants have
   "variants": {"cosine": "", "constant": "--lr_schedule constant"}}

A variant is its name and more options; they win over the common ones. The first variant is what the others are compared with: the
table's difference is the mean, over seeds and texts, of this variant's held-out bits per byte less those of the first one with the same
seed and text, ± its standard error. Two standard errors or more are worth a claim.

--equal bytes   every run has the steps that its options say. Where a variant has another batch, give it other steps: the table
                says so where bytes are not equal.
--equal time    every variant has as many steps as fit in the time of the first one's (or in "seconds" of the configuration):
                its speed is measured by short runs, the variants in turns, and kept with the results.

OUT/results.jsonl has a line for each finished run, under a key made of its options, seed and text. What is there is not run again,
whatever asked for it: several configurations may share an OUT, and so do both kinds of equality. Ctrl-C (or SIGTERM) saves the runs in
progress and leaves; the same command goes on from there, also after a crash. A run that fails is reported and the others go on; its
output is in OUT/KEY.log, and --retry runs it again.
"""

import argparse
import concurrent.futures
import fcntl
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from common import BITBYTE, ended
from plan import Configuration, Wrong, digest, key_of, to_words
from summary import report

STOPPED_STATUSES = {128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}  # saved, and to be resumed
TRIAL_TURNS = 3
TRIAL_WARM_UP = 5  # steps of a trial that don't count


class Results:
    """results.jsonl: lines with a key each; of two with the same key the later one counts. Lines may be added by several threads."""

    def __init__(self, path):
        self.path, self.lines, self.lock = path, {}, threading.Lock()
        text = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                text = file.read()
        self.torn = bool(text) and not text.endswith("\n")
        for number, line in enumerate(text.splitlines(), 1):
            try:
                found = json.loads(line)
                self.lines[found["key"]] = found
            except (ValueError, TypeError, KeyError):
                # the end of a line that a crash cut off: its run is not finished
                print(f"{path}:{number}: no result, passed over", file=sys.stderr)

    def get(self, key):
        return self.lines.get(key)

    def add(self, line):
        with self.lock, open(self.path, "a", encoding="utf-8") as file:
            file.write(("\n" if self.torn else "") + json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
            self.torn = False
            self.lines[line["key"]] = line


class Failure(Exception):
    pass


class Stopped(Exception):
    pass


class Children:
    """The programs that run. The first signal asks them to save and end, a second one ends them at once."""

    def __init__(self):
        self.running, self.lock, self.stopping = set(), threading.Lock(), 0
        self.ended = False  # a program was stopped: no other begins, even if no signal has reached us yet

    def on_signal(self, *_):
        self.stopping += 1
        if self.stopping == 1:
            print("\nstopping: runs in progress are saved (again: end them at once)", file=sys.stderr, flush=True)
        for process in list(self.running):  # no lock: its holder may be what the signal interrupted
            process.send_signal(signal.SIGINT if self.stopping == 1 else signal.SIGKILL)

    def run(self, command, events, errors):
        """Its exit status. A session of its own: a terminal's Ctrl-C comes to us alone."""
        with self.lock:
            if self.stopping or self.ended:
                raise Stopped
            try:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=events, stderr=errors, start_new_session=True)
            except OSError as error:
                raise Failure(f"{command[0]}: {error.strerror}") from error
            self.running.add(process)
        if self.stopping:  # a signal between the two
            process.send_signal(signal.SIGINT)
        status = process.wait()
        self.running.discard(process)
        if status in STOPPED_STATUSES or (self.stopping and status != 0):
            self.ended = True
            raise Stopped
        return status


def read_events(path):
    """The events of a run, of all programs that worked on it; a line that a crash cut off is left out."""
    events = []
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    events.append(json.loads(line))
                except ValueError:
                    pass
    return events


def steps_that_count(events):
    """The step events that led to the result, and the seconds of them all: what was computed after the last save before a crash
    was computed again, and counts once."""
    parts = []
    for event in events:
        if event.get("event") == "start":
            parts.append((event["step"], []))
        elif event.get("event") == "step" and parts:
            parts[-1][1].append(event)
    steps, seconds, end = [], 0.0, None
    for start, mine in reversed(parts):
        mine = [e for e in mine if end is None or e["step"] <= end]
        if mine:
            steps = mine + steps
            seconds += mine[-1]["elapsed_s"]
        end = start
    return steps, seconds


def result_of(events):
    """What a finished run has to say; None of one that is not."""
    if not any(e.get("event") == "done" for e in events):
        return None
    scores = [e["val_bpb"] for e in events if e.get("event") == "validation" and e["step"] == e.get("total_steps", e["step"])]
    steps, seconds = steps_that_count(events)
    if not scores or not steps:
        raise Failure("no score on the held-out part, or no steps")
    last = steps[-1]
    tenth = [e["bpb"] for e in steps if e["step"] > last["total_steps"] * 0.9 and e["bpb"] is not None]
    return {"bpb": scores[-1], "train_bpb": sum(tenth) / len(tenth) if tenth else None, "steps": last["step"], "bytes": last["bytes"],
            "seconds": round(seconds, 3), "bytes_per_s": round(last["bytes"] / max(seconds, 1e-9))}  # fmt: skip


def why_it_failed(status, log):
    """By the program's own message, where there is one."""
    with open(log, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    own = [line for line in lines if line.startswith("bitbyte ")] or lines
    return f"{ended(status)}: {own[-1][-400:] if own else 'no message'}"


class Laboratory:
    def __init__(self, args, results):
        self.args, self.results, self.children = args, results, Children()
        self.program = digest(args.bitbyte)[:12]

    def path(self, name):
        return os.path.join(self.args.out, name)

    def command(self, run):
        fresh = ["--data", run.text.train, "--val_data", run.text.held_out, "--val_every", "0", "--val_batches", "0"]
        fresh += ["--save_every", "0", "--save_minutes", "5", "--keep", "1", "--log_every", "0", "--seed", str(run.seed)]
        fresh += to_words(run.options) + ["--out", self.path(run.key)]
        return [self.args.bitbyte, "train"] + fresh + self.how()

    def how(self):
        return ["--json", "--threads", str(self.args.threads)]

    def wait_for_orphan(self, folder, run):
        """Where an earlier experiments.py was killed, its `bitbyte train` may still be at it, and holds the folder's lock."""
        said = False
        while not self.children.stopping:
            try:
                held = os.open(folder, os.O_RDONLY)
            except FileNotFoundError:
                return
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if not said:
                    print(f"{run.title}: waiting for the training that an earlier call left behind in {folder}", file=sys.stderr, flush=True)
                said = True
                time.sleep(0.2)
            finally:
                os.close(held)
        raise Stopped

    def train(self, run):
        """Begins it, or goes on with it, and adds its line to the results."""
        folder, events, log = self.path(run.key), self.path(run.key + ".events"), self.path(run.key + ".log")
        about = {"key": run.key, "variant": run.variant, "text": run.text.name, "seed": run.seed, "options": shlex.join(to_words(run.options)),
                 "program": self.program, "threads": self.args.threads, "jobs": self.args.jobs}  # fmt: skip
        self.wait_for_orphan(folder, run)
        try:
            found = result_of(read_events(events))  # finished, but the line was not written any more
            if found is None:
                command = self.command(run)
                if os.path.isdir(folder) and any(name.startswith("step-") for name in os.listdir(folder)):
                    data = ["--data", run.text.train, "--val_data", run.text.held_out]
                    command = [self.args.bitbyte, "train", "--resume", folder] + data + self.how()
                else:  # killed before its first save: from the beginning
                    shutil.rmtree(folder, ignore_errors=True)
                    if os.path.exists(events):
                        os.remove(events)
                with open(events, "a", encoding="utf-8") as output, open(log, "w", encoding="utf-8") as errors:
                    status = self.children.run(command, output, errors)
                if status != 0:
                    raise Failure(why_it_failed(status, log))
                found = result_of(read_events(events))
                if found is None:
                    raise Failure("it ended well, but did not finish")
            line = {**about, **found}
        except Failure as failure:
            line = {**about, "failed": str(failure)}
        self.results.add(line)
        shutil.rmtree(folder, ignore_errors=True)
        for path in [events] if "failed" in line else [events, log]:
            if os.path.exists(path):
                os.remove(path)
        return line

    def speed_key(self, options, text):
        options = {name: value for name, value in options.items() if name != "steps"}
        return key_of({"speed": options, "text": text.digests, "threads": self.args.threads, "jobs": self.args.jobs})

    def trial(self, name, options, text):
        """Seconds a step: the median of a short run's steps."""
        folder, events, log = (self.path(f"trial.{kind}") for kind in ("run", "events", "log"))
        shutil.rmtree(folder, ignore_errors=True)
        words = to_words({**options, "steps": str(TRIAL_WARM_UP + self.args.trial_steps)})
        command = [self.args.bitbyte, "train", "--data", text.train, "--log_every", "0", *words, "--out", folder, "--seed", "1", *self.how()]
        with open(events, "w", encoding="utf-8") as output, open(log, "w", encoding="utf-8") as errors:
            status = self.children.run(command, output, errors)
        if status != 0:
            raise Failure(f"measuring its speed: {why_it_failed(status, log)}")
        times = [e["elapsed_s"] for e in read_events(events) if e.get("event") == "step"]
        for path in (events, log):
            os.remove(path)
        shutil.rmtree(folder, ignore_errors=True)
        if len(times) <= TRIAL_WARM_UP:
            raise Failure(f"measuring its speed: {len(times)} steps; expected more than {TRIAL_WARM_UP}")
        return statistics.median(b - a for a, b in zip(times[TRIAL_WARM_UP - 1 :], times[TRIAL_WARM_UP:]))

    def measure_speeds(self, config, text):
        """Those that are not in the results yet, the variants in turns, so that a slow minute of the machine is everybody's."""
        missing = {}
        for name, options in config.variants.items():
            line = self.speed_of(options, text)
            if line is None or self.args.remeasure or (self.args.retry and "failed" in line):
                missing[name] = options
        found, failed = {name: [] for name in missing}, {}
        for turn in range(TRIAL_TURNS):
            for name, options in missing.items():
                if name in failed:
                    continue
                print(f"measuring speeds, turn {turn + 1} of {TRIAL_TURNS}: {name}", file=sys.stderr, flush=True)
                try:
                    found[name].append(self.trial(name, options, text))
                except Failure as failure:
                    failed[name] = str(failure)
        for name, options in missing.items():
            line = {"key": self.speed_key(options, text), "speed_of": name, "text": text.name, "program": self.program}
            line.update({"failed": failed[name]} if name in failed else {"seconds_per_step": statistics.median(found[name])})
            self.results.add(line)

    def speed_of(self, options, text):
        return self.results.get(self.speed_key(options, text))

    def equal_time(self, config, texts):
        """Steps of each variant, None where its speed is not known, and what failed."""
        lines = {name: self.speed_of(options, texts[0]) for name, options in config.variants.items()}
        speeds = {name: line["seconds_per_step"] for name, line in lines.items() if line and "failed" not in line}
        failures = [(name, line["failed"]) for name, line in lines.items() if line and "failed" in line]
        seconds = config.seconds
        if seconds is None and config.first in speeds:
            seconds = speeds[config.first] * int(config.variants[config.first]["steps"])
        steps = {name: max(1, round(seconds / speeds[name])) if seconds and name in speeds else None for name in config.variants}
        return steps, failures

    def finished(self, run):
        line = self.results.get(run.key)
        if line is None or (self.args.again and line["program"] != self.program) or (self.args.retry and "failed" in line):
            return None
        return line

    def run_all(self, runs):
        """Each key once. False where it was stopped before the end."""
        left = list({run.key: run for run in runs if self.finished(run) is None}.values())
        begin, done = time.monotonic(), 0
        with concurrent.futures.ThreadPoolExecutor(self.args.jobs) as pool:
            pending = {pool.submit(self.train, run): run for run in left}
            try:
                for future in concurrent.futures.as_completed(pending):
                    line, done = future.result(), done + 1
                    what = f"failed: {line['failed']}" if "failed" in line else f"{line['bpb']:.4f} bits per byte, {line['seconds']:.0f} s"
                    minutes = (time.monotonic() - begin) / done * (len(left) - done) / 60
                    print(f"[{done}/{len(left)}, {minutes:.0f} min left] {pending[future].title}: {what}", file=sys.stderr, flush=True)
            except Stopped:
                if not self.children.stopping:  # somebody stopped the program, not us
                    self.children.on_signal()
                return False
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        return True


def chosen(values, wanted, what, path):
    for value in wanted or []:
        if value not in values:
            raise Wrong(f"{path}: {what}: expected one of {', '.join(map(str, values))}, found '{value}'")
    return [value for value in values if not wanted or value in wanted]


def show_plan(laboratory, runs, config, steps):
    unknown = [name for name in config.variants if steps is not None and steps[name] is None]
    todo = 0
    for run in runs:
        line = laboratory.finished(run)
        state = "to do" if line is None else "failed" if "failed" in line else "finished"
        todo += line is None
        print(f"{state:9}{run.key}  {run.title}\n         {shlex.join(laboratory.command(run))}")
    if unknown:
        print(f"steps are not known before speeds are measured: {', '.join(unknown)}")
    print(f"{len(runs)} runs, {todo} to do")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="the configuration file")
    parser.add_argument("--texts", required=True, metavar="DIR", help="folder of the texts, which bench/learning/texts.py makes")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder of results.jsonl and of runs in progress")
    parser.add_argument("--equal", choices=["bytes", "time"], default="bytes", help="what all variants get the same of (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of each run (default %(default)s); they change speed, not results")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (default %(default)s); more disturb each other's times")
    parser.add_argument("--only", action="append", metavar="VARIANT", help="run this variant alone; may be repeated. The table has all")
    parser.add_argument("--text", action="append", help="this text of the configuration alone; may be repeated")
    parser.add_argument("--seed", action="append", type=int, help="this seed of the configuration alone; may be repeated")
    parser.add_argument("--dry-run", "--dry_run", action="store_true", help="show the runs and their commands, and run nothing")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and run nothing")
    parser.add_argument("--retry", action="store_true", help="run again what failed")
    parser.add_argument("--again", action="store_true", help="run again what another build of the program has computed")
    parser.add_argument("--remeasure", action="store_true", help="with --equal time: measure speeds again, e.g. on a machine at rest")
    parser.add_argument("--trial_steps", type=int, default=40, metavar="N", help="of a speed's measurement (default %(default)s)")
    parser.add_argument("--bitbyte", default=BITBYTE, help="the program (default build/bitbyte)")
    args = parser.parse_args()
    for name in ("threads", "jobs", "trial_steps"):
        if getattr(args, name) < 1:
            parser.error(f"--{name}: expected at least 1, found {getattr(args, name)}")
    if "/" in args.bitbyte:
        args.bitbyte = os.path.abspath(args.bitbyte)
    return args


def work(args):
    config = Configuration(args.config)
    config.texts = chosen(config.texts, args.text, "texts", args.config)
    config.seeds = chosen(config.seeds, args.seed, "seeds", args.config)
    wanted = chosen(list(config.variants), args.only, "variants", args.config)
    texts = config.open_texts(args.texts)
    os.makedirs(args.out, exist_ok=True)
    running = not (args.dry_run or args.table)
    lock = os.open(args.out, os.O_RDONLY)
    if running:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Wrong(f"{args.out}: another experiments.py runs in this folder; --table prints what it has so far") from None
    laboratory = Laboratory(args, Results(os.path.join(args.out, "results.jsonl")))
    if running:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, laboratory.children.on_signal)
    steps, failures, whole = None, [], True
    if args.equal == "time":
        if running:
            try:
                laboratory.measure_speeds(config, texts[0])
            except Stopped:
                return 130
        steps, failures = laboratory.equal_time(config, texts)
    runs = config.runs(texts, steps)
    if args.dry_run:
        show_plan(laboratory, [run for run in runs if run.variant in wanted], config, steps)
        return 0
    if running:
        whole = laboratory.run_all([run for run in runs if run.variant in wanted])
    found = []
    for run in runs:
        line = laboratory.results.get(run.key)
        if line and "failed" in line:
            failures.append((run.title, line["failed"]))
        elif line:
            found.append({**line, "variant": run.variant, "text": run.text.name})
    print(report(found, failures, config, texts, args.equal, laboratory.program))
    if not whole:
        print("stopped: the same command goes on from here", file=sys.stderr)
        return 130
    return 1 if failures else 0


def main():
    try:
        sys.exit(work(parse_arguments()))
    except Wrong as wrong:
        sys.exit(f"experiments.py: {wrong}")


if __name__ == "__main__":
    main()
