//! Explanation exports: every form that is read, and one test for each rejection.
//!
//! The lines here are written in the form of Neuronpedia's exports (`export-data.py`): the keys of
//! its table `Explanation`, features as texts, embeddings as texts.

use sae::labels::{self, MAX_DESCRIPTION, MAX_NAME, MAX_STRING, MAX_WAITING};
use sae::{Code, Error, Labels};

/// A line of a batch.
fn line(index: &str, description: &str, explainer: &str) -> String {
    format!(
        r#"{{"id": "cm1", "modelId": "gpt2-small", "layer": "6-res-jb", "index": {index}, "authorId": "a", "description": {description}, "embedding": "[0.01,-0.02,0.03]", "typeName": "oai_token-act-pair", "explanationModelName": "{explainer}", "umap_x": 1.5, "umap_cluster": null}}"#
    )
}

fn read(text: impl AsRef<[u8]>) -> Result<Labels, Error> {
    Labels::from_bytes(text.as_ref())
}

/// Each label as `feature: text (explainer, method)`.
fn all(labels: &Labels) -> Vec<String> {
    let line = |it: sae::Label<'_>| {
        format!(
            "{}: {} ({}, {})",
            it.feature, it.text, it.explainer, it.method
        )
    };
    labels.iter().map(line).collect()
}

#[track_caller]
fn refused(text: impl AsRef<[u8]>, code: Code, words: &str) {
    let error = match read(text) {
        Ok(labels) => panic!("it was read: {:?}", all(&labels)),
        Err(error) => error,
    };
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.to_string().len() < 900, "too long: {error}");
}

