"""Every error a user can meet, each with a stable code and a remedy.

    RechkaError
    ├── AudioError                 (ValueError)
    │   ├── NotAudio               audio.not_audio       the bytes are no known audio format
    │   ├── BrokenAudio            audio.broken          a known format, but no sample could be decoded
    │   ├── EmptyAudio             audio.empty           decoded to zero samples
    │   ├── AudioTooLong           audio.too_long        longer than the limit that was set
    │   ├── AudioNotFound          audio.not_found       (FileNotFoundError)
    │   ├── BadSamples             audio.bad_samples     an array of the wrong type, shape or range
    │   └── NoMicrophone           audio.no_microphone   no capture device, or its library is absent
    ├── ModelError
    │   ├── ModelNotFound          model.not_found       unknown name, or its files are not on disk (FileNotFoundError)
    │   ├── BadCard                model.bad_card        a model card that cannot be read (ValueError)
    │   ├── BadModelFile           model.bad_file        weights or a graph that do not fit their family (ValueError)
    │   ├── ChecksumMismatch       model.checksum        a file differs from its card (ValueError)
    │   ├── IncompatibleParts      model.parts           model, segmenter or decoder do not fit (ValueError)
    │   ├── BadLanguageModel       model.bad_lm          an n-gram file that cannot be read (ValueError)
    │   └── RemoteFailed           model.remote          (ConnectionError) an inference server does not answer, refuses
    ├── HubError                   hub.*                 (OSError) a download did not succeed
    │   ├── Offline                hub.offline           the network is switched off by a setting
    │   ├── HubUnreachable         hub.unreachable       no connection, a time-out, or a 5xx that stayed
    │   ├── HubNotFound            hub.not_found         404: no such repository, revision or file
    │   ├── HubForbidden           hub.forbidden         401 or 403: gated, private, or a bad token
    │   └── DiskFull               hub.disk_full         no room for the file
    ├── UsageError                 usage                 (ValueError) arguments that make no sense together
    │   └── WrongType              usage.type            (TypeError) an argument of another type than the function takes
    ├── MissingExtra               missing_extra         (ImportError) an optional dependency is not installed
    ├── OutputError                output                (OSError) a result could not be written
    ├── DataError                  data                  (ValueError) a training or test record that cannot be used
    │   └── DataNotFound           data.not_found        a manifest, table, archive or text that is not there
    ├── ServiceError
    │   ├── Overloaded             service.overloaded    no room for one more stream or request now
    │   ├── Draining               service.draining      the server is about to stop
    │   ├── Unauthorized           service.unauthorized  no key, or one that is unknown or expired
    │   ├── Forbidden              service.forbidden     a key without the scope that is needed
    │   ├── QuotaExceeded          service.quota         the key has used up what it is allowed
    │   ├── TooLarge               service.too_large     a message, upload or stream beyond its limit
    │   ├── IdleTimeout            service.idle          nothing came for too long
    │   ├── BadRequest             service.bad_request   a message or a parameter that cannot be used
    │   ├── NoSuchThing            service.not_found     an address, model or job that does not exist
    │   ├── Conflict               service.conflict      not in this state, or a key of a request used for another
    │   ├── FetchFailed            service.fetch         an address that was to be fetched gives nothing
    │   ├── StorageBusy            service.storage_busy  the server's database cannot be used now
    │   ├── StorageFull            service.storage_full  the server has no room for what it was to keep
    │   └── StreamFailed           service.failed        a fault inside rechka ended this stream only
    ├── WorkerLost                 worker_lost           (RuntimeError) processes end before they did anything
    ├── StreamFull                 stream.full           (RuntimeError) more audio than the inbox has room for
    └── StreamClosed               stream.closed         (RuntimeError) audio after finish()

Codes are part of the contract: they appear in JSON output and in server replies, and do not change.
"""

from __future__ import annotations


