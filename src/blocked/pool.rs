//! Where a row's features are collected: a heap of the best, or entries of a pool in a chain.

use super::*;

impl Batch<'_> {
    /// Offers a candidate to the row's k best.
    pub(super) fn rank(&mut self, row: usize, feature: u32, value: f32, rank: f32) {
        let entry = [rank_key(rank, feature), u64::from(value.to_bits())];
        let k = self.k;
        let heap = self.heaps.get_mut(row * k..(row + 1) * k);
        let (Some(heap), Some(count), Some(numbers)) =
            (heap, self.tails.get_mut(row), self.numbers.get_mut(row))
        else {
            return;
        };
        let taken = *count as usize;
        if taken < k {
            heap[taken] = entry;
            *count += 1;
            sift_up(heap, taken);
        } else if entry[0] > heap[0][0] {
            heap[0] = entry;
            sift_down(heap);
        }
        if *count as usize == k {
            numbers[3] = numbers[3].max(f64::from(rank_of(heap[0][0])));
        }
    }

    /// Appends a feature to the row's.
    pub(super) fn append(&mut self, row: usize, feature: u32, value: f32) {
        let mut place = self.place();
        while place == NONE {
            // One row always fits: the pool holds every feature of the model.
            if self.live <= 1 {
                return;
            }
            self.live = self.live.div_ceil(2);
            for row in self.live..self.rows {
                self.release(row);
            }
            if row >= self.live {
                return;
            }
            place = self.place();
        }
        let entry = [feature, value.to_bits(), NONE];
        if let Some(to) = self.pool.get_mut(place as usize) {
            *to = entry;
        }
        let (Some(tail), Some(head)) = (self.tails.get_mut(row), self.heads.get_mut(row)) else {
            return;
        };
        match self.pool.get_mut(*tail as usize) {
            Some(last) => last[2] = place,
            None => *head = place,
        }
        *tail = place;
    }

    /// A free place in the pool, or [`NONE`].
    pub(super) fn place(&mut self) -> u32 {
        if let Some(entry) = self.pool.get(self.free as usize) {
            let place = self.free;
            self.free = entry[2];
            return place;
        }
        if self.used < self.pool.len() {
            self.used += 1;
            return (self.used - 1) as u32;
        }
        NONE
    }

    /// Gives the row's entries back.
    pub(super) fn release(&mut self, row: usize) {
        let (Some(tail), Some(head)) = (self.tails.get_mut(row), self.heads.get_mut(row)) else {
            return;
        };
        if let Some(last) = self.pool.get_mut(*tail as usize) {
            last[2] = self.free;
            self.free = *head;
        }
        (*head, *tail) = (NONE, NONE);
    }
}

/// Moves the last entry of a heap, the smallest at its root, to its place.
pub(super) fn sift_up(heap: &mut [[u64; 2]], mut at: usize) {
    while at > 0 {
        let parent = (at - 1) / 2;
        if heap[parent][0] <= heap[at][0] {
            return;
        }
        heap.swap(parent, at);
        at = parent;
    }
}

/// Moves the root to its place.
pub(super) fn sift_down(heap: &mut [[u64; 2]]) {
    let mut at = 0;
    loop {
        let left = 2 * at + 1;
        if left >= heap.len() {
            return;
        }
        let right = left + 1;
        let child = match right < heap.len() && heap[right][0] < heap[left][0] {
            true => right,
            false => left,
        };
        if heap[at][0] <= heap[child][0] {
            return;
        }
        heap.swap(at, child);
        at = child;
    }
}
