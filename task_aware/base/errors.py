"""The package's own exceptions. Each message is one sentence that says what to do."""


class TaskAwareError(Exception):
    """Base class of the errors that a user can fix.

    Its text is one line, whatever names or texts of other libraries are in it.
    """

    def __str__(self) -> str:
        return super().__str__().replace("\n", " ").replace("\r", " ")


class DataError(TaskAwareError, ValueError):
    """A recording, a row of a table or a folder is missing, broken or contradictory."""


class RecordingError(DataError):
    """A single recording cannot be used: it is missing, cut off, broken, empty, silent or not finite."""


class CheckpointError(TaskAwareError, ValueError):
    """A checkpoint is missing, truncated, of another kind or version, or does not fit the data."""


class OutputError(TaskAwareError, OSError):
    """A result cannot be written: the disk is full, or the folder is not ours to write to."""


class BackendError(TaskAwareError, RuntimeError):
    """The requested native kernels are not available."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM; it ends as after Ctrl-C, but with another exit status."""
