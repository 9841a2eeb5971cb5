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
# What the main environment lacks: of what it holds, nothing is installed anew, whichever of its two locks it has.
held=$(comm -12 <(grep -oE '^[a-z0-9.-]+' cluster/environments/cpu.txt | sort -u) \
    <(grep -oE '^[a-z0-9.-]+' cluster/environments/gpu.txt | sort -u))
for cloud in aws gcp; do
    "$uv" pip compile "cluster/environments/$cloud.in" --universal --python-version 3.11 \
        --constraints cluster/environments/cpu.txt --overrides cluster/environments/overrides.txt \
        $(printf -- '--no-emit-package %s ' $held) \
        --generate-hashes --no-header --no-annotate --quiet --output-file "cluster/environments/$cloud.txt"
done
