#!/usr/bin/env bash
# What a cluster is started with: the commit that is checked out, in build/squeeze.tar.gz, a token of its own, and
# build/secrets.env for keys, empty at first. Whoever has the token may run anything on the cluster. Token and keys are
# made once, readable by you alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p build
git archive --format=tar.gz --output=build/squeeze.tar.gz HEAD
git diff --quiet HEAD || echo "what is not committed stays behind" >&2
token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
if [ ! -s "$token" ]; then
    (umask 077; mkdir -p "$(dirname "$token")"
     python3 -c 'import secrets; print(secrets.token_hex(32), end="")' > "$token")
fi
chmod 600 "$token" # `ray get-auth-token --generate` leaves it readable by all
[ -e build/secrets.env ] || (umask 077; : > build/secrets.env)
chmod 600 build/secrets.env
echo "build/squeeze.tar.gz is $(git log -1 --format='%h %s'); the token is in $token"
