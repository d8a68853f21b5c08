//! What the host knows about a row besides its values.

/// Where a row comes from: a stream of the host's numbering and a position in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId {
    /// The stream (sequence, request) that the row belongs to.
    pub stream: u64,
    /// Its position there.
    pub position: u64,
}

/// What the host knows about a row besides its values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowInfo {
    /// Where it comes from.
    pub id: RowId,
    /// Its scalar label; NaN: none.
    pub label: f64,
    /// Its condition (class, group, with or without an instruction), for accumulators that
    /// collect by condition.
    pub condition: u32,
    /// A number of the host's own that rules can watch (an error norm, say); NaN: none.
    pub signal: f64,
}

impl Default for RowInfo {
    fn default() -> Self {
        RowInfo {
            id: RowId::default(),
            label: f64::NAN,
            condition: 0,
            signal: f64::NAN,
        }
    }
}

impl RowInfo {
    /// A row of a stream, without a label.
    pub fn new(stream: u64, position: u64) -> Self {
        RowInfo {
            id: RowId { stream, position },
            ..Self::default()
        }
    }

    /// With a scalar label.
    #[must_use]
    pub fn label(mut self, label: f64) -> Self {
        self.label = label;
        self
    }

    /// Under a condition.
    #[must_use]
    pub fn condition(mut self, condition: u32) -> Self {
        self.condition = condition;
        self
    }

    /// With a number of the host's own.
    #[must_use]
    pub fn signal(mut self, signal: f64) -> Self {
        self.signal = signal;
        self
    }
}