class RechkaError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: what was expected and what came.
        remedy: what the user can do, one sentence; empty if nothing helps.
    """

    code = "error"
    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message

    def to_dict(self) -> dict[str, str]:
        """The error as the JSON object used by ``--json`` output and by servers."""
        return {"code": self.code, "message": self.message, "remedy": self.remedy}


class AudioError(RechkaError, ValueError):
    """An input that cannot be used as audio."""

    code = "audio"


class NotAudio(AudioError):
    """The bytes are no known audio format."""

    code = "audio.not_audio"


class BrokenAudio(AudioError):
    """A known format, but no sample could be decoded."""

    code = "audio.broken"


class EmptyAudio(AudioError):
    """The input decoded to zero samples."""

    code = "audio.empty"


class AudioTooLong(AudioError):
    """The input is longer than the limit that was set."""

    code = "audio.too_long"


class AudioNotFound(AudioError, FileNotFoundError):
    """The path does not exist or cannot be read."""

    code = "audio.not_found"
    exit_code = 3


class BadSamples(AudioError):
    """An array of the wrong type, shape or range."""

    code = "audio.bad_samples"


class NoMicrophone(AudioError):
    """No capture device, or the library that drives it is absent."""

    code = "audio.no_microphone"


class ModelError(RechkaError):
    """A model that cannot be found, read or assembled."""

    code = "model"
    exit_code = 3


class ModelNotFound(ModelError, FileNotFoundError):
    """Unknown model name, or its files are not on disk."""

    code = "model.not_found"


class BadCard(ModelError, ValueError):
    """A model card that cannot be read."""

    code = "model.bad_card"


class BadModelFile(ModelError, ValueError):
    """Weights or a graph that do not fit their family."""

    code = "model.bad_file"


class ChecksumMismatch(ModelError, ValueError):
    """A file differs from what its card says."""

    code = "model.checksum"


class IncompatibleParts(ModelError, ValueError):
    """Model, segmenter and decoder do not fit together."""

    code = "model.parts"


class BadLanguageModel(ModelError, ValueError):
    """An n-gram file that cannot be read."""

    code = "model.bad_lm"


class RemoteFailed(ModelError, ConnectionError):
    """An inference server does not answer, or refuses what a model asks of it."""

    code = "model.remote"


class HubError(RechkaError, OSError):
    """A download that did not succeed."""

    code = "hub"
    exit_code = 3


class Offline(HubError):
    """The network is switched off by a setting."""

    code = "hub.offline"


class HubUnreachable(HubError):
    """No connection, a time-out, or a server error that stayed."""

    code = "hub.unreachable"


class HubNotFound(HubError):
    """No such repository, revision or file."""

    code = "hub.not_found"


class HubForbidden(HubError):
    """Gated or private repository, or a bad token."""

    code = "hub.forbidden"


class DiskFull(HubError):
    """No room on the disk for the file."""

    code = "hub.disk_full"


class UsageError(RechkaError, ValueError):
    """Arguments that make no sense together."""

    code = "usage"
    exit_code = 2


class WrongType(UsageError, TypeError):
    """An argument of another type than the function takes."""

    code = "usage.type"


class MissingExtra(RechkaError, ImportError):
    """An optional dependency is not installed; the remedy names the extra."""

    code = "missing_extra"
    exit_code = 2


class OutputError(RechkaError, OSError):
    """A result could not be written."""

    code = "output"


class DataError(RechkaError, ValueError):
    """A training or test record that cannot be used."""

    code = "data"


class DataNotFound(DataError):
    """A manifest, table, archive or text that is not there."""

    code = "data.not_found"
    exit_code = 3

    @classmethod
    def or_unreadable(cls, error: Exception, message: str, *, remedy: str = "") -> DataError:
        """This error where a file was not found, else a ``DataError``."""
        return (cls if isinstance(error, FileNotFoundError) else DataError)(message, remedy=remedy)


class WorkerLost(RechkaError, RuntimeError):
    """Processes that recognise end before they did anything."""

    code = "worker_lost"
    exit_code = 4


class StreamFull(RechkaError, RuntimeError):
    """More audio was fed than the inbox has room for."""

    code = "stream.full"


class StreamClosed(RechkaError, RuntimeError):
    """Audio was fed to a stream after ``finish()``."""

    code = "stream.closed"


class ServiceError(RechkaError):
    """A server that does not do what it was asked for.

    Attributes:
        status: HTTP status of the reply.
        close_code: of a WebSocket that ends with this error.
        retry_after_s: when it is worth to try again; None if it is not.
    """

    code = "service"
    status = 500
    close_code = 1011

    def __init__(self, message: str, *, remedy: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s


class Overloaded(ServiceError):
    """No room for one more stream or request now."""

    code = "service.overloaded"
    status = 503
    close_code = 1013


class Draining(ServiceError):
    """The server is about to stop and takes nothing new."""

    code = "service.draining"
    status = 503
    close_code = 1001


class Unauthorized(ServiceError):
    """No API key, or one that is unknown or expired."""

    code = "service.unauthorized"
    status = 401
    close_code = 1008


class Forbidden(ServiceError):
    """An API key without the scope that is needed, or a request from a place that is not allowed."""

    code = "service.forbidden"
    status = 403
    close_code = 1008


class QuotaExceeded(ServiceError):
    """The API key has used up what it is allowed."""

    code = "service.quota"
    status = 429
    close_code = 1008


class TooLarge(ServiceError):
    """A message, an upload or a stream beyond its limit."""

    code = "service.too_large"
    status = 413
    close_code = 1009


class IdleTimeout(ServiceError):
    """Nothing came for too long."""

    code = "service.idle"
    status = 408
    close_code = 1008


class BadRequest(ServiceError, ValueError):
    """A message or a parameter that cannot be used."""

    code = "service.bad_request"
    status = 400
    close_code = 1007


class NoSuchThing(ServiceError):
    """An address, a model or a job that does not exist."""

    code = "service.not_found"
    status = 404
    close_code = 1008


class Conflict(ServiceError):
    """What was asked for does not fit the state of things, or an idempotency key came with another request."""

    code = "service.conflict"
    status = 409
    close_code = 1008


class FetchFailed(ServiceError):
    """An address that the server was to fetch gives nothing: no connection, an error status, too slow, too large."""

    code = "service.fetch"
    status = 502
    close_code = 1011


class StorageBusy(ServiceError):
    """The database of jobs and history is locked, or cannot be reached, now."""

    code = "service.storage_busy"
    status = 503
    close_code = 1013


class StorageFull(ServiceError):
    """No room on the server's disk, or no more than its settings allow."""

    code = "service.storage_full"
    status = 507
    close_code = 1013


class StreamFailed(ServiceError):
    """A fault inside rechka ended this stream, and no other; the server's log tells more."""

    code = "service.failed"
    exit_code = 4
