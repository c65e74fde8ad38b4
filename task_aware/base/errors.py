"""The package's own exceptions; each message is one sentence that says what to do."""


class TaskAwareError(Exception):
    """Base of all errors that a user can mend."""


class DataError(TaskAwareError, ValueError):
    """A recording, a metadata row or a folder is missing, broken or contradicts itself."""


class CheckpointError(TaskAwareError, ValueError):
    """A checkpoint is cut off, foreign, of another version, or does not fit the data."""


class BackendError(TaskAwareError, RuntimeError):
    """The native kernels asked for are not there."""
