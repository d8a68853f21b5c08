//! Random small models, written the way SAELens writes files.

use super::read::{bfloat, half};

/// A stream of pseudo-random numbers (SplitMix64): the same on every machine for a seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// An f32 in (-2, 2) with all bits of its fraction in use.
    pub(crate) fn number(&mut self) -> f32 {
        (self.bits() as i32) as f32 / 2f32.powi(30)
    }
}

/// Number formats of weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Format {
    F32,
    F16,
    BF16,
}

/// What kind of numbers a model or a batch of rows is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Spread over (-2, 2).
    Spread,
    /// Small whole numbers: sums are exact, ties and zeros are everywhere.
    Whole,
    /// Magnitudes from subnormal to huge.
    Extreme,
}

impl Format {
    /// The name in a safetensors header.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::F32 => "F32",
            Format::F16 => "F16",
            Format::BF16 => "BF16",
        }
    }

    /// The bytes of a random finite number.
    pub(crate) fn random(self, kind: Kind, random: &mut Random) -> Vec<u8> {
        let number = match kind {
            Kind::Spread => random.number(),
            Kind::Whole => random.below(5) as f32 - 2.0,
            Kind::Extreme => loop {
                let number = f32::from_bits(random.bits() as u32);
                if number.is_finite() {
                    break number;
                }
            },
        };
        match self {
            Format::F32 => number.to_le_bytes().to_vec(),
            Format::BF16 => number.to_le_bytes()[2..].to_vec(),
            Format::F16 => {
                let bits = match kind {
                    // The nearest f16 towards zero of a normal number.
                    Kind::Spread | Kind::Whole if number.abs() >= 2f32.powi(-14) => {
                        let bits = number.to_bits();
                        let exponent = (bits >> 23 & 255) + 15 - 127;
                        (bits >> 16 & 0x8000) | exponent << 10 | (bits >> 13 & 0x3ff)
                    }
                    Kind::Spread | Kind::Whole => 0,
                    Kind::Extreme => loop {
                        let bits = random.bits() as u32 & 0xffff;
                        if bits >> 10 & 31 != 31 {
                            break bits;
                        }
                    },
                };
                (bits as u16).to_le_bytes().to_vec()
            }
        }
    }

    /// The numbers that bytes stand for.
    pub(crate) fn widen(self, bytes: &[u8]) -> Vec<f32> {
        let pairs = |one: fn(u16) -> f64| -> Vec<f32> {
            let pairs = bytes.chunks_exact(2);
            pairs
                .map(|pair| one(u16::from_le_bytes([pair[0], pair[1]])) as f32)
                .collect()
        };
        match self {
            Format::F32 => bytes
                .chunks_exact(4)
                .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
                .collect(),
            Format::F16 => pairs(half),
            Format::BF16 => pairs(bfloat),
        }
    }
}

/// The tensors of a file that is being written.
#[derive(Debug, Default)]
pub(crate) struct Tensors {
    header: serde_json::Map<String, serde_json::Value>,
    data: Vec<u8>,
}

impl Tensors {
    /// Adds a tensor.
    pub(crate) fn add(&mut self, name: &str, format: Format, shape: &[usize], bytes: &[u8]) {
        let start = self.data.len();
        self.data.extend(bytes);
        let entry = serde_json::json!({
            "dtype": format.name(), "shape": shape, "data_offsets": [start, self.data.len()],
        });
        self.header.insert(name.to_string(), entry);
    }

    /// The safetensors file. `pad` spaces in the header move the data to other addresses.
    pub(crate) fn safetensors(&self, pad: usize) -> Vec<u8> {
        let mut header = serde_json::to_vec(&self.header).unwrap();
        header.extend(std::iter::repeat_n(b' ', pad));
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend(&self.data);
        file
    }
}

/// An npy file, version 1, of little-endian f32.
pub(crate) fn npy(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let sizes: Vec<String> = shape.iter().map(|size| format!("{size},")).collect();
    let header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}\n",
        sizes.join(" ")
    );
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.bytes());
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    file
}

/// An npz file: a stored zip archive of npy files.
pub(crate) fn npz(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    use std::io::Write as _;
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default();
    let stored = stored.compression_method(zip::CompressionMethod::Stored);
    for (name, content) in members {
        writer.start_file(format!("{name}.npy"), stored).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}
