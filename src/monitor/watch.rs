//! Rules at work on many streams.

mod check;
mod waiting;

use super::accumulator::{Accumulator, filled};
use super::collect::Collect;
use super::compile::CompiledRules;
use super::detect::{Verdict, View};
use super::event::Event;
use super::pool::{Pool, Pooling};
use super::ring::EventRing;
use super::row::RowInfo;
use super::streams::Streams;
use crate::error::Error;
use crate::features::{Features, FeaturesRow, RowStatus};
use crate::model::Sae;
use crate::rows::Rows;
use crate::scratch::Scratch;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// What becomes of a row whose stream has no place, when all places are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unseen {
    /// The stream that waited longest without pending rows is forgotten (and counted); if all have
    /// pending rows, the row is refused.
    #[default]
    Evict,
    /// The row is refused: it enters nothing but the count of refused rows.
    Refuse,
}

/// How a [`Monitor`] is made. Memory follows from it and never grows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MonitorOptions {
    /// Streams watched at once.
    pub streams: usize,
    /// What becomes of streams beyond that.
    pub unseen: Unseen,
    /// Rows of a stream that can wait for [`Monitor::commit`]; 0: none.
    pub pending_rows: usize,
    /// Active features that a waiting row has room for; without `collect`, or if it collects
    /// watched features only, that is their number, whatever is said here.
    pub pending_features: usize,
    /// Statistics of the committed rows. Collecting features that no rule names needs a full
    /// encode of every row.
    pub collect: Option<Collect>,
    /// Where events go besides the callback.
    pub ring: Option<Arc<EventRing>>,
}

impl Default for MonitorOptions {
    fn default() -> Self {
        MonitorOptions {
            streams: 64,
            unseen: Unseen::Evict,
            pending_rows: 0,
            pending_features: 1024,
            collect: None,
            ring: None,
        }
    }
}

impl MonitorOptions {
    /// Streams watched at once.
    #[must_use]
    pub fn streams(mut self, count: usize) -> Self {
        self.streams = count;
        self
    }

    /// What becomes of streams beyond that.
    #[must_use]
    pub fn unseen(mut self, policy: Unseen) -> Self {
        self.unseen = policy;
        self
    }

    /// Rows of a stream that can wait for a commit.
    #[must_use]
    pub fn pending_rows(mut self, rows: usize) -> Self {
        self.pending_rows = rows;
        self
    }

    /// Statistics of the committed rows.
    #[must_use]
    pub fn collect(mut self, collect: Collect) -> Self {
        self.collect = Some(collect);
        self
    }

    /// Where events go besides the callback.
    #[must_use]
    pub fn ring(mut self, ring: Arc<EventRing>) -> Self {
        self.ring = Some(ring);
        self
    }
}

/// What a monitor has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Rows that rules have seen, with those that were not finite.
    pub rows: u64,
    /// Of these, rows that were not finite.
    pub non_finite: u64,
    /// Rows that were rolled back.
    pub rolled_back: u64,
    /// Rows refused because their stream had no place.
    pub refused: u64,
    /// Streams forgotten to make room.
    pub evicted: u64,
    /// Alerts.
    pub events: u64,
    /// Alerts beyond a rule's limit.
    pub suppressed: u64,
}

/// A row that waits.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    info: RowInfo,
    status: RowStatus,
    count: usize,
}

