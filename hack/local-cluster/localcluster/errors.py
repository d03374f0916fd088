"""What can go wrong, in the words that the user of ``cluster`` sees.

::

    ClusterError            exit code 1: something failed while running
    └── PrerequisiteError   exit code 2: the machine lacks something; says what to install
"""


class ClusterError(Exception):
    """A failure whose message names the cause and the next thing to do."""

    exit_code = 1


class PrerequisiteError(ClusterError):
    """The machine or the request cannot work as it is, whatever is retried."""

    exit_code = 2
