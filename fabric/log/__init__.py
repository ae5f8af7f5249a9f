"""The log: a channel's records in memory-mapped segments, one writer, any number of readers.

<channel>/lock                              held by the writer (flock)
<channel>/current -> 6a1f...                the newest session
<channel>/<session, 16 hex digits>/
    log.json                                channel, record description, parent session
    control  wait                           one page each (native/log_layout.h)
    00000000000000000001.seg                records, nothing else; named by the first one's sequence
    00000000000000000001.sum                sidecar of a sealed segment: checksums
    image                                   state as of the last record that retention removed
"""

from fabric.log.reader import LogReader, open_log
from fabric.log.writer import LogOptions, LogWriter

__all__ = ["LogOptions", "LogReader", "LogWriter", "open_log"]
