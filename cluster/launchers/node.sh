# What every process of Ray on a node begins with; sourced before `ray start`, and by the node's shells.
# Paths are the same on every node: workers start what the driver names.
export PATH=/opt/squeeze/.venv/bin:$PATH
export SQUEEZE_CONTEST_PYTHON=/opt/squeeze/.venv-contest/bin/python  # a job's uploaded copy of the code has none
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
export RAY_JOB_STOP_SIGNAL=SIGINT      # `ray job stop` interrupts the search, which saves,
export RAY_JOB_STOP_WAIT_TIME_S=60     # and has this long to do it
export RAY_worker_niceness=0           # Ray's 15 would let anything else on the node slow what is timed
export OMP_WAIT_POLICY=PASSIVE
unset OMP_NUM_THREADS                  # `ray up` sets it to 1 in its shells, and workers would keep it
# Keys of W&B, the hub and a judge, as lines of NAME=value: in the environment of this node's Ray, so in every job's, and
# nowhere else. As env_vars of a job's runtime environment Ray would write them into its logs and show them in its list.
SQUEEZE_SECRETS=${SQUEEZE_SECRETS:-$HOME/.squeeze-secrets.env}
if [ -r "$SQUEEZE_SECRETS" ]; then set -a; . "$SQUEEZE_SECRETS"; set +a; fi
