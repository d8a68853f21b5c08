//! YAML side-cars (`config.yaml`, `conf.yaml`, `metadata.yaml`) as JSON values, so that
//! conventions read one kind of config.
//!
//! Booleans are `true` and `false` alone, as PyYAML writes them; `.inf` and `.nan`, which JSON has
//! no number for, become texts; a key that occurs twice, and a tag that stands for a class of some
//! program (`!!python/object`), are errors.

use crate::error::Error;
use alloc::format;
use alloc::string::{String, ToString};
use serde_json::Value;
use serde_saphyr::NonFiniteFloatPolicy;

const CONTAINER: &str = "yaml";

/// Largest text that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Most values in a text, each counted as often as it is referred to.
pub const MAX_VALUES: usize = 1 << 16;

/// Deepest nesting.
pub const MAX_DEPTH: usize = 32;

/// The one document of the text.
///
/// # Errors
/// [`Error::Limit`] or [`Error::Malformed`].
pub fn read(text: &[u8]) -> Result<Value, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::Limit {
            what: "the size of the YAML text".into(),
            limit: MAX_BYTES as u64,
            found: text.len() as u64,
        });
    }
    let malformed = |what: String| Error::Malformed {
        container: CONTAINER,
        what,
    };
    let text = core::str::from_utf8(text).map_err(|error| malformed(format!("{error}")))?;
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 2 * MAX_VALUES,
            max_nodes: MAX_VALUES,
            max_recorded_anchor_events: MAX_VALUES,
            max_recorded_anchor_bytes: MAX_BYTES,
            max_total_scalar_bytes: 4 * MAX_BYTES,
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_documents: 1,
        },
        strict_booleans: true,
        reject_unsupported_tags: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        // The message may quote a text of the file, of any length.
        malformed(error.to_string().chars().take(300).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn configs_are_read() {
        let text = b"model: &m Qwen/Qwen3\nk: 8\nlr: 1.0e-05\ntied: true\nword: yes\n\
            big: .inf\nnone: null\nlist: [1, -2.5, *m]\nnested:\n  a:\n  - b: '8'\n";
        let expected = json!({
            "model": "Qwen/Qwen3", "k": 8, "lr": 1e-5, "tied": true, "word": "yes",
            "big": ".inf", "none": null, "list": [1, -2.5, "Qwen/Qwen3"],
            "nested": {"a": [{"b": "8"}]},
        });
        assert_eq!(read(text), Ok(expected));
        assert_eq!(read(b""), Ok(Value::Null));
    }

    #[test]
    fn anything_doubtful_is_refused() {
        let bomb: String = (0..40)
            .map(|i| match i {
                0 => "a0: &a0 [x]\n".into(),
                i => format!("a{i}: &a{i} [*a{0}, *a{0}]\n", i - 1),
            })
            .collect();
        for text in [
            &b"a: 1\na: 2\n"[..],
            b"a: !!python/object/apply:os.system [x]\n",
            b"a: !mine 1\n",
            b"a: [1\n",
            b"a: 1\n---\nb: 2\n",
            b"a: *nowhere\n",
            b"\xff",
            bomb.as_bytes(),
            "[".repeat(40).as_bytes(),
            "- ".repeat(40).as_bytes(),
        ] {
            let result = read(text);
            let shown: String = String::from_utf8_lossy(text).chars().take(50).collect();
            assert!(
                matches!(result, Err(Error::Malformed { .. })),
                "{shown}: {result:?}"
            );
        }
        let long = read(&[b'#'; MAX_BYTES + 1]);
        assert!(matches!(long, Err(Error::Limit { .. })), "{long:?}");
    }
}
