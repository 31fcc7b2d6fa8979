"""Every metric there is: what it is called, what it means, and how its parts add up.

Names follow the conventions of Prometheus: base units, ``_total`` for what only grows. A label has
a bounded set of values, whatever anybody sends: words of this source, or projects, of which
``metrics.projects`` have a series of their own and all others share ``project="other"``.

Workers count in whole numbers, so that sums stay exact: a metric in seconds counts nanoseconds.
"""

from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]
Merge = Literal["sum", "max", "min"]

NANOSECOND = 1e-9
OTHER = "other"


class Metric(NamedTuple):
    """One row of the table."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: float = 1.0
    """What one counted piece is in the unit that the name says."""
    buckets: tuple[float, ...] = ()
    """The upper bounds of a histogram, in the unit that the name says, ascending."""
    merge: Merge = "sum"
    """How the gauges of several workers become one."""

    @property
    def width(self) -> int:
        """How many numbers a series takes: a histogram's are its buckets, ``+Inf``, and the sum."""
        return len(self.buckets) + 2 if self.buckets else 1


_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0)
_RATES = tuple(float(1 << shift) for shift in range(16, 36, 2))  # 64 KiB/s to 16 GiB/s

# --- requests -----------------------------------------------------------------------------------

REQUESTS = Metric(
    "cypd_requests_total",
    "counter",
    "Requests that were answered; status none: the client had gone.",
    ("endpoint", "method", "status"),
)
FIRST_BYTE = Metric(
    "cypd_first_byte_seconds",
    "histogram",
    "From a request's header to the first byte of its answer.",
    ("endpoint",),
    NANOSECOND,
    _SECONDS,
)
SENT = Metric("cypd_sent_bytes_total", "counter", "Bytes of all answers, without headers.")
RECEIVED = Metric("cypd_received_bytes_total", "counter", "Bytes of all requests, without headers.")
PULLED = Metric(
    "cypd_pulled_bytes_total",
    "counter",
    "Bytes of manifests and blobs that were pulled: sent by the kernel from a file, from memory, "
    "or by the object store.",
    ("project", "source"),
)
PUSHED = Metric(
    "cypd_pushed_bytes_total",
    "counter",
    "Bytes that were pushed, also those of pushes that failed.",
    ("project", "source"),
)
PULL_RATE = Metric(
    "cypd_pull_bytes_per_second",
    "histogram",
    "How fast pulls of 1 MiB and more went.",
    buckets=_RATES,
)
PUSH_RATE = Metric(
    "cypd_push_bytes_per_second",
    "histogram",
    "How fast requests that push 1 MiB and more went.",
    buckets=_RATES,
)
ACTIVE_PULLS = Metric("cypd_active_pulls", "gauge", "Blobs that are being sent.")
ACTIVE_UPLOADS = Metric("cypd_active_uploads", "gauge", "Requests whose content is being taken in.")
CONNECTIONS = Metric("cypd_connections", "gauge", "Open connections, idle ones too.")

# --- projects and storage -----------------------------------------------------------------------

QUOTA = Metric(
    "cypd_project_quota_bytes",
    "gauge",
    "What a project may hold; projects without a bound have none here.",
    ("project",),
)
USED = Metric(
    "cypd_project_used_bytes", "gauge", "What a project holds, each digest once.", ("project",)
)
RESERVED = Metric(
    "cypd_project_reserved_bytes", "gauge", "Kept for a project's running uploads.", ("project",)
)
PROJECTS = Metric("cypd_projects", "gauge", "Projects.")
UPLOAD_SESSIONS = Metric("cypd_upload_sessions", "gauge", "Upload sessions that are open.")
LOGICAL = Metric("cypd_storage_logical_bytes", "gauge", "The sum of what all projects hold.")
PHYSICAL = Metric("cypd_storage_physical_bytes", "gauge", "The same, each digest once.")
DEDUPLICATION = Metric(
    "cypd_storage_deduplication_ratio", "gauge", "Logical by physical bytes; 1 if there are none."
)
DISK_FREE = Metric("cypd_disk_free_bytes", "gauge", "Free on the state folder's file system.")
DISK_SIZE = Metric("cypd_disk_size_bytes", "gauge", "The size of that file system.")

