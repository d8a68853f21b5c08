//! Which stream has which place: a table of fixed size, with the places in the order of use.

use super::accumulator::filled;
use crate::error::Error;
use alloc::vec::Vec;

const NONE: u32 = u32::MAX;

/// Places `0 .. capacity` for stream ids, found by hashing with linear probing.
#[derive(Debug)]
pub(super) struct Streams {
    ids: Vec<u64>,
    /// Neighbours in the order of use, the most recent first; free places are a list by `next`.
    next: Vec<u32>,
    previous: Vec<u32>,
    first: u32,
    last: u32,
    free: u32,
    /// Places by hash, at most half full; a power of two.
    table: Vec<u32>,
    len: usize,
}

impl Streams {
    pub(super) fn new(capacity: usize) -> Result<Self, Error> {
        let capacity = capacity.max(1);
        if capacity >= 1 << 30 {
            return Err(Error::Limit {
                what: "streams of a monitor".into(),
                limit: (1 << 30) - 1,
                found: capacity as u64,
            });
        }
        let mut next = filled(capacity, NONE)?;
        for (place, next) in next.iter_mut().enumerate().take(capacity - 1) {
            *next = place as u32 + 1;
        }
        Ok(Streams {
            ids: filled(capacity, 0)?,
            next,
            previous: filled(capacity, NONE)?,
            first: NONE,
            last: NONE,
            free: 0,
            table: filled((2 * capacity).next_power_of_two(), NONE)?,
            len: 0,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> u64 {
        (size_of_val(&self.ids[..])
            + size_of_val(&self.next[..])
            + size_of_val(&self.previous[..])
            + size_of_val(&self.table[..])) as u64
    }

    fn home(&self, id: u64) -> usize {
        // Fibonacci hashing: ids that follow each other are spread.
        let mixed = (id ^ id >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize & (self.table.len() - 1)
    }

    fn find_entry(&self, id: u64) -> Result<usize, usize> {
        let mut at = self.home(id);
        loop {
            let place = self.table.get(at).copied().unwrap_or(NONE);
            if place == NONE {
                return Err(at);
            }
            if self.ids.get(place as usize) == Some(&id) {
                return Ok(at);
            }
            at = (at + 1) & (self.table.len() - 1);
        }
    }

    pub(super) fn find(&self, id: u64) -> Option<usize> {
        let at = self.find_entry(id).ok()?;
        self.table.get(at).map(|&place| place as usize)
    }

    /// Gives a new stream a place, if one is free.
    pub(super) fn insert(&mut self, id: u64) -> Option<usize> {
        let place = self.free as usize;
        let next = *self.next.get(place)?;
        let Err(at) = self.find_entry(id) else {
            return None;
        };
        self.free = next;
        *self.table.get_mut(at)? = place as u32;
        *self.ids.get_mut(place)? = id;
        self.len += 1;
        self.link_first(place);
        Some(place)
    }

    /// Makes a place the most recently used.
    pub(super) fn touch(&mut self, place: usize) {
        if self.first as usize != place {
            self.unlink(place);
            self.link_first(place);
        }
    }

    /// The places in use, the one that waited longest first.
    pub(super) fn oldest_first(&self) -> impl Iterator<Item = usize> {
        let mut at = self.last;
        core::iter::from_fn(move || {
            let place = at as usize;
            let previous = self.previous.get(place)?;
            at = *previous;
            Some(place)
        })
    }

    /// Frees the place of a stream.
    pub(super) fn remove(&mut self, id: u64) -> Option<usize> {
        let mut hole = self.find_entry(id).ok()?;
        let place = *self.table.get(hole)? as usize;
        // Entries that had to step over the hole move back into it.
        let mask = self.table.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let other = self.table.get(at).copied().unwrap_or(NONE);
            if other == NONE {
                break;
            }
            let home = self.home(self.ids.get(other as usize).copied().unwrap_or(0));
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                if let Some(to) = self.table.get_mut(hole) {
                    *to = other;
                }
                hole = at;
            }
        }
        *self.table.get_mut(hole)? = NONE;
        self.unlink(place);
        *self.next.get_mut(place)? = self.free;
        self.free = place as u32;
        self.len -= 1;
        Some(place)
    }

    pub(super) fn id(&self, place: usize) -> u64 {
        self.ids.get(place).copied().unwrap_or(0)
    }

    fn link_first(&mut self, place: usize) {
        let old = self.first;
        if let (Some(next), Some(previous)) =
            (self.next.get_mut(place), self.previous.get_mut(place))
        {
            (*next, *previous) = (old, NONE);
        }
        match self.previous.get_mut(old as usize) {
            Some(previous) => *previous = place as u32,
            None => self.last = place as u32,
        }
        self.first = place as u32;
    }

    fn unlink(&mut self, place: usize) {
        let neighbour = |list: &[u32]| list.get(place).copied().unwrap_or(NONE);
        let (next, previous) = (neighbour(&self.next), neighbour(&self.previous));
        match self.next.get_mut(previous as usize) {
            Some(of) => *of = next,
            None => self.first = next,
        }
        match self.previous.get_mut(next as usize) {
            Some(of) => *of = previous,
            None => self.last = previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Streams;
    use alloc::vec::Vec;

    /// Against a plain list, most recent last.
    #[test]
    fn behaves_like_a_list() {
        let mut streams = Streams::new(7).unwrap();
        let mut model: Vec<(u64, usize)> = Vec::new();
        let mut seed = 1u64;
        for _ in 0..20_000 {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let id = (seed >> 40) % 16 * 0x1_0000_0001;
            let known = model.iter().position(|one| one.0 == id);
            assert_eq!(streams.find(id), known.map(|at| model[at].1));
            match (seed >> 33 & 3, known) {
                (0, Some(at)) => {
                    assert_eq!(streams.remove(id), Some(model.remove(at).1));
                }
                (_, Some(at)) => {
                    let one = model.remove(at);
                    streams.touch(one.1);
                    model.push(one);
                }
                (_, None) if model.len() < 7 => {
                    let place = streams.insert(id).unwrap();
                    assert!(model.iter().all(|one| one.1 != place));
                    model.push((id, place));
                }
                (_, None) => {
                    assert_eq!(streams.insert(id), None);
                    let oldest = streams.oldest_first().next().unwrap();
                    assert_eq!(oldest, model[0].1);
                    assert_eq!(streams.id(oldest), model[0].0);
                    streams.remove(model.remove(0).0);
                }
            }
            assert_eq!(streams.len(), model.len());
            assert!(streams.oldest_first().eq(model.iter().map(|one| one.1)));
        }
    }
}
