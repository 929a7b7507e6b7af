#!/usr/bin/env bash
# tests/soak.sh, for less than a minute.
# SPDX-License-Identifier: MIT
exec bash "$(dirname "${BASH_SOURCE[0]}")/soak.sh" "$1" "${BB_SOAK_SECONDS:-20}"