/// Rules at work: reads their features out of rows, keeps each stream's state, emits events.
///
/// Rows of one stream come in their order; streams may be interleaved in any way without changing
/// what each of them gives. A row costs the encoder rows of the features that the rules name, and
/// work proportional to the rules; nothing is allocated. One monitor belongs to one thread at a
/// time; threads have one each, share the [`CompiledRules`] and the [`EventRing`], and merge their
/// statistics.
///
/// # Speculative decoding
/// Rows that may yet be rejected are [proposed](Monitor::propose): they wait, and enter neither
/// statistics nor rules until they are [committed](Monitor::commit). [Rolled
/// back](Monitor::rollback), they were never there: nothing has to be undone, so nothing can differ.
///
/// ```
/// # fn main() -> Result<(), sae::Error> {
/// use sae::monitor::{Monitor, MonitorOptions, Rule, RowInfo, Rules};
/// use sae::{OpenOptions, Rows, Sae, Scratch};
/// # let (name, bytes, config) = sae::doc_example::tiny();
/// let sae = Sae::from_bytes(&name, &bytes, Some(&config), &OpenOptions::default())?;
/// let rules = Rules::new("demo").rule(Rule::threshold("high", &[0], 2.0));
/// let rules = std::sync::Arc::new(sae.compile_rules(&rules)?);
/// let mut monitor = Monitor::new(rules, &MonitorOptions::default())?;
/// let mut scratch = Scratch::new(&sae)?;
/// let rows = [1.0, 0.0, 3.0, 0.0, 3.5, 0.0]; // feature 0 is 1, 3, 3.5
/// let infos = [0, 1, 2].map(|position| RowInfo::new(7, position));
/// let mut alerts = Vec::new();
/// monitor.observe(&sae, Rows::from_f32(&rows, 2)?, &infos, &mut scratch, &mut |event| {
///     alerts.push((event.row.stream, event.row.position, event.score));
/// })?;
/// assert_eq!(alerts, [(7, 1, 3.0)]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Monitor {
    rules: Arc<CompiledRules>,
    streams: Streams,
    unseen: Unseen,
    /// `[streams, rules.words]`
    states: Vec<u64>,
    /// Rows of each stream so far.
    rows: Vec<u64>,
    /// One for each stream, if a rule pools.
    pools: Vec<Pool>,
    /// `[streams, pending_rows]`
    waiting: Vec<Waiting>,
    waiting_count: Vec<usize>,
    /// `[streams, pending_rows, room]`
    waiting_indices: Vec<u32>,
    waiting_values: Vec<f32>,
    pending_rows: usize,
    room: usize,
    accumulator: Option<Accumulator>,
    ring: Option<Arc<EventRing>>,
    encodes: bool,
    counts: Counts,
    /// Alerts and suppressed alerts of each rule.
    of_rules: Vec<[u64; 2]>,
    /// The row at hand.
    found: Features,
    read: Vec<f32>,
    values: Vec<f32>,
}

/// Receives events.
pub type OnEvent<'c> = dyn FnMut(&Event) + 'c;

impl Monitor {
    /// Nothing seen yet.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the statistics are to be of another model than the rules;
    /// what [`Accumulator::new`] gives; [`Error::Limit`], [`Error::OutOfMemory`].
    pub fn new(rules: Arc<CompiledRules>, options: &MonitorOptions) -> Result<Self, Error> {
        let accumulator = options.collect.clone().map(Accumulator::new).transpose()?;
        let watched = rules.features.len();
        let mut encodes = false;
        if let Some(accumulator) = &accumulator {
            let collect = accumulator.collect();
            if (collect.model, collect.d_sae) != (rules.model, rules.d_sae) {
                return Err(Error::InvalidArgument {
                    what: "statistics of a monitor",
                    expected: alloc::format!("those of model {:016x}, as the rules", rules.model),
                    found: alloc::format!("those of model {:016x}", collect.model),
                });
            }
            let known = |feature: &u32| rules.features.binary_search(feature).is_ok();
            let set = collect.cooccurrence.iter().all(known);
            let listed = collect.features.as_ref();
            encodes = !(set && listed.is_some_and(|list| list.iter().all(known)));
        }
        let streams = options.streams.max(1);
        let room = match encodes {
            true => options.pending_features.max(watched),
            false => watched,
        };
        let pending = streams.saturating_mul(options.pending_rows);
        let pools = if rules.pools { streams } else { 0 };
        Ok(Monitor {
            streams: Streams::new(streams)?,
            unseen: options.unseen,
            states: filled(streams.saturating_mul(rules.words), 0)?,
            rows: filled(streams, 0)?,
            pools: (0..pools)
                .map(|_| Pool::new(watched))
                .collect::<Result<_, _>>()?,
            waiting: filled(pending, Waiting::default())?,
            waiting_count: filled(streams, 0)?,
            waiting_indices: filled(pending.saturating_mul(room), 0)?,
            waiting_values: filled(pending.saturating_mul(room), 0.0)?,
            pending_rows: options.pending_rows,
            room,
            accumulator,
            ring: options.ring.clone(),
            encodes,
            counts: Counts::default(),
            of_rules: filled(rules.len(), [0; 2])?,
            found: Features::with_capacity(
                1,
                if encodes {
                    rules.d_sae as usize
                } else {
                    watched
                },
            )?,
            read: filled(watched, 0.0)?,
            values: filled(watched, 0.0)?,
            rules,
        })
    }

