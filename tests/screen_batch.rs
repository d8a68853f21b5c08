//! The kernels of screened batches: every level against plain Rust, bit for bit, and both against
//! what one input alone is told.

mod library;

use library::kinds::Random;
use sae::Level;
use sae::kernels::screen::batch::{
    BatchKernels, GROUP_PANELS, GROUP_ROWS, GroupBounds, SecondCodes, TILE_INPUTS, Tile, TileInput,
    Totals, Word,
};
use sae::kernels::screen::{
    CodeFormat, HEADER_BYTES, PANEL_ROWS, ScreenInput, ScreenKernels, ScreenOutput,
};

const CASES: [(usize, usize); 5] = [(1, 4), (2, 1), (3, 3), (6, 4), (36, 4)];

/// The kernels of the levels that have some, beside the plain ones.
fn sets() -> Vec<&'static BatchKernels> {
    let mut sets = vec![BatchKernels::scalar()];
    let available: Vec<Level> = Level::available().collect();
    for level in [Level::Avx512] {
        match BatchKernels::for_level(level) {
            Some(kernels) if available.contains(&level) => sets.push(kernels),
            _ => println!("skipped: {level} (the build or the machine lacks it)"),
        }
    }
    sets
}

struct Group {
    blocks: usize,
    format: CodeFormat,
    panels: Vec<u8>,
    codes: Vec<Word>,
    scales: Vec<f32>,
}

fn float(random: &mut Random) -> f32 {
    random.value() as f32
}

/// Random panels, with finite numbers in their headers, and what the kernels unpack.
fn group(
    kernels: &BatchKernels,
    (format, blocks, count): (CodeFormat, usize, usize),
    second: Option<SecondCodes<'_>>,
    random: &mut Random,
) -> Group {
    let bytes = format.panel_bytes(blocks);
    let mut panels: Vec<u8> = (0..count * bytes).map(|_| random.next() as u8).collect();
    for panel in panels.chunks_exact_mut(bytes) {
        for number in panel[..HEADER_BYTES].chunks_exact_mut(4) {
            number.copy_from_slice(&float(random).to_le_bytes());
        }
    }
    let mut out = Group {
        blocks,
        format,
        panels,
        // Something that must be overwritten.
        codes: vec![[[9; 64]; GROUP_PANELS]; blocks * 16],
        scales: vec![-1.0; blocks * GROUP_ROWS],
    };
    let (codes, scales) = (&mut out.codes, &mut out.scales);
    kernels.unpack(format, &out.panels, blocks, second, codes, scales);
    out
}

struct Inputs {
    words: Vec<i32>,
    corrections: Vec<i32>,
    factors: Vec<f32>,
}

impl Inputs {
    fn new(blocks: usize, extreme: bool, random: &mut Random) -> Self {
        let word = |random: &mut Random| match extreme {
            true => [0x7f7f_7f7f, i32::from_le_bytes([0x81; 4])][random.next() as usize % 2],
            false => i32::from_le_bytes(
                (random.next() as u32)
                    .to_le_bytes()
                    .map(|byte| byte.max(1).wrapping_add(u8::from(byte == 0x80))),
            ),
        };
        Inputs {
            words: (0..blocks * 16 * TILE_INPUTS)
                .map(|_| word(random))
                .collect(),
            corrections: (0..blocks * TILE_INPUTS)
                .map(|_| i32::from(random.next() as i16))
                .collect(),
            factors: (0..blocks * TILE_INPUTS)
                .map(|_| (1 + random.next() % 255) as f32)
                .collect(),
        }
    }

    fn tile(&self) -> Tile<'_> {
        Tile {
            words: &self.words,
            corrections: &self.corrections,
            factors: &self.factors,
        }
    }
}

