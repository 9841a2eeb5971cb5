#!/usr/bin/env bash
# Makes a bare Ubuntu 24.04 (or Debian 12) machine a node: one commit, from its hashed locks, in /opt/squeeze.
#   bash install.sh squeeze.tar.gz [aws|gcp]
# The archive is what pack.sh made. The cloud's name is given on a head that starts and ends nodes of it.
# Where nothing of the archive or the arguments has changed since the last time, nothing is done.
set -euo pipefail
archive=$1 cloud=${2:-}
place=/opt/squeeze
done_with="$(sha256sum < "$archive") $cloud"
[ "$(cat $place/.installed 2>/dev/null)" != "$done_with" ] || exit 0
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
# A fresh cloud machine updates itself when it starts: wait for its lock instead of failing on it. Triton compiles
# what it runs on a GPU, for which it needs a compiler and Python's headers.
as_root apt-get -o DPkg::Lock::Timeout=600 update -qq
as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends \
    python3 python3-venv python3-dev build-essential make libnuma1 ca-certificates
as_root mkdir -p $place
as_root chown "$(id -u):$(id -g)" $place
# What an earlier commit left goes, but for the environments, which make brings up to date.
find $place -mindepth 1 -maxdepth 1 ! -name .venv ! -name .venv-contest -exec rm -rf {} +
tar xzf "$archive" -C $place
make -C $place PYTHON=/usr/bin/python3 setup contest # the system's, alike on every node: Ray asks for that
[ -z "$cloud" ] || $place/.venv/bin/uv pip install --quiet --python $place/.venv/bin/python \
    --no-deps --require-hashes --requirements "$place/cluster/environments/$cloud.txt"
grep -qs launchers/node.sh ~/.bashrc || echo ". $place/cluster/launchers/node.sh" >> ~/.bashrc
echo "$done_with" > $place/.installed
