//! Events between threads: a bounded queue without locks.

use super::event::{Event, WORDS};
use crate::error::Error;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// A bounded queue of events: any number of threads push, any number pop, nobody waits. A full
/// queue drops the new event and counts it.
///
/// It is Vyukov's bounded queue. Every place has a turn: `2 n` says that it is free for the n-th
/// time around, `2 n + 1` that it holds an event. Who moves the tail (or head) forward owns the
/// place until it stores the next turn. Events lie in plain atomic words, so that this needs no
/// `unsafe`.
#[derive(Debug)]
pub struct EventRing {
    places: Vec<Place>,
    head: AtomicUsize,
    tail: AtomicUsize,
    dropped: AtomicUsize,
}

#[derive(Debug)]
struct Place {
    turn: AtomicUsize,
    words: [AtomicU32; WORDS],
}

impl EventRing {
    /// An empty queue with room for this many events (rounded up to a power of two).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(capacity: usize) -> Result<Self, Error> {
        let memory = |bytes: usize| Error::OutOfMemory {
            what: "a ring of events",
            bytes: bytes as u64,
        };
        let count = capacity
            .max(1)
            .checked_next_power_of_two()
            .ok_or_else(|| memory(usize::MAX))?;
        let mut places = Vec::new();
        places
            .try_reserve_exact(count)
            .map_err(|_| memory(count.saturating_mul(size_of::<Place>())))?;
        places.extend((0..count).map(|_| Place {
            turn: AtomicUsize::new(0),
            words: core::array::from_fn(|_| AtomicU32::new(0)),
        }));
        Ok(EventRing {
            places,
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
        })
    }

    /// Events that fit.
    pub fn capacity(&self) -> usize {
        self.places.len()
    }

    /// Events that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed) as u64
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        (size_of_val(&self.places[..]) + size_of::<Self>()) as u64
    }

    /// The turn of a ticket: how often its place was gone around.
    fn turn(&self, ticket: usize) -> usize {
        (ticket / self.places.len()).wrapping_mul(2)
    }

    fn place(&self, ticket: usize) -> Option<&Place> {
        self.places.get(ticket & (self.places.len() - 1))
    }

    /// Appends an event; `false` if the queue is full: the event is counted as dropped.
    pub fn push(&self, event: &Event) -> bool {
        let mut ticket = self.tail.load(Ordering::Relaxed);
        loop {
            let Some(place) = self.place(ticket) else {
                return false;
            };
            let turn = place.turn.load(Ordering::Acquire);
            if turn == self.turn(ticket) {
                match self.tail.compare_exchange_weak(
                    ticket,
                    ticket.wrapping_add(1),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        for (to, word) in place.words.iter().zip(event.to_words()) {
                            to.store(word, Ordering::Relaxed);
                        }
                        place.turn.store(turn.wrapping_add(1), Ordering::Release);
                        return true;
                    }
                    Err(found) => ticket = found,
                }
                continue;
            }
            let found = self.tail.load(Ordering::Relaxed);
            if found == ticket {
                // The place still holds the event of the last time around.
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            ticket = found;
        }
    }

    /// Takes the oldest event, if there is one.
    pub fn pop(&self) -> Option<Event> {
        let mut ticket = self.head.load(Ordering::Relaxed);
        loop {
            let place = self.place(ticket)?;
            let turn = place.turn.load(Ordering::Acquire);
            if turn == self.turn(ticket).wrapping_add(1) {
                match self.head.compare_exchange_weak(
                    ticket,
                    ticket.wrapping_add(1),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        let mut words = [0; WORDS];
                        for (word, from) in words.iter_mut().zip(&place.words) {
                            *word = from.load(Ordering::Relaxed);
                        }
                        place.turn.store(turn.wrapping_add(1), Ordering::Release);
                        return Some(Event::from_words(&words));
                    }
                    Err(found) => ticket = found,
                }
                continue;
            }
            let found = self.head.load(Ordering::Relaxed);
            if found == ticket {
                return None;
            }
            ticket = found;
        }
    }
}