#[test]
fn json_lines_are_read() {
    let lines = [
        line(r#""204""#, r#""time-related phrases""#, "gpt-4o-mini"),
        line("7", r#""\u00fcber \"quoted\" \ud83d\ude00""#, "gpt-4o-mini"),
        line(r#""204""#, r#"" dates ""#, "claude-3-5-sonnet"),
        line(r#""0""#, "null", "gpt-4o-mini"),
        line(r#""1""#, r#""  ""#, "gpt-4o-mini"),
    ];
    for text in [
        lines.join("\n"),
        lines.join("\r\n\n") + "\n\n",
        format!("\u{feff}{}", lines.join("\n")),
        format!("[{}]", lines.join(",\n")),
        format!(
            r#"{{"modelId":"gpt2-small","saeId":"6-res-jb","explanationsCount":5,"explanations":[{}]}}"#,
            lines.join(",")
        ),
    ] {
        let labels = read(&text).unwrap();
        assert_eq!(
            all(&labels),
            [
                "7: über \"quoted\" 😀 (gpt-4o-mini, oai_token-act-pair)",
                "204: time-related phrases (gpt-4o-mini, oai_token-act-pair)",
                "204: dates (claude-3-5-sonnet, oai_token-act-pair)",
            ]
        );
        assert_eq!(
            (labels.count(), labels.features(), labels.blank()),
            (3, 2, 2)
        );
        assert_eq!(
            (labels.model(), labels.source()),
            (Some("gpt2-small"), Some("6-res-jb"))
        );
        assert_eq!(labels.text(204), Some("time-related phrases"));
        assert_eq!(labels.of(204).len(), 2);
        for nowhere in [0, 1, 8, u32::MAX] {
            assert_eq!((labels.text(nowhere), labels.of(nowhere).len()), (None, 0));
            assert_eq!(labels.to_c(nowhere, 0), None);
        }
        let (text, explainer) = labels.to_c(204, 1).unwrap();
        assert_eq!((text, explainer), (c"dates", c"claude-3-5-sonnet"));
        assert_eq!(labels.to_c(204, 2), None);
    }
}

/// What the web API says of one feature: the explanations need not repeat its number, which may
/// also stand behind them.
#[test]
fn features_of_the_web_api_are_read() {
    let explanations = r#"[{"description":"a","explanationModelName":"m"},{"description":"b"}]"#;
    for text in [
        format!(
            r#"{{"modelId":"g","layer":"6-res","index":"5","maxActApprox":3.5,"pos_str":["x"],"explanations":{explanations},"activations":[{{"tokens":["a"],"values":[1.5]}}]}}"#
        ),
        format!(r#"{{"explanations":{explanations},"index":5,"layer":"6-res","modelId":"g"}}"#),
    ] {
        let labels = read(&text).unwrap();
        assert_eq!(all(&labels), ["5: a (m, )", "5: b (, )"]);
        assert_eq!(labels.source(), Some("6-res"));
    }
    // A feature that nobody explained.
    let text = r#"{"index":1,"explanations":[]} {"index":2,"explanations":null}
        {"index":3,"explanations":[{"description":"c"}]}"#;
    assert_eq!(all(&read(text).unwrap()), ["3: c (, )"]);
}

#[test]
fn the_largest_feature_is_read() {
    let labels = read(line("4294967295", r#""x""#, "m")).unwrap();
    assert_eq!(labels.text(u32::MAX), Some("x"));
    assert_eq!(labels.iter().len(), 1);
}

#[test]
fn a_feature_beyond_the_model_is_named() {
    let text = [line("3", r#""x""#, "m"), line("16", r#""y""#, "m")].join("\n");
    let labels = read(text).unwrap();
    assert_eq!(labels.check(17), Ok(()));
    let error = labels.check(16).unwrap_err();
    let expected = Error::FeatureOutOfRange {
        feature: 16,
        d_sae: 16,
    };
    assert_eq!(error, expected);
}

#[test]
fn features_that_are_none() {
    for index in [
        "-1",
        "1.5",
        "1e3",
        "4294967296",
        "99999999999999999999",
        r#""""#,
        r#""-1""#,
        r#""+1""#,
        r#"" 1""#,
        r#""1.0""#,
        r#""0x1""#,
        r#""4294967296""#,
        "null",
        "true",
        "[1]",
        "{}",
    ] {
        refused(
            line(index, r#""x""#, "m"),
            Code::Malformed,
            "number of a feature",
        );
    }
}

#[test]
fn an_explanation_without_a_feature() {
    refused(
        r#"{"description": "x"}"#,
        Code::Malformed,
        "without `index`",
    );
    refused(
        r#"{"explanations": [{"description": "x"}]}"#,
        Code::Malformed,
        "without `index`",
    );
}

#[test]
fn an_object_that_says_nothing() {
    refused(
        r#"{"modelId": "g", "layer": "6-res", "index": "0", "pos_str": ["x"]}"#,
        Code::Malformed,
        "is this an explanation export?",
    );
    refused(
        r#"{"index": 0, "explanations": [{"typeName": "x"}]}"#,
        Code::Malformed,
        "is this an explanation export?",
    );
}

/// A line of the export's `features`, with the keys of `export_features`.
fn feature(index: &str, statistics: &str) -> String {
    format!(
        r#"{{"modelId": "gpt2-small", "layer": "6-res-jb", "index": {index}, {statistics}, "creatorId": "a", "neuron_alignment_indices": [1, 2], "neg_str": ["a"], "neg_values": [-0.5], "vector": [], "hookName": null, "hasVector": false}}"#
    )
}

/// Feature, maximum, density and mean.
type Numbers = (u32, Option<f64>, Option<f64>, Option<f64>);

fn observed(labels: &Labels) -> Vec<Numbers> {
    let all = labels.all_observed();
    all.map(|it| (it.feature, it.max, it.density, it.mean))
        .collect()
}

/// The exporter's histogram of `values`: counts in so many bins from the lowest to the highest
/// value, and the middles of the bins.
fn histogram(values: &[f64], bins: usize) -> (Vec<f64>, Vec<f64>) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let width = (high - low) / bins as f64;
    let mut heights = vec![0.0; bins];
    for value in values {
        heights[(((value - low) / width) as usize).min(bins - 1)] += 1.0;
    }
    let middles = (0..bins).map(|bin| low + (bin as f64 + 0.5) * width);
    (heights, middles.collect())
}

#[test]
fn statistics_are_read_with_and_without_labels() {
    let lines = [
        feature(r#""9""#, r#""maxActApprox": 22.5, "frac_nonzero": 0.0086"#),
        feature("3", r#""maxActApprox": 4, "frac_nonzero": null"#),
        // Nobody looked; it never fires; what makes no sense.
        feature("4", r#""maxActApprox": 0, "frac_nonzero": 0"#),
        feature("5", r#""maxActApprox": null, "frac_nonzero": 1.5"#),
        feature("6", r#""maxActApprox": "many", "frac_nonzero": -0.1"#),
        feature("7", r#""maxActApprox": -1, "frac_nonzero": {"a": [1]}"#),
    ];
    let expected = [
        (3, Some(4.0), None, None),
        (4, None, Some(0.0), None),
        (5, None, None, None),
        (6, None, None, None),
        (7, None, None, None),
        (9, Some(22.5), Some(0.0086), None),
    ];
    let labels = read(lines.join("\n")).unwrap();
    assert_eq!(observed(&labels), expected);
    assert_eq!((labels.count(), labels.blank()), (0, 0));
    assert_eq!(labels.source(), Some("6-res-jb"));
    assert_eq!(labels.observed(8), None);
    assert_eq!(labels.check(10), Ok(()));
    assert_eq!(labels.check(9).unwrap_err().code(), Code::FeatureOutOfRange);

    // Beside a description, around explanations, and before or behind them.
    for text in [
        r#"{"index": 1, "description": "x", "maxActApprox": 2.5}"#,
        r#"{"index": 1, "maxActApprox": 2.5, "explanations": [{"description": "x"}]}"#,
        r#"{"explanations": [{"description": "x"}], "maxActApprox": 2.5, "index": "1"}"#,
        r#"{"explanations": [{"index": 1, "description": "x", "maxActApprox": 2.5}]}"#,
        // Two records of one feature that add to each other.
        r#"{"index": 1, "description": "x"} {"index": 1, "maxActApprox": 2.5}"#,
        r#"[{"index": 1, "description": "x", "maxActApprox": 2.5}, {"index": 1, "maxActApprox": 2.5}]"#,
    ] {
        let labels = read(text).unwrap();
        assert_eq!(labels.text(1), Some("x"), "{text}");
        assert_eq!(observed(&labels), [(1, Some(2.5), None, None)], "{text}");
    }
}

#[test]
fn statistics_that_contradict_each_other() {
    for (key, one, other) in [
        ("maxActApprox", "2.5", "3"),
        ("frac_nonzero", "0.5", "0.25"),
    ] {
        let text = [
            feature("8", &format!(r#""{key}": {one}"#)),
            feature("8", &format!(r#""{key}": {other}"#)),
        ];
        refused(text.join("\n"), Code::Malformed, key);
        refused(text.join("\n"), Code::Malformed, "feature 8: ");
        let twice = feature("8", &format!(r#""{key}": {one}, "{key}": {one}"#));
        refused(twice, Code::Malformed, "occurs twice");
    }
    refused(r#"{"maxActApprox": 3}"#, Code::Malformed, "without `index`");
}

/// The mean comes from a histogram, and is as far off as its documentation allows.
#[test]
fn means_are_estimated_from_histograms() {
    let mut state = 7u64;
    for _ in 0..50 {
        let values: Vec<f64> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            -8.0 * (((state >> 11) as f64 + 1.0) / (1u64 << 53) as f64).ln()
        })
        .take(200)
        .collect();
        let (heights, middles) = histogram(&values, 40);
        let density = 0.125;
        let text = feature(
            "2",
            &format!(
                r#""frac_nonzero": {density}, "freq_hist_data_bar_heights": {heights:?}, "freq_hist_data_bar_values": {middles:?}"#
            ),
        );
        let found = read(text).unwrap().observed(2).unwrap().mean.unwrap();
        let mean = density * values.iter().sum::<f64>() / values.len() as f64;
        let half = (middles[1] - middles[0]) / 2.0;
        assert!((found - mean).abs() <= density * half * (1.0 + 1e-9));
    }
    // Edges in the place of middles, no bars, nothing but zeros, and what is no number.
    for (heights, values) in [
        ("[1, 2]", "[0.5, 1.5, 2.5]"),
        ("[]", "[]"),
        ("[0, 0]", "[0.5, 1.5]"),
        ("[2, -1]", "[0.5, 1.5]"),
        ("[1, null]", "[0.5, 1.5]"),
        ("[1, 2]", "\"none\""),
        ("[1, [2]]", "[0.5, 1.5]"),
        ("null", "[0.5]"),
    ] {
        let text = feature(
            "2",
            &format!(
                r#""frac_nonzero": 0.5, "freq_hist_data_bar_heights": {heights}, "freq_hist_data_bar_values": {values}"#
            ),
        );
        let labels = read(text).unwrap();
        assert_eq!(observed(&labels), [(2, None, Some(0.5), None)], "{heights}");
    }
}

/// Strengths relative to what a labels file says, and the place in the plan where it says nothing.
#[test]
fn plans_refer_to_statistics_of_labels() {
    use sae::steer::{Edit, FeatureStatistics, Plan, Statistics, Strength};
    let bars = r#""freq_hist_data_bar_heights": [3, 1], "freq_hist_data_bar_values": [1, 5]"#;
    let lines = [
        feature(
            "0",
            &format!(r#""maxActApprox": 6, "frac_nonzero": 0.25, {bars}"#),
        ),
        feature("1", r#""maxActApprox": 0"#),
    ];
    let labels = read(lines.join("\n")).unwrap();
    let statistics = Statistics::from_labels(&labels);
    let known = FeatureStatistics {
        max: Some(6.0),
        mean: Some(0.5),
        deviation: None,
    };
    assert_eq!(statistics.iter().collect::<Vec<_>>(), [(0, &known)]);

    let mut own = Statistics::new();
    let max = FeatureStatistics {
        max: Some(100.0),
        ..Default::default()
    };
    own.insert(0, max);
    let mut plan = Plan::new("relative")
        .edit(Edit::add(0, Strength::corpus_mean(2.0)))
        .edit(Edit::zero(5))
        .statistics(own);
    plan.fill_statistics(&statistics);
    let of = plan.statistics.of(0).unwrap();
    assert_eq!(
        (of.max, of.mean),
        (Some(100.0), Some(0.5)),
        "the plan's win"
    );
    assert_eq!(plan.statistics.iter().count(), 1, "those that it edits");
}

#[test]
fn descriptions_that_are_no_text() {
    for description in ["5", "true", "[\"x\"]", "{}"] {
        refused(line("1", description, "m"), Code::Malformed, "a text");
    }
    refused(
        line("1", r#""a\u0000b""#, "m"),
        Code::Malformed,
        "zero byte",
    );
    refused(
        line("1", r#""x""#, r"a\u0000b"),
        Code::Malformed,
        "zero byte",
    );
    refused(line("1", r#""\ud800""#, "m"), Code::Malformed, "hex escape");
    refused(
        [
            b"{\"index\": 1, \"description\": \"".as_slice(),
            b"\xff\xfe\"}",
        ]
        .concat(),
        Code::Malformed,
        "invalid unicode",
    );
}

#[test]
fn keys_that_occur_twice() {
    for (key, value) in [
        ("index", "1"),
        ("description", r#""y""#),
        ("explanationModelName", r#""y""#),
        ("typeName", r#""y""#),
        ("modelId", r#""y""#),
        ("layer", r#""y""#),
        ("saeId", r#""y""#),
    ] {
        let whole = line("1", r#""x""#, "m");
        let text = whole.replacen('{', &format!("{{\"{key}\": {value}, "), 1);
        refused(&text, Code::Malformed, "occurs twice");
        let inner = format!(r#"{{"explanations": [{text}]}}"#);
        refused(&inner, Code::Malformed, "occurs twice");
    }
    refused(
        r#"{"index": 1, "explanations": [], "explanations": []}"#,
        Code::Malformed,
        "occurs twice",
    );
}

#[test]
fn explanations_of_another_feature_inside_of_one() {
    for text in [
        r#"{"index": 1, "explanations": [{"index": 2, "description": "x"}]}"#,
        r#"{"explanations": [{"index": 2, "description": "x"}], "index": "1"}"#,
    ] {
        refused(text, Code::Malformed, "inside of feature 1");
    }
}

#[test]
fn two_sources_in_one_table() {
    let other = line("2", r#""y""#, "m").replace("6-res-jb", "7-res-jb");
    let text = [line("1", r#""x""#, "m"), other].join("\n");
    refused(
        &text,
        Code::Malformed,
        "`gpt2-small/6-res-jb` and `gpt2-small/7-res-jb`",
    );
}

#[test]
fn texts_that_are_no_export() {
    for (text, words) in [
        ("", "no explanation, and no statistics"),
        ("\n \n", "no explanation"),
        ("[]", "no explanation"),
        (r#"{"explanations": []}"#, "no explanation"),
        ("5", "an explanation"),
        ("\"x\"", "an explanation"),
        ("null", "an explanation"),
        ("[1]", "an explanation"),
        ("[[]]", "an explanation"),
        (r#"{"explanations": 5}"#, "a list of explanations"),
        (r#"{"explanations": [5]}"#, "an explanation"),
        (r#"{"204": "time"}"#, "without `index`"),
        ("index,description\n1,x", "expected value"),
        (r#"{"index": 1, "description": "x""#, "EOF"),
        (r#"{"index": 1, "description": "x"},"#, "expected value"),
        (r#"[{"index": 1, "description": "x"}"#, "EOF"),
        (r#"{"index": 1 "description": "x"}"#, "expected"),
        (r#"{"index": 01, "description": "x"}"#, "number"),
        ("<!DOCTYPE html><html>", "web page"),
        (
            "version https://git-lfs.github.com/spec/v1\nsize 5",
            "Git LFS",
        ),
    ] {
        refused(text, Code::Malformed, words);
    }
    // Sound lines in front of a broken one do not make a table.
    let text = line("1", r#""x""#, "m") + "\n{\"index\": 2";
    refused(&text, Code::Malformed, "line 2");
}

#[test]
fn long_texts_and_names() {
    let long = |bytes| format!("\"{}\"", "x".repeat(bytes));
    assert!(read(line("1", &long(MAX_DESCRIPTION), "m")).is_ok());
    refused(
        line("1", &long(MAX_DESCRIPTION + 1), "m"),
        Code::Malformed,
        "65536 bytes",
    );
    assert!(read(line("1", r#""x""#, &"m".repeat(MAX_NAME))).is_ok());
    refused(
        line("1", r#""x""#, &"m".repeat(MAX_NAME + 1)),
        Code::Malformed,
        "512 bytes",
    );
    // Anywhere else, as embeddings are.
    let with = |bytes| line("1", r#""x""#, "m").replace("[0.01,-0.02,0.03]", &"9".repeat(bytes));
    assert!(read(with(MAX_STRING - 1)).is_ok());
    refused(with(MAX_STRING + 1), Code::Limit, "length of a text");
}

#[test]
fn nesting() {
    let with = |depth: usize| {
        let nested = "[".repeat(depth) + &"]".repeat(depth);
        line("1", r#""x""#, "m").replacen("null", &nested, 1)
    };
    assert!(read(with(labels::MAX_DEPTH - 1)).is_ok());
    refused(with(labels::MAX_DEPTH), Code::Limit, "nesting");
    refused("[".repeat(1 << 20), Code::Limit, "nesting");
    // Brackets in a text are text.
    assert!(read(line("1", &format!("\"{}\"", "[".repeat(1000)), "m")).is_ok());
}

#[test]
fn too_many_of_anything() {
    let waiting = |count| {
        let list = vec![r#"{"description":"x"}"#; count].join(",");
        format!(r#"{{"explanations":[{list}],"index":1}}"#)
    };
    assert_eq!(read(waiting(MAX_WAITING)).unwrap().count(), MAX_WAITING);
    refused(waiting(MAX_WAITING + 1), Code::Limit, "before the `index`");
    let names: Vec<String> = (0..labels::MAX_NAMES)
        .map(|i| line("1", r#""x""#, &i.to_string()))
        .collect();
    refused(names.join("\n"), Code::Limit, "different names");
    let many = r#"{"index":1,"description":"x"}"#.repeat(labels::MAX_LABELS + 1);
    refused(&many, Code::Limit, "number of labels");
}

#[cfg(feature = "gzip")]
mod gzipped {
    use super::{all, line, read, refused};
    use sae::labels::{MAX_DEPTH, MAX_STRING};
    use sae::{Code, Labels};
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let level = flate2::Compression::best();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_form_is_read() {
        let lines = [line("1", r#""x""#, "m"), line("2", r#""y""#, "m")];
        let lists = format!("[{}]", lines.join(","));
        for text in [lines.join("\n"), lists] {
            let whole = gzip(text.as_bytes());
            assert_eq!(all(&read(&whole).unwrap()), all(&read(&text).unwrap()));
        }
        // Batches one behind the other, as `cat` joins them.
        let joined = [gzip(lines[0].as_bytes()), gzip(lines[1].as_bytes())].concat();
        assert_eq!(read(&joined).unwrap().count(), 2);
    }

    #[test]
    fn damage_is_named() {
        let sound = gzip(line("1", r#""x""#, "m").as_bytes());
        for cut in [3, 12, sound.len() / 2, sound.len() - 1] {
            refused(&sound[..cut], Code::Malformed, "gzip");
        }
        let mut wrong = sound.clone();
        let end = wrong.len() - 6;
        wrong[end] ^= 1;
        refused(&wrong, Code::Malformed, "gzip");
        refused([&sound[..], b"more"].concat(), Code::Malformed, "gzip");
        // Unpacked soundly, and no export.
        refused(gzip(b"{\"index\": 1"), Code::Malformed, "EOF");
        refused(gzip(&sound), Code::Malformed, "labels");
    }

    #[test]
    fn bombs() {
        let text = line("1", r#""x""#, "m");
        refused(gzip(&b" ".repeat(1 << 26)), Code::Limit, "unpacked size");
        let many = gzip(text.repeat(100_000).as_bytes());
        refused(&many, Code::Limit, "unpacked size");
        // Noise keeps the ratio low.
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            b'a' + (state >> 60) as u8
        })
        .take(MAX_STRING + 10)
        .collect();
        let noise = String::from_utf8(noise).unwrap();
        let long = text.replace("[0.01,-0.02,0.03]", &noise);
        refused(gzip(long.as_bytes()), Code::Limit, "length of a text");
        let deep = text.replacen("null", &"[".repeat(MAX_DEPTH), 1);
        refused(gzip(deep.as_bytes()), Code::Limit, "nesting");
    }

    #[test]
    fn folders_of_batches_are_read() {
        let folder = std::env::temp_dir().join(format!("sae-labels-{}", std::process::id()));
        let inner = folder.join("explanations");
        std::fs::create_dir_all(&inner).unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(inner.join(name), bytes).unwrap();
        put(
            "batch-10.jsonl.gz",
            &gzip(line("9", r#""later""#, "m").as_bytes()),
        );
        put(
            "batch-2.jsonl.gz",
            &gzip(line("9", r#""earlier""#, "m").as_bytes()),
        );
        put("batch-11.jsonl", b"");
        put("notes.txt", b"no export");
        for path in [&folder, &inner] {
            let labels = Labels::open(path).unwrap();
            assert_eq!(
                labels.of(9).map(|it| it.text).collect::<Vec<_>>(),
                ["earlier", "later"]
            );
        }
        put("batch-12.json", b"[{}]");
        let error = Labels::open(&folder).unwrap_err();
        assert!(error.to_string().contains("batch-12.json"), "{error}");
        std::fs::remove_dir_all(&inner).unwrap();
        let error = Labels::open(&folder).unwrap_err();
        assert!(error.to_string().contains("without .jsonl"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
        let error = Labels::open(&folder).unwrap_err();
        assert_eq!(error.code(), Code::Io, "{error}");
        assert!(error.to_string().contains("sae-labels-"), "{error}");
    }
}

#[cfg(not(feature = "gzip"))]
#[test]
fn a_gzip_file_needs_the_feature() {
    refused(
        b"\x1f\x8b\x08\0",
        Code::Unsupported,
        "this build lacks the feature `gzip`",
    );
}