    /// Bytes held besides the rules and the ring; they never change.
    pub fn bytes(&self) -> u64 {
        fn of<T>(values: &[T]) -> u64 {
            size_of_val(values) as u64
        }
        let found = self.found.capacity_bytes();
        let lists = [
            self.streams.bytes(),
            of(&self.states),
            of(&self.rows),
            self.pools.iter().map(Pool::bytes).sum(),
            of(&self.waiting),
            of(&self.waiting_count),
            of(&self.waiting_indices),
            of(&self.waiting_values),
            self.accumulator.as_ref().map_or(0, Accumulator::bytes),
            of(&self.of_rules),
            found,
            of(&self.read),
            of(&self.values),
            size_of::<Self>() as u64,
        ];
        lists.iter().sum()
    }

    /// Watches rows at the model's input site, through the rules' own encoder rows, or a full
    /// encode where the statistics or the model's rule need one. `infos` has one entry per row, or
    /// none: then the rows are stream 0, one position after the other. Rows without a place
    /// are refused and counted; so are rows that are not finite, which rules but `NonFinite` leave
    /// alone. Events go to `on_event` and to the ring.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the rules are those of another model, a stream has rows that
    /// wait, or a condition is out of range; [`Error::Length`] for rows, infos or scratch of the
    /// wrong size. Nothing is watched then.
    pub fn observe(
        &mut self,
        sae: &Sae<'_>,
        rows: Rows<'_>,
        infos: &[RowInfo],
        scratch: &mut Scratch<'_>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<(), Error> {
        self.check(sae, rows, infos)?;
        self.check_infos(rows.rows(), infos, false)?;
        self.each_row(sae, rows, scratch, |this, number, row| {
            let info = this.info(infos, number, false);
            this.take(row, &info, on_event);
            Ok(())
        })
    }

    /// Takes rows that may yet be rejected: they wait, in the order of their stream.
    ///
    /// # Errors
    /// As [`Monitor::observe`], and [`Error::Limit`] if a stream would have more rows waiting than
    /// there is room for: nothing waits of this call then. A row with more active features than
    /// there is room for is an [`Error::Limit`] too; the rows before it wait.
    pub fn propose(
        &mut self,
        sae: &Sae<'_>,
        rows: Rows<'_>,
        infos: &[RowInfo],
        scratch: &mut Scratch<'_>,
    ) -> Result<(), Error> {
        self.check(sae, rows, infos)?;
        self.check_infos(rows.rows(), infos, true)?;
        self.each_row(sae, rows, scratch, |this, number, row| {
            let info = this.info(infos, number, true);
            this.wait(row, &info)
        })
    }

    /// Watches rows whose features are known, as [`Monitor::observe`] does.
    ///
    /// # Errors
    /// As [`Monitor::observe`], and [`Error::FeatureOutOfRange`].
    pub fn observe_features(
        &mut self,
        features: &Features,
        infos: &[RowInfo],
        on_event: &mut OnEvent<'_>,
    ) -> Result<(), Error> {
        self.check_features(features, infos)?;
        self.check_infos(features.rows(), infos, false)?;
        for (number, row) in features.iter().enumerate() {
            let info = self.info(infos, number, false);
            self.take(row, &info, on_event);
        }
        Ok(())
    }

