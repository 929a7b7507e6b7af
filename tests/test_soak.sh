#!/usr/bin/env bash
# Two minutes of `make soak`, with another seed each day.
# SPDX-License-Identifier: MIT
exec bash "$(dirname "$0")/soak.sh" "$1" 120 $((10#$(date +%j)))
