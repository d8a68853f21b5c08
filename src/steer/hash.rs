//! The hash that names a plan in audits: FNV-1a, 64 bits, over the plan's canonical form.
//!
//! The canonical form is a walk over the plan's JSON with the keys of every object sorted and
//! numbers as f64 bits; it depends neither on the order of keys in a file nor on how numbers were
//! written. The plan's name is part of it.

use super::plan::Plan;
use alloc::vec::Vec;
use serde_json::Value;

impl Plan {
    /// The plan's hash: equal for plans that say the same.
    pub fn hash(&self) -> u64 {
        let mut hash = Hash(0xcbf2_9ce4_8422_2325);
        hash.value(&self.to_json());
        hash.0
    }
}

struct Hash(u64);

impl Hash {
    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn text(&mut self, text: &str) {
        self.bytes(&(text.len() as u64).to_le_bytes());
        self.bytes(text.as_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.bytes(b"0"),
            Value::Bool(value) => self.bytes(if *value { b"t" } else { b"f" }),
            Value::Number(number) => {
                self.bytes(b"n");
                // `+ 0.0` makes one zero of the two.
                let number = number.as_f64().unwrap_or(0.0) + 0.0;
                self.bytes(&number.to_bits().to_le_bytes());
            }
            Value::String(text) => {
                self.bytes(b"s");
                self.text(text);
            }
            Value::Array(values) => {
                self.bytes(b"[");
                self.bytes(&(values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| self.value(value));
            }
            Value::Object(map) => {
                self.bytes(b"{");
                let mut keys: Vec<_> = map.keys().collect();
                keys.sort_unstable();
                for key in keys {
                    self.text(key);
                    self.value(map.get(key).unwrap_or(&Value::Null));
                }
                self.bytes(b"}");
            }
        }
    }
}
