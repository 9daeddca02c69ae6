//! A list that grows and shrinks in small steps: its memory is what it holds, and
//! at most two chunks more.

/// Items of a chunk: 16 KiB of entries. A growing `Vec` would have up to half of its
/// memory empty, copy all of it under the lock, and never give any back. With smaller
/// chunks, the list of them would leave the processor's cache.
const CHUNK: usize = 256;

pub(super) struct Dense<T> {
    /// All full but the last one, or the last two if the last one is empty.
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Dense<T> {
    pub(super) fn new() -> Dense<T> {
        Dense {
            chunks: Vec::new(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn get(&self, at: u32) -> &T {
        let at = at as usize;
        &self.chunks[at / CHUNK][at % CHUNK]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: u32) -> &mut T {
        let at = at as usize;
        &mut self.chunks[at / CHUNK][at % CHUNK]
    }

    /// Appends an item, and returns where it is.
    pub(super) fn push(&mut self, item: T) -> u32 {
        let at = u32::try_from(self.len).expect("four billion entries exceed the memory");
        if self.len == self.chunks.len() * CHUNK {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }

        self.chunks[self.len / CHUNK].push(item);
        self.len += 1;
        at
    }

    /// Takes out an item, and puts the last one into its place.
    pub(super) fn swap_remove(&mut self, at: u32) -> T {
        self.len -= 1;
        let chunk = self.len / CHUNK;
        let last = self.chunks[chunk].pop();
        let last = last.expect("the last item is where the length says");

        // One empty chunk stays, or the next few items could make and free it in turn.
        self.chunks.truncate(chunk + 2);
        if at as usize == self.len {
            return last;
        }
        std::mem::replace(self.get_mut(at), last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_item_fills_the_place_of_one_that_leaves() {
        let mut dense = Dense::new();
        for item in 0..1000 {
            assert_eq!(dense.push(item), item);
        }

        assert_eq!(dense.swap_remove(3), 3);
        assert_eq!((*dense.get(3), dense.len()), (999, 999));
        assert_eq!(dense.swap_remove(998), 998);
        assert_eq!(dense.len(), 998);
    }

    #[test]
    fn memory_is_given_back() {
        let mut dense = Dense::new();
        for item in 0..1000 {
            dense.push(item);
        }
        while dense.len() > 0 {
            dense.swap_remove(0);
        }
        assert!(dense.chunks.len() <= 2);
    }
}
