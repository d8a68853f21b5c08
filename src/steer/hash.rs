//! The hash that names a plan in audits.

use super::plan::Plan;

impl Plan {
    /// The plan's hash: equal for plans that say the same. FNV-1a, 64 bits, over the plan's JSON
    /// with the keys of every object sorted and numbers as f64 bits; its name is part of it.
    pub fn hash(&self) -> u64 {
        crate::json::hash(&self.to_json())
    }
}
