// What one dispatch is about. Written by the host (`Params` in stream.rs).
struct Params {
    quads: u32,      // inputs per row, in groups of four
    rows: u32,
    d_sae: u32,
    first: u32,      // first feature of the weights that are bound
    features: u32,   // features of the weights that are bound
    flags: u32,
    k: u32,
    capacity: u32,   // entries of the list
}

const MAGNITUDE = 1u;   // magnitudes rank
const RANKED = 2u;      // top-k: lower keys are written, the k-th of them is a floor
const FAST = 4u;        // estimates without margins, and their values in the list

// Features that the host computes: no key is above this limit.
const OFF = 0xffffffffu;
