#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Two minutes of `make soak`, with a different seed each day.
exec bash "$(dirname "$0")/soak.sh" "$1" 120 $((10#$(date +%j)))
