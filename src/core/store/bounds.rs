//! How much a store may take: on the disk, in the log beside its file, and in memory.

/// The size of a page, in bytes.
pub(super) const PAGE_BYTES: u64 = 8192;

/// What an overflow page holds of a text, in bytes: a page without its link.
const PAGE_PAYLOAD: u64 = PAGE_BYTES - 4;

/// Pages that a text may take beyond its own bytes: a split leaf, the index, the map of
/// pages, and the list of free ones.
const SPARE_PAGES: u64 = 12;

/// A page in the log, with its header.
const FRAME_BYTES: u64 = PAGE_BYTES + 24;

/// The most that the log beside the file may take, and the part of a small capacity.
const WAL_MOST: u64 = 32 << 20;
const WAL_PART: u64 = 4;

/// The most that is written in one transaction. Larger ones delay reads, and smaller
/// ones cost more each.
const BATCH_MOST: u64 = 4 << 20;

/// The most that may wait to be written.
const QUEUE_MOST: u64 = 32 << 20;

/// The least capacity, in bytes. The file is never smaller than a few pages.
pub const CAPACITY_MIN: u64 = 1 << 20;

/// The bounds that follow from a capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The capacity itself.
    pub capacity: u64,
    /// Pages of the file.
    pub pages: u64,
    /// Bytes of the log beside it.
    pub wal: u64,
    /// Bytes of one batch, but for one that is a single long text.
    pub batch: u64,
    /// Bytes of the longest text that is kept, with its key.
    pub longest: u64,
    /// Bytes that may wait to be written.
    pub queue: u64,
}

impl Bounds {
    pub fn of(capacity: u64) -> Bounds {
        let capacity = capacity.max(CAPACITY_MIN);
        let wal = (capacity / WAL_PART).min(WAL_MOST);
        Bounds {
            capacity,
            pages: (capacity - wal) / PAGE_BYTES,
            wal,
            batch: (wal / 4).min(BATCH_MOST),
            // In the log beside the pages that it evicts.
            longest: wal / 4 * 3,
            queue: QUEUE_MOST,
        }
    }

    /// The pages that a text of this length may take.
    pub fn pages_of(bytes: u64) -> u64 {
        bytes.div_ceil(PAGE_PAYLOAD) + SPARE_PAGES
    }

    /// Pages in the log after which SQLite moves them into the file.
    pub fn checkpoint_pages(&self) -> u64 {
        (self.wal / 4 / FRAME_BYTES).max(1)
    }

    /// Whether the log is to be emptied before more is written.
    pub fn is_wal_full(&self, wal_bytes: u64) -> bool {
        wal_bytes > self.wal / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_and_the_log_fit_the_capacity_and_a_text_fits_the_log() {
        for capacity in [1, 1 << 20, 3 << 20, 100 << 20, 1 << 30, 1 << 40] {
            let bounds = Bounds::of(capacity);
            let capacity = capacity.max(CAPACITY_MIN);
            assert!(bounds.pages * PAGE_BYTES + bounds.wal <= capacity);
            assert!(bounds.longest < bounds.wal, "{capacity}");
            assert!(bounds.batch <= bounds.longest, "{capacity}");
            assert!(
                Bounds::pages_of(bounds.longest) < bounds.pages,
                "{capacity}"
            );
        }

        let usual = Bounds::of(1 << 30);
        assert_eq!(usual.wal, 32 << 20);
        assert!(usual.longest >= 16 << 20, "the default of --max-poem");
    }
}
