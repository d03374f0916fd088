"""A server that crashed is started again in its container.

To Kubernetes a pod is unready while one of its sidecars is not running, so the only pod of a
service would take no connections until the kubelet has started Triton again. Started again in
place, the pod stays ready, and the gateway has its requests wait.

Whatever is not a rare crash ends the container as ever, with the server's status and the end of its
log, for the kubelet to pause and the operator to explain.

A sidecar is told to end when the gateway has ended, or, where a pod is deleted by force, beside it,
a second before both are killed. Then it serves on, and a file tells the gateway of its fate.
"""

from typing import Final

#: Ends sooner: it did not come up.
_STARTED_SECONDS: Final = 10
#: A second crash within this time is the kubelet's.
_RARE_SECONDS: Final = 300

#: Longer than both have left.
_TENTHS_FOR_THE_CLIENT: Final = 30

# Without "$(" and "$$", which Kubernetes would replace.
_SCRIPT: Final = f"""\
stop= again=
doomed=$1 port=$2
shift 2
trap 'stop=1' TERM
while :; do
  begun=$SECONDS
  "$@" & server=$!
  [ -n "$stop" ] || wait "$server"; status=$?
  if [ -n "$stop" ]; then
    for (( tenth = 0; tenth < {_TENTHS_FOR_THE_CLIENT}; tenth++ )); do
      # Also where a loopback address is written as one of IPv6.
      grep -qs "0100007F:$port [0-9A-F:]* 01 " /proc/net/tcp /proc/net/tcp6 || break
      : > "$doomed"
      sleep 0.1
    done
    kill -TERM "$server"
    wait "$server"
    exit
  fi
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


def supervised(command: list[str], *, port: int, doomed: str) -> list[str]:
    """The command that runs `command` and starts it again after a crash.

    `port`: where its client connects on loopback. `doomed`: the file that is made when the client
    will be killed.
    """
    return ["bash", "-c", _SCRIPT, "supervisor", doomed, f"{port:04X}", *command]
