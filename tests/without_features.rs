//! What a build without a reader says of a file that needs it: the name of the feature. Nothing here
//! is compiled where the features are on; `.ci/run features` builds without them.

#[cfg(not(all(feature = "torch", feature = "gzip", feature = "yaml")))]
use sae::{Code, Error, OpenOptions, Sae};

/// The error's kind and text of a file in memory.
#[cfg(not(all(feature = "torch", feature = "gzip")))]
#[track_caller]
fn refused(bytes: &[u8], words: &str) {
    let opened = Sae::from_bytes("ae.pt", bytes, None, &OpenOptions::default());
    let error: Error = opened.expect_err("it opened");
    assert_eq!(error.code(), Code::Unsupported, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[cfg(not(all(feature = "torch", feature = "gzip")))]
fn data(path: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[cfg(not(feature = "torch"))]
#[test]
fn torch_files_need_the_feature() {
    let words = "this build lacks the feature `torch`";
    refused(&data("fixtures/dl_autoencoder/ae.pt"), words);
    refused(&data("pickled/prisma.pt"), words);
    // The old format, and a bare pickle.
    refused(&data("hostile/torch_legacy_stream/ae.pt"), words);
    refused(b"\x80\x02}.        ", words);
}

#[cfg(not(feature = "gzip"))]
#[test]
fn gzip_files_need_the_feature() {
    let words = "this build lacks the feature `gzip`";
    refused(&data("pickled/prisma.pkl.gz"), words);
    let error = sae::Labels::from_bytes(b"\x1f\x8b\x08\0").expect_err("they were read");
    assert!(error.to_string().contains(words), "{error}");
}

/// A side-car that cannot be read is no error where the tensors say enough; it is said.
#[cfg(all(feature = "std", not(feature = "yaml")))]
#[test]
fn yaml_side_cars_need_the_feature() {
    let folder = format!("{}/tests/data/fixtures", env!("CARGO_MANIFEST_DIR"));
    let words = "`config.yaml` was not read: this build lacks the feature `yaml`";
    let layer = format!("{folder}/circuit_tracer_plt/layer_7.safetensors");
    let sae = Sae::open(layer, &OpenOptions::default()).unwrap();
    let notes = &sae.description().notes;
    assert!(notes.iter().any(|note| note == words), "{notes:?}");
    // Where it would have said something that is needed, the error says that it was not read.
    #[cfg(feature = "torch")]
    {
        let opened = Sae::open(format!("{folder}/itda"), &OpenOptions::default());
        let error: Error = opened.expect_err("it opened without k");
        assert_eq!(error.code(), Code::MissingKey, "{error}");
        let words = "`metadata.yaml` was not read: this build lacks the feature `yaml`";
        assert!(error.to_string().contains(words), "{error}");
    }
}
