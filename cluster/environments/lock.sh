#!/usr/bin/env bash
# Writes the hashed requirement locks from pyproject.toml. No index lines: a lock installs from whatever index the machine uses.
set -euo pipefail
cd "$(dirname "$0")/../.."
uv=${UV:-.venv/bin/uv}
for device in cpu gpu; do
    "$uv" pip compile pyproject.toml --extra "$device" --extra dev --universal --python-version 3.11 \
        --overrides cluster/environments/overrides.txt --generate-hashes --no-header --no-annotate \
        --quiet --output-file "cluster/environments/$device.txt"
done
for name in contest contest-gpu; do
    "$uv" pip compile "cluster/environments/$name.in" --universal --python-version 3.11 \
        --overrides cluster/environments/contest-overrides.txt --generate-hashes --no-header --no-annotate \
        --quiet --output-file "cluster/environments/$name.txt"
done
