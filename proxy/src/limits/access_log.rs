//! The bounds of the access log, and of the record that it is written from.

use super::REQUEST_ID_BYTES_MAX;

/// Access-log lines per second and worker; the rest is counted.
pub const ACCESS_LOG_LINES_PER_SECOND: u32 = 10;

/// Access-log lines waiting for the writer thread; at the limit lines are dropped and counted, so that
/// a blocked pipe never blocks a request. At most [`ACCESS_LOG_LINE_BYTES_MAX`] each.
pub const ACCESS_LOG_QUEUE_MAX: usize = 1024;

/// Bytes of one line of the access log: what a pipe takes whole (`PIPE_BUF`, pipe(7)), so that lines of two
/// writers never mix, and less than any collector cuts off.
pub const ACCESS_LOG_LINE_BYTES_MAX: usize = 4096;

/// Bytes of its fixed part: the names of all fields, and every number at its longest.
pub const ACCESS_LOG_FRAME_BYTES_MAX: usize = 816;

/// Attempts of an exchange whose parts are kept for its record: the first three and the last. Policies rarely
/// allow more, and the log has a line's room for them.
pub const RECORD_ATTEMPTS_MAX: usize = 4;

/// Bytes of a method, as the log writes it; registered ones have at most 17.
pub const ACCESS_LOG_METHOD_BYTES_MAX: usize = 32;

/// Bytes of an authority: a DNS name with a port has at most 259.
pub const ACCESS_LOG_AUTHORITY_BYTES_MAX: usize = 272;

/// Bytes of a path that are logged: the beginning shows what was asked.
pub const ACCESS_LOG_PATH_BYTES_MAX: usize = 784;

/// Bytes of a SPIFFE ID. weft's own have about a hundred; the standard allows 2048.
pub const ACCESS_LOG_PRINCIPAL_BYTES_MAX: usize = 400;

/// Bytes of a service with its port, of a route or of a policy: three DNS labels.
pub const ACCESS_LOG_NAME_BYTES_MAX: usize = 200;

/// Bytes of the reason in words.
pub const ACCESS_LOG_DETAILS_BYTES_MAX: usize = 512;

/// Bytes of a request id; longer ones than [`REQUEST_ID_BYTES_MAX`] are replaced, quotes are written as two.
pub const ACCESS_LOG_REQUEST_ID_BYTES_MAX: usize = 2 * REQUEST_ID_BYTES_MAX;

const _: () = assert!(
    ACCESS_LOG_FRAME_BYTES_MAX
        + ACCESS_LOG_METHOD_BYTES_MAX
        + ACCESS_LOG_AUTHORITY_BYTES_MAX
        + ACCESS_LOG_PATH_BYTES_MAX
        + 2 * ACCESS_LOG_PRINCIPAL_BYTES_MAX
        + 3 * ACCESS_LOG_NAME_BYTES_MAX
        + ACCESS_LOG_DETAILS_BYTES_MAX
        + ACCESS_LOG_REQUEST_ID_BYTES_MAX
        <= ACCESS_LOG_LINE_BYTES_MAX
);
