#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The picture in the README is the output of scripts/picture for the recorded output.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/picture docs/demo.txt | cmp - docs/demo.svg || {
    echo "test_picture: docs/demo.svg is out of date: scripts/picture docs/demo.txt >docs/demo.svg" >&2
    exit 1
}
