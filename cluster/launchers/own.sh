#!/usr/bin/env bash
# Starts Ray on a machine that you have, and stays in the foreground: Ctrl-C ends Ray there. On one of them
#   bash /opt/squeeze/cluster/launchers/own.sh head
# and on each of the others
#   bash /opt/squeeze/cluster/launchers/own.sh worker ADDRESS_OF_THE_HEAD
# install.sh made /opt/squeeze there; ~/.ray/auth_token and ~/.squeeze-secrets.env are the same files on all. What follows
# goes to `ray start`.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/node.sh"
if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then
    echo "no token in $RAY_AUTH_TOKEN_PATH: make one with pack.sh, and copy it to every machine" >&2
    exit 2
fi
for file in "$RAY_AUTH_TOKEN_PATH" "$SQUEEZE_SECRETS"; do
    if [ -e "$file" ] && [ -n "$(find -L "$file" -perm /077)" ]; then
        echo "others may read what is yours: chmod 600 $file" >&2
        exit 2
    fi
done
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
case ${1:-} in
    head)
        shift
        exec ray start --head --block --port=6379 --dashboard-host=127.0.0.1 --disable-usage-stats "$@" ;;
    worker)
        head=${2:?the address of the head}
        shift 2
        exec ray start --address="$head:6379" --block --disable-usage-stats "$@" ;;
    *)
        echo "own.sh head, or own.sh worker ADDRESS_OF_THE_HEAD" >&2
        exit 2 ;;
esac