#[test]
fn codes_are_unpacked_alike_with_second_ones_and_without() {
    for format in CodeFormat::ALL {
        for (blocks, count) in CASES {
            for with_second in [false, true] {
                if with_second && format == CodeFormat::U8 {
                    continue;
                }
                let (stride, start) = (16 * blocks + 11, 5);
                let mut random = Random(blocks as u64);
                let rows: Vec<u8> = (0..stride * count * PANEL_ROWS)
                    .map(|_| random.next() as u8)
                    .collect();
                let second = SecondCodes {
                    rows: &rows,
                    stride,
                    start,
                };
                let found: Vec<Group> = sets()
                    .into_iter()
                    .map(|kernels| {
                        let second = with_second.then_some(second);
                        let mut random = Random(77);
                        group(kernels, (format, blocks, count), second, &mut random)
                    })
                    .collect();
                for other in &found {
                    assert!(other.codes == found[0].codes, "{format:?} {blocks} {count}");
                    assert_eq!(other.scales, found[0].scales);
                }
                let Group { codes, scales, .. } = &found[0];
                // Panels that are not there are zeros.
                for word in codes {
                    assert!(word[count..].iter().all(|codes| codes == &[0; 64]));
                }
                for scales in scales.chunks_exact(GROUP_ROWS) {
                    assert!(
                        scales[count * PANEL_ROWS..]
                            .iter()
                            .all(|&scale| scale == 0.0)
                    );
                }
                if with_second {
                    // The lowest two bits are the second code of the column.
                    for (row, codes_of) in rows.chunks_exact(stride).enumerate() {
                        for column in 0..64 * blocks {
                            let byte = codes_of[start + column / 64 * 16 + column % 16];
                            let expected = byte >> (column % 64 / 16 * 2) & 3;
                            let word = &codes[column / 4][row / PANEL_ROWS];
                            let code = word[row % PANEL_ROWS * 4 + column % 4];
                            assert_eq!(code & 3, expected, "{format:?} {row} {column}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn totals_are_the_same_at_every_level() {
    let mut random = Random(5);
    for format in CodeFormat::ALL {
        for (blocks, count) in CASES {
            for extreme in [false, true] {
                let inputs = Inputs::new(blocks, extreme, &mut random);
                let shape = (format, blocks, count);
                let group = group(BatchKernels::scalar(), shape, None, &mut random);
                let mut first: Option<Totals> = None;
                for kernels in sets() {
                    let mut totals = [[7.0; GROUP_ROWS]; TILE_INPUTS];
                    kernels.multiply(&group.codes, &group.scales, &inputs.tile(), &mut totals);
                    let bits = totals.map(|totals| totals.map(f32::to_bits));
                    let expected = first.get_or_insert(totals);
                    let expected = expected.map(|totals| totals.map(f32::to_bits));
                    assert_eq!(bits, expected, "{kernels:?} {format:?} {blocks}");
                }
            }
        }
    }
}

/// With factors of one, a batch says of each input what `ScreenKernels::screen` says of it alone.
#[test]
fn a_batch_says_what_each_input_alone_is_told() {
    let mut random = Random(8);
    for format in CodeFormat::ALL {
        for (blocks, count) in CASES {
            let mut inputs = Inputs::new(blocks, false, &mut random);
            inputs.factors.fill(1.0);
            for kernels in sets() {
                let group = group(kernels, (format, blocks, count), None, &mut random);
                let mut totals = [[0.0; GROUP_ROWS]; TILE_INPUTS];
                kernels.multiply(&group.codes, &group.scales, &inputs.tile(), &mut totals);
                let mut bounds = GroupBounds::EMPTY;
                let bytes = group.format.panel_bytes(group.blocks);
                for (p, panel) in group.panels.chunks_exact(bytes).enumerate() {
                    let number = |vector: usize, r: usize| {
                        let at = vector * 64 + 4 * r;
                        f32::from_le_bytes(panel[at..at + 4].try_into().unwrap())
                    };
                    for r in 0..PANEL_ROWS {
                        let i = p * PANEL_ROWS + r;
                        bounds.weight[i] = number(0, r);
                        bounds.offset[i] = number(1, r);
                        bounds.residual[i] = number(2, r);
                        bounds.other[i] = number(3, r);
                        bounds.threshold[i] = number(4, r);
                    }
                }
                for (r, totals) in totals.iter().enumerate() {
                    let column = |values: &[i32]| -> Vec<i32> {
                        values.chunks_exact(TILE_INPUTS).map(|v| v[r]).collect()
                    };
                    let (words, corrections) = (column(&inputs.words), column(&inputs.corrections));
                    let sum = |words: &[i32]| -> i32 {
                        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
                        bytes.map(|byte| i32::from(byte as i8)).sum()
                    };
                    let sums: Vec<i32> = words.chunks_exact(16).map(sum).collect();
                    let input = ScreenInput {
                        high: &[],
                        low: &words,
                        sums: &sums,
                        corrections: &corrections,
                        squares: &[],
                        step: 1e-5,
                        spread: 3.0,
                        slack: 0.25,
                    };
                    let rows = count * PANEL_ROWS;
                    let (mut keep, mut upper, mut lower) =
                        (vec![0; count], vec![0f32; rows], vec![0f32; rows]);
                    let mut output = ScreenOutput {
                        keep: &mut keep,
                        upper: &mut upper,
                        lower: &mut lower,
                    };
                    let alone = ScreenKernels::for_level(kernels.level());
                    alone.screen(format, &group.panels, blocks, &input, &mut output);
                    let input = TileInput {
                        step: 1e-5,
                        spread: 3.0,
                        slack: 0.25,
                        floor: f32::NEG_INFINITY,
                    };
                    for i in 0..rows {
                        let found = BatchKernels::bounds(totals, &input, &bounds, i);
                        let found = found.map(f32::to_bits);
                        assert_eq!(found, [lower[i], upper[i]].map(f32::to_bits));
                    }
                    let mut all = [TileInput::default(); TILE_INPUTS];
                    all[r] = input;
                    let mut of_row = [[0.0; GROUP_ROWS]; TILE_INPUTS];
                    of_row[r] = *totals;
                    let kept = kernels.keep(&of_row, &all, &bounds, None)[r];
                    for (p, keep) in keep.iter().enumerate() {
                        assert_eq!((kept >> (p * PANEL_ROWS)) as u16, *keep);
                    }
                }
            }
        }
    }
}

#[test]
fn judgements_agree_at_every_level_and_nan_keeps() {
    let mut random = Random(4);
    for round in 0..60 {
        let special = |random: &mut Random| match random.next() % 40 {
            0 if round % 2 == 0 => f32::NAN,
            1 if round % 2 == 0 => f32::INFINITY,
            2 => 0.0,
            _ => float(random),
        };
        let mut group = GroupBounds::EMPTY;
        for i in 0..GROUP_ROWS {
            group.weight[i] = special(&mut random);
            group.offset[i] = special(&mut random);
            group.residual[i] = special(&mut random).abs() * 0.1;
            group.other[i] = special(&mut random).abs() * 0.1;
            group.threshold[i] = match i {
                63 => f32::INFINITY,
                _ => float(&mut random),
            };
        }
        let inputs: [TileInput; TILE_INPUTS] = core::array::from_fn(|_| TileInput {
            step: special(&mut random),
            spread: special(&mut random).abs(),
            slack: special(&mut random).abs(),
            floor: float(&mut random),
        });
        let totals: Totals = core::array::from_fn(|_| core::array::from_fn(|_| float(&mut random)));
        for lower_slack in [None, Some(0.25)] {
            let mut expected = [0u64; TILE_INPUTS];
            for (r, input) in inputs.iter().enumerate() {
                for (i, total) in totals[r].iter().enumerate() {
                    let centre = group.weight[i] * (total * input.step) + group.offset[i];
                    let margin = group.residual[i] * input.spread + group.other[i] * input.slack;
                    let upper = centre + margin;
                    let dropped = match lower_slack {
                        None => upper < group.threshold[i] || upper < input.floor,
                        Some(slack) => {
                            let lower = centre - margin - slack;
                            let below = upper < input.floor && -lower < input.floor;
                            below || group.threshold[i] == f32::INFINITY
                        }
                    };
                    expected[r] |= u64::from(!dropped) << i;
                }
            }
            for kernels in sets() {
                let found = kernels.keep(&totals, &inputs, &group, lower_slack);
                assert_eq!(found, expected, "{kernels:?}");
            }
        }
    }
}

#[test]
fn values_above_a_floor_have_the_same_bits_at_every_level() {
    let mut random = Random(6);
    for len in 0..=33 {
        for floor in [f32::NEG_INFINITY, -0.5, 0.0, 0.25, f32::INFINITY, f32::NAN] {
            let values: Vec<f32> = (0..len)
                .map(|i| match i % 7 {
                    3 => f32::NAN,
                    4 => floor,
                    5 => -floor,
                    _ => float(&mut random),
                })
                .collect();
            let of_value = |(i, value): (usize, &f32)| {
                // A NaN is above every floor, and everything is above a floor that is one.
                let at_most = *value <= floor;
                u32::from(!at_most) << i
            };
            let expected = values
                .iter()
                .take(32)
                .enumerate()
                .map(of_value)
                .sum::<u32>();
            for level in Level::available() {
                let found = ScreenKernels::for_level(level).above(&values, floor);
                assert_eq!(found, expected, "{level} {len} {floor}");
            }
        }
    }
}
