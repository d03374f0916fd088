"""A server that crashed is started again in its container.

To Kubernetes a pod is unready while one of its sidecars is not running, so the only pod of a
service would take no connections until the kubelet has started Triton again. Started again in
place, the pod stays ready, and the gateway has its requests wait.

Whatever is not a rare crash ends the container as ever, with the server's status and the end of its
log, for the kubelet to pause and the operator to explain.
"""

from typing import Final

#: Ends sooner: it did not come up.
_STARTED_SECONDS: Final = 10
#: A second crash within this time is the kubelet's.
_RARE_SECONDS: Final = 300

# Without "$(" and "$$", which Kubernetes would replace.
_SCRIPT: Final = f"""\
stop= again=
trap 'stop=1; kill -TERM "$server" 2>/dev/null' TERM
while :; do
  begun=$SECONDS
  "$@" & server=$!
  [ -z "$stop" ] || kill -TERM "$server"
  wait "$server"; status=$?
  if [ -n "$stop" ]; then wait "$server"; exit; fi
  (( lived = SECONDS - begun ))
  (( lived >= {_STARTED_SECONDS} )) || exit "$status"
  [ -z "$again" ] || (( SECONDS - again >= {_RARE_SECONDS} )) || exit "$status"
  again=$SECONDS
  echo "$1 ended with status $status after $lived s; it is started again" >&2
  # What it has left: processes of its backends, and their shared memory.
  (( BASHPID != 1 )) || kill -KILL -1 2>/dev/null
  rm -f /dev/shm/triton_python_backend_shm_region_*
done
"""


def supervised(command: list[str]) -> list[str]:
    """The command that runs `command` and starts it again after a crash."""
    return ["bash", "-c", _SCRIPT, "supervisor", *command]