# --- upkeep -------------------------------------------------------------------------------------

COLLECTIONS = Metric("cypd_collection_rounds_total", "counter", "Rounds of the janitor.")
COLLECTED = Metric("cypd_collection_removed_total", "counter", "What it removed.", ("what",))
COLLECTED_AT = Metric(
    "cypd_collection_last_timestamp_seconds",
    "gauge",
    "When its last round ended, in unix seconds.",
    unit=NANOSECOND,
    merge="max",
)
UNUSED_BLOBS = Metric(
    "cypd_collection_unused_blobs",
    "gauge",
    "Blobs that no repository holds, as of the last round; they go when gc.blob_grace is over.",
    merge="max",
)
UNUSED_BYTES = Metric(
    "cypd_collection_unused_bytes", "gauge", "The bytes of these blobs.", merge="max"
)
SCRUBBED_AT = Metric(
    "cypd_scrub_last_timestamp_seconds",
    "gauge",
    "When the last whole round of the scrub ended, in unix seconds; 0: none did.",
)
SCRUBBED = Metric("cypd_scrub_blobs", "gauge", "Blobs that its round, present or last, has read.")
DAMAGED = Metric("cypd_scrub_damaged_blobs", "gauge", "Those of them that were damaged.")
MISSING = Metric("cypd_scrub_missing_blobs", "gauge", "Those of them that were missing.")
BACKLOG = Metric("cypd_webhooks_backlog", "gauge", "Deliveries that wait or are tried again.")
BACKLOG_AGE = Metric(
    "cypd_webhooks_oldest_seconds", "gauge", "How long the oldest of them waits; 0 if none does."
)
SCANS = Metric("cypd_scans_queued", "gauge", "Scans that wait or run.")
SCANNED = Metric(
    "cypd_scans_total", "counter", "Scans that ended and were not cancelled.", ("status",)
)

# --- the process --------------------------------------------------------------------------------

LOOP_LAG = Metric(
    "cypd_loop_lag_seconds",
    "gauge",
    "By how much the slowest worker's event loop was late at worst in the last 15 seconds.",
    unit=NANOSECOND,
    merge="max",
)
WRITER_QUEUE = Metric("cypd_writer_queue", "gauge", "Writes that wait for the metadata's writers.")
COMMIT = Metric(
    "cypd_writer_commit_seconds",
    "histogram",
    "How long a durable transaction took, from its first write on.",
    (),
    NANOSECOND,
    _SECONDS,
)
COMMITTED = Metric("cypd_writer_operations_total", "counter", "Writes in these transactions.")
MAP_SIZE = Metric("cypd_metadata_map_size_bytes", "gauge", "What the metadata may ever take.")
MAP_USED = Metric("cypd_metadata_map_used_bytes", "gauge", "What it takes.")
OLDEST_READER = Metric(
    "cypd_metadata_oldest_reader_transactions",
    "gauge",
    "How many transactions ago the longest running reader began.",
)
WORKERS = Metric("cypd_workers", "gauge", "Worker processes.")
RESTARTS = Metric(
    "cypd_worker_restarts_total", "counter", "Worker processes that ended without being told to."
)
BUILD = Metric("cypd_build_info", "gauge", "Always 1; the labels tell.", ("version", "python"))
CPU = Metric(
    "process_cpu_seconds_total",
    "counter",
    "User and system CPU time of all workers.",
    unit=NANOSECOND,
)
RESIDENT = Metric("process_resident_memory_bytes", "gauge", "Resident memory of all workers.")
DESCRIPTORS = Metric("process_open_fds", "gauge", "Open file descriptors of all workers.")
MAX_DESCRIPTORS = Metric(
    "process_max_fds", "gauge", "File descriptors that one worker may have open.", merge="min"
)
STARTED_AT = Metric(
    "process_start_time_seconds",
    "gauge",
    "When the oldest worker started, in unix seconds.",
    unit=NANOSECOND,
    merge="min",
)

TABLE = tuple(it for it in list(globals().values()) if isinstance(it, Metric))
BY_NAME = {metric.name: metric for metric in TABLE}
