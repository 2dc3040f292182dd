"""Every error that vocprep raises on purpose, with its exit code on the command line.

::

    VocprepError
    ├── UsageError           2   an option or a combination of options that cannot work
    ├── DataError            3   bytes that are not what they should be
    │   ├── ManifestError        a manifest that cannot be read
    │   ├── DataDirError         a data dir without the files that the dataset needs
    │   ├── DigestError          a downloaded file of the wrong size or digest
    │   ├── ArchiveError         an archive that is unsafe to unpack or does not hold what it must
    │   ├── ImageDecodeError     an image that does not decode
    │   ├── LabelDecodeError     a label map that does not decode or breaks its label space
    │   ├── WeightsError         backbone weights of the wrong names, shapes or digest
    │   ├── ShardError           a shard or a dataset index that breaks docs/format.md
    │   └── RunError             a run folder that cannot be used
    ├── OutOfMemoryError     3   the memory of the machine, or of its GPU, does not suffice
    ├── ClusterError         3   a cluster, its nodes or the processes that made a shard are lost
    ├── SourceUnavailableError 4 something must be fetched first, or no mirror gave it
    └── FailureBudgetError           5   more samples failed than were allowed to

Exit code 1 is no error: a check ran to its end and found differences.
A message is one sentence: what, where, expected, found, what to do.
"""


class VocprepError(Exception):
    """Base of all errors that a user can meet; the message is written for that user."""

    exit_code = 3
    is_list = False
    """Whether lines below the message's first are errors of their own, a printable line each."""


class UsageError(VocprepError):
    """An option or a combination of options that cannot work."""

    exit_code = 2


class DataError(VocprepError):
    """Bytes that are not what they should be."""

    def __init__(self, message: object, *, recorded: str | None = None) -> None:
        super().__init__(message)
        self.recorded = str(message) if recorded is None else recorded
        """What ``quarantine.jsonl`` says: its bytes are pinned by lock files of earlier builds, so
        that it keeps its words where the message gets better ones."""


class ManifestError(DataError):
    """A manifest that cannot be read or does not hold what it must."""


class DataDirError(DataError):
    """A data dir that lacks files which the dataset needs."""


class DigestError(DataError):
    """A source's file whose size or digest is not the published one."""


class ArchiveError(DataError):
    """An archive that is unsafe to unpack, does not unpack, or does not hold what it must."""


class ImageDecodeError(DataError):
    """An image that does not decode."""


class LabelDecodeError(DataError):
    """A label map that does not decode, breaks its label space or does not fit its image."""


class WeightsError(DataError):
    """Backbone weights with the wrong names, shapes or digest."""


class ShardError(DataError):
    """A shard or a dataset index that breaks docs/format.md."""


class RunError(DataError):
    """A run folder that cannot be used."""


class OutOfMemoryError(VocprepError):
    """The memory of the machine, or of its GPU, does not suffice."""


class ClusterError(VocprepError):
    """A cluster that makes shards, or nodes or processes that made one of them, are lost."""


class SourceUnavailableError(VocprepError):
    """Something must be fetched first, or no mirror gave it."""

    exit_code = 4


class FailureBudgetError(VocprepError):
    """More samples failed than a build was allowed to quarantine."""

    exit_code = 5
