//! Rows that were proposed: they wait until they are committed or rolled back.

use super::*;

impl Monitor {
    /// Watches the first `rows` waiting rows of a stream; the others go on waiting. More than
    /// there are: all of them. Returns how many were watched.
    pub fn commit(&mut self, stream: u64, rows: usize, on_event: &mut OnEvent<'_>) -> usize {
        let Some(place) = self.streams.find(stream) else {
            return 0;
        };
        let waiting = self.waiting_count.get(place).copied().unwrap_or(0);
        let rows = rows.min(waiting);
        // The buffers are put aside, so that the rows can be looked at while they are taken.
        let all = core::mem::take(&mut self.waiting);
        let indices = core::mem::take(&mut self.waiting_indices);
        let values = core::mem::take(&mut self.waiting_values);
        let first = place * self.pending_rows;
        for (number, waiting) in all.iter().enumerate().skip(first).take(rows) {
            let range = number * self.room..number * self.room + waiting.count;
            let row = FeaturesRow {
                indices: indices.get(range.clone()).unwrap_or(&[]),
                values: values.get(range).unwrap_or(&[]),
                status: waiting.status,
            };
            self.take(row, &waiting.info, on_event);
        }
        (self.waiting, self.waiting_indices, self.waiting_values) = (all, indices, values);
        // What waits on moves to the front.
        let (from, end) = (first + rows, first + waiting);
        self.waiting.copy_within(from..end, first);
        let room = self.room;
        self.waiting_indices
            .copy_within(from * room..end * room, first * room);
        self.waiting_values
            .copy_within(from * room..end * room, first * room);
        if let Some(count) = self.waiting_count.get_mut(place) {
            *count = waiting - rows;
        }
        rows
    }

    /// Forgets the last `rows` waiting rows of a stream; more than there are: all of them. Returns
    /// how many were forgotten.
    pub fn rollback(&mut self, stream: u64, rows: usize) -> usize {
        let place = self.streams.find(stream);
        let Some(count) = place.and_then(|place| self.waiting_count.get_mut(place)) else {
            return 0;
        };
        let rows = rows.min(*count);
        *count -= rows;
        self.counts.rolled_back += rows as u64;
        rows
    }

    /// Rows of a stream that wait.
    pub fn pending(&self, stream: u64) -> usize {
        let place = self.streams.find(stream);
        let count = place.and_then(|place| self.waiting_count.get(place));
        count.copied().unwrap_or(0)
    }

    /// Puts a row behind those of its stream that wait.
    pub(super) fn wait(&mut self, row: FeaturesRow<'_>, info: &RowInfo) -> Result<(), Error> {
        let Some(place) = self.place(info.id.stream) else {
            self.counts.refused += 1;
            return Ok(());
        };
        let Some(count) = self.waiting_count.get_mut(place) else {
            return Ok(());
        };
        let number = place * self.pending_rows + *count;
        let start = number * self.room;
        // Of a row that was encoded elsewhere, what nobody here reads needs no room.
        let mut kept = 0;
        let all = self.encodes;
        let watched = &self.rules.features;
        let pairs = row.indices.iter().zip(row.values);
        for (&index, &value) in pairs.filter(|pair| all || watched.binary_search(pair.0).is_ok()) {
            let (true, Some(to_index), Some(to_value)) = (
                kept < self.room,
                self.waiting_indices.get_mut(start + kept),
                self.waiting_values.get_mut(start + kept),
            ) else {
                return Err(Error::Limit {
                    what: "active features of a row that waits".into(),
                    limit: self.room as u64,
                    found: row.indices.len() as u64,
                });
            };
            (*to_index, *to_value) = (index, value);
            kept += 1;
        }
        if let Some(waiting) = self.waiting.get_mut(number) {
            *waiting = Waiting {
                info: *info,
                status: row.status,
                count: kept,
            };
            *count += 1;
        }
        Ok(())
    }
}
