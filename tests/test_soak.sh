#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# One minute of `make soak`, with a different seed each day.
exec bash "$(dirname "$0")/soak.sh" "$1" 60 $((10#$(date +%j)))
