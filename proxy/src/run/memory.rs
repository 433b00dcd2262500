//! Returns the memory that a burst left allocated.
//!
//! mimalloc returns pages that have been free for a second, but only when a page is taken or freed. A sidecar
//! that is idle after a burst does neither, and would keep the burst's memory (16 KiB for each connection
//! that came) until its next timer.

use std::hint::black_box;

use tokio::time::sleep;

use crate::limits;

/// Larger than every page that mimalloc shares between objects (4 MiB), so it is taken and freed as a page.
/// It is not touched, and so costs no memory.
const PAGE: usize = 4 << 20;

/// Runs without end, on each thread that has a heap worth looking at.
pub(super) async fn give_back() {
    loop {
        sleep(limits::MEMORY_LOOK_INTERVAL).await;
        drop(black_box(Vec::<u8>::with_capacity(PAGE)));
    }
}
