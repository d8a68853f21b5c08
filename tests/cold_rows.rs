//! Rows of a pack that never survive the screen stay on disk: what the system has in memory of the
//! encoder, counted by `mincore`.
#![cfg(all(feature = "pack", target_os = "linux"))]

mod library;

use library::kinds::Random;
use library::parts::{Stored, matrix};
use sae::model::{Activation, Parts, ScreenKind, Thresholds};
use sae::pack::{self, PackModel, PackOptions};
use sae::{Features, OpenOptions, Rows, Sae, Scratch};
use std::fs::File;
use std::path::Path;

const D_IN: usize = 512;
const D_SAE: usize = 16_384;
/// One feature in so many can fire; the thresholds of the others are out of reach.
const ALIVE: usize = 128;

mod pages {
    #![allow(unsafe_code)] // four calls of the system

    use std::fs::File;
    use std::os::fd::AsRawFd;

    pub(super) const PAGE: usize = 4096;

    /// Drops the pages of a file that no process has mapped.
    pub(super) fn drop_unmapped(file: &File) {
        file.sync_all().unwrap();
        // SAFETY: advice on a descriptor that is open.
        let refused =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(refused, 0);
    }

    /// Which pages of a file are in memory.
    pub(super) fn resident(file: &File) -> Vec<bool> {
        let len = file.metadata().unwrap().len() as usize;
        let mut found = vec![0u8; len.div_ceil(PAGE)];
        // SAFETY: a new mapping, of a file that is open; nothing reads it.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(map, libc::MAP_FAILED);
        // SAFETY: the mapping has `len` bytes, the vector a byte for each page of them.
        let failed = unsafe { libc::mincore(map, len, found.as_mut_ptr()) };
        assert_eq!(failed, 0);
        // SAFETY: the mapping was made above and is not used again.
        unsafe { libc::munmap(map, len) };
        found.into_iter().map(|page| page & 1 == 1).collect()
    }
}

/// The place of the encoder in the file, found by its first row.
fn place_of(encoder: &[u8], file: &Path) -> usize {
    let bytes = std::fs::read(file).unwrap();
    let row = &encoder[..4 * D_IN];
    let found = bytes.windows(row.len()).step_by(4).position(|at| at == row);
    4 * found.expect("the encoder is in the pack as it is")
}

#[test]
fn rows_that_never_survive_stay_on_disk() {
    let mut random = Random(21);
    let mut vectors = || -> Vec<Vec<f64>> {
        let mut vector = || (0..D_IN).map(|_| random.value()).collect();
        (0..D_SAE).map(|_| vector()).collect()
    };
    let (encoder, decoder) = (vectors(), vectors());
    let threshold = (0..D_SAE).map(|i| if i % ALIVE == 0 { 0.5 } else { 1e4 });
    let parts = Parts::new(
        matrix("W_enc", &encoder, Stored::Rows),
        Activation::JumpRelu {
            threshold: Thresholds::PerFeature(threshold.collect()),
            relu: true,
            inclusive: false,
        },
        matrix("W_dec", &decoder, Stored::Rows),
    );
    let inputs: Vec<f32> = (0..32 * D_IN).map(|_| random.value() as f32).collect();
    let rows = Rows::from_f32(&inputs, D_IN).unwrap();
    let mut plain = Sae::from_parts(parts).unwrap();
    let mut expected = Features::new();
    plain
        .encode(rows, &mut Scratch::new(&plain).unwrap(), &mut expected)
        .unwrap();
    assert!(expected.len() > 500, "{} features", expected.len());

    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cold_rows.gguf");
    plain.set_screen_options(ScreenKind::Proven.into());
    let model = PackModel::new("model", &plain);
    pack::write(&path, &[model], &PackOptions::default(), &mut |_| {}).unwrap();
    let start = place_of(plain.parts().encoder.bytes(), &path);
    let file = File::open(&path).unwrap();
    let encoder_pages = start.div_ceil(pages::PAGE)..(start + 4 * D_SAE * D_IN) / pages::PAGE;
    let in_memory = || {
        let resident = pages::resident(&file);
        let of_encoder = resident[encoder_pages.clone()].iter();
        of_encoder.filter(|resident| **resident).count()
    };
    pages::drop_unmapped(&file);
    if in_memory() > encoder_pages.len() / 2 {
        println!("skipped: the file system of the test keeps files in memory");
        return;
    }

    let sae = Sae::open(&path, &OpenOptions::default()).unwrap();
    assert!(sae.screen().is_some());
    let mut scratch = Scratch::for_rows(&sae, 1).unwrap();
    let mut features = Features::new();
    // The first row reads the codes, with what the system reads around them: that goes again.
    sae.encode(rows.part(0, 1), &mut scratch, &mut features)
        .unwrap();
    pages::drop_unmapped(&file);
    sae.encode(rows, &mut scratch, &mut features).unwrap();
    for (found, expected) in features.iter().zip(expected.iter()) {
        assert_eq!(found.indices, expected.indices);
    }
    let resident = in_memory();
    println!(
        "{resident} of {} pages of the encoder are in memory; {} rows can survive",
        encoder_pages.len(),
        D_SAE / ALIVE
    );
    // Two rows fit a page, so that a survivor is in two pages at most; what opening read of the
    // pages beside the encoder is there too.
    assert!(
        resident <= encoder_pages.len() / 16,
        "{resident} pages of the encoder are in memory"
    );

    // Many rows at once read nearly all of a model like others, and are not slowed down.
    let many: Vec<f32> = inputs.iter().copied().cycle().take(64 * D_IN).collect();
    let many = Rows::from_f32(&many, D_IN).unwrap();
    let mut scratch = Scratch::for_rows(&sae, 64).unwrap();
    sae.encode(many, &mut scratch, &mut features).unwrap();
    assert_eq!(features.len(), 2 * expected.len());
}