    /// Takes rows whose features are known, and which may yet be rejected, as
    /// [`Monitor::propose`] does.
    ///
    /// # Errors
    /// As [`Monitor::propose`], and [`Error::FeatureOutOfRange`].
    pub fn propose_features(
        &mut self,
        features: &Features,
        infos: &[RowInfo],
    ) -> Result<(), Error> {
        self.check_features(features, infos)?;
        self.check_infos(features.rows(), infos, true)?;
        for (number, row) in features.iter().enumerate() {
            let info = self.info(infos, number, true);
            self.wait(row, &info)?;
        }
        Ok(())
    }

    /// Forgets a stream, its waiting rows included, and frees its place. Returns whether it had
    /// one.
    pub fn end_stream(&mut self, stream: u64) -> bool {
        self.rollback(stream, usize::MAX);
        self.streams.remove(stream).is_some()
    }

    /// Appends a stream's pooled row of the watched features to `out`, if a rule pools and the
    /// stream has a place; returns whether it did.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn pooled(&self, stream: u64, pooling: Pooling, out: &mut Features) -> Result<bool, Error> {
        let place = self.streams.find(stream);
        let Some(pool) = place.and_then(|place| self.pools.get(place)) else {
            return Ok(false);
        };
        for (slot, &feature) in self.rules.features.iter().enumerate() {
            let value = pool.value(slot, pooling) as f32;
            if value != 0.0 {
                out.push(feature, value)?;
            }
        }
        out.end_row(RowStatus::Ok)?;
        Ok(true)
    }

    /// The rules.
    pub fn rules(&self) -> &Arc<CompiledRules> {
        &self.rules
    }

    /// What was done.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Alerts of a rule, and those beyond its limit.
    pub fn rule_counts(&self, rule: usize) -> (u64, u64) {
        let [events, suppressed] = self.of_rules.get(rule).copied().unwrap_or([0; 2]);
        (events, suppressed)
    }

    /// Streams that have a place.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// The statistics of the rows watched, if they are collected.
    pub fn statistics(&self) -> Option<&Accumulator> {
        self.accumulator.as_ref()
    }

    /// The same, to merge or to clear.
    pub fn statistics_mut(&mut self) -> Option<&mut Accumulator> {
        self.accumulator.as_mut()
    }

    /// The ring that events go to.
    pub fn ring(&self) -> Option<&Arc<EventRing>> {
        self.ring.as_ref()
    }

    /// Whether rows are encoded in full.
    pub fn encodes(&self) -> bool {
        self.encodes || self.rules.reads_all()
    }

    /// What is known of a row; `waits`: it comes after those that wait.
    fn info(&self, infos: &[RowInfo], number: usize, waits: bool) -> RowInfo {
        infos.get(number).copied().unwrap_or_else(|| {
            let place = self.streams.find(0);
            let seen = place.and_then(|place| self.rows.get(place)).copied();
            let waiting = if waits { self.pending(0) as u64 } else { 0 };
            RowInfo::new(0, seen.unwrap_or(0) + waiting)
        })
    }

    /// Calls `take` with the features of each row: of all, or of those that are read.
    fn each_row(
        &mut self,
        sae: &Sae<'_>,
        rows: Rows<'_>,
        scratch: &mut Scratch<'_>,
        mut take: impl FnMut(&mut Self, usize, FeaturesRow<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut found = core::mem::take(&mut self.found);
        let mut one_by_one = || {
            for number in 0..rows.rows() {
                let row = rows.part(number, 1);
                match self.encodes {
                    true => sae.encode(row, scratch, &mut found)?,
                    false => self.read_out(sae, row, scratch, &mut found)?,
                }
                if let Some(row) = found.row(0) {
                    take(self, number, row)?;
                }
            }
            Ok(())
        };
        let result = one_by_one();
        self.found = found;
        result
    }

    fn read_out(
        &mut self,
        sae: &Sae<'_>,
        row: Rows<'_>,
        scratch: &mut Scratch<'_>,
        found: &mut Features,
    ) -> Result<(), Error> {
        let mut status = [RowStatus::Ok];
        sae.readout(&self.rules.set, row, scratch, &mut self.read, &mut status)?;
        found.clear();
        for (&feature, &value) in self.rules.features.iter().zip(&self.read) {
            if value != 0.0 {
                found.push(feature, value)?;
            }
        }
        let [status] = status;
        found.end_row(status)
    }

    /// The place of a row's stream, a new one if need be; `None`: the row is refused.
    fn place(&mut self, stream: u64) -> Option<usize> {
        if let Some(place) = self.streams.find(stream) {
            self.streams.touch(place);
            return Some(place);
        }
        let place = self.streams.insert(stream).or_else(|| {
            if self.unseen == Unseen::Refuse {
                return None;
            }
            let idle = |&place: &usize| self.waiting_count.get(place) == Some(&0);
            let oldest = self.streams.oldest_first().find(idle)?;
            self.streams.remove(self.streams.id(oldest));
            self.counts.evicted += 1;
            self.streams.insert(stream)
        })?;
        let words = self.rules.words;
        if let Some(state) = self.states.get_mut(place * words..(place + 1) * words) {
            state.fill(0);
        }
        if let Some(rows) = self.rows.get_mut(place) {
            *rows = 0;
        }
        if let Some(pool) = self.pools.get_mut(place) {
            pool.clear();
        }
        if let Some(count) = self.waiting_count.get_mut(place) {
            *count = 0;
        }
        Some(place)
    }

    /// Watches a row.
    fn take(&mut self, row: FeaturesRow<'_>, info: &RowInfo, on_event: &mut OnEvent<'_>) {
        let Some(place) = self.place(info.id.stream) else {
            self.counts.refused += 1;
            return;
        };
        if let Some(accumulator) = &mut self.accumulator {
            accumulator.add_checked(row, info);
        }
        let finite = row.status != RowStatus::NonFinite;
        self.counts.rows += 1;
        self.counts.non_finite += u64::from(!finite);
        let rules = &self.rules;
        let Some(rows) = self.rows.get_mut(place) else {
            return;
        };
        *rows += 1;
        spread(row, &rules.features, &mut self.values);
        let mut pool = self.pools.get_mut(place);
        if let (Some(pool), true) = (&mut pool, finite) {
            pool.begin_row();
            for (slot, &value) in self.values.iter().enumerate() {
                pool.add_value(slot, value);
            }
        }
        let view = View {
            values: &self.values,
            signal: info.signal,
            pool: pool.as_deref(),
            row: *rows,
            finite,
        };
        let words = place * rules.words..(place + 1) * rules.words;
        let state = self.states.get_mut(words).unwrap_or(&mut []);
        let pairs = rules.rules.iter().zip(&mut self.of_rules);
        for (number, (rule, [events, suppressed])) in pairs.enumerate() {
            match rule.step(state, &view) {
                Verdict::Quiet => {}
                Verdict::Suppressed => {
                    *suppressed += 1;
                    self.counts.suppressed += 1;
                }
                Verdict::Alert(score) => {
                    *events += 1;
                    self.counts.events += 1;
                    let mut event = Event::new(number as u32, info.id, score);
                    rule.contributions(state, &view, &rules.features, &mut event);
                    on_event(&event);
                    if let Some(ring) = &self.ring {
                        ring.push(&event);
                    }
                }
            }
        }
    }
}

/// `to[i]` is the value of `features[i]`. Both lists ascend.
fn spread(row: FeaturesRow<'_>, features: &[u32], to: &mut [f32]) {
    to.fill(0.0);
    let mut pairs = row.indices.iter().zip(row.values).peekable();
    for (feature, to) in features.iter().zip(to) {
        while let Some((index, value)) = pairs.peek() {
            if *index > feature {
                break;
            }
            if *index == feature {
                *to = **value;
            }
            pairs.next();
        }
    }
}
